"""The main job asks for nothing: no network, no photographs, no arguments."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from toolkit.audit.clean.run import run_clean
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.report.schemas import report_schema
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import RuntimeVerifier
from toolkit.verifiers.scores import distances

ROOT = Path(__file__).resolve().parents[1]
# Every way of Python to the network ends here.
CUT_OFF = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise RuntimeError(f"the network was used: {event} {arguments}")
sys.addaudithook(refuse)
sys.argv = ["sixpixels", *sys.argv[1:]]
import cli
cli.main()
"""


def without_network() -> list[str]:
    """A prefix that takes all network interfaces away, where this machine lets us."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode == 0:
        return [unshare, "-rn"]
    return []


def test_an_audit_without_arguments_needs_neither_network_nor_photographs(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [*without_network(), sys.executable, "-c", CUT_OFF, "audit", "--limit", "2", "--attacks", "deepfool,gaussian"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OVERALL" in done.stdout
    (path,) = tmp_path.glob("runs/*/report.json")
    report = json.loads(path.read_text())
    jsonschema.validate(report, report_schema())
    assert report["complete"]
    assert report["target"]["name"] == "facenet-mini"
    assert {name for name, _ in report["profiles"]} == {"none", "mean3"}
    tested = {(s["profile"], s["knowledge"]) for s in report["scenarios"]}
    assert tested == {("none", "perfect"), ("mean3", "zero"), ("mean3", "perfect")}


def test_there_are_enough_faces_and_pairs_in_little_space() -> None:
    pairs = load_pairs(embedded_pairs())
    images = Counter(path.parent.name for path in (embedded_pairs() / "images").rglob("*.jpg"))
    assert len(images) >= 32
    assert min(images.values()) >= 3
    assert sum(p.genuine for p in pairs.pairs) >= 60
    assert sum(not p.genuine for p in pairs.pairs) >= 60
    assert sum(p.stat().st_size for p in embedded_pairs().rglob("*") if p.is_file()) <= 5 << 20
    for path in (embedded_pairs() / "images").rglob("*.jpg"):
        assert cv2.imread(str(path)).shape == (160, 160, 3)


def accuracy(manifest: Manifest) -> float:
    assert manifest.alignment is not None
    pairs = load_pairs(embedded_pairs())
    crops = crop_pairs(pairs, manifest.input.width, manifest.input.height, manifest.alignment.template)
    assert not crops.left_out
    return float(run_clean(RuntimeVerifier(manifest), crops, manifest.decision).correct.mean())


def test_facenet_mini_verifies_them() -> None:
    assert accuracy(find_manifest("facenet-mini")) >= 0.95


@pytest.mark.shared
def test_dlib_verifies_them(shared: Path) -> None:
    assert accuracy(find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))) >= 0.95


@pytest.mark.shared
def test_nobody_is_somebody(shared: Path) -> None:
    """By neither verifier is a generated face the same as a photograph that the model was learned from.

    `models/nobody/card.py` asks all 7,331 photographs. Here are those that it found to be nearest, and 300 others.
    """
    sys.path.insert(0, str(ROOT / "models"))
    from training_faces import lfw_names, lfw_photographs

    with (embedded_pairs() / "nearest.csv").open(newline="") as file:
        recorded = list(csv.DictReader(file))
    everybody = lfw_names(shared / "lfw")
    some = {row["photograph"] for row in recorded} | {*np.random.default_rng(0).choice(list(everybody), 300)}
    photographs = lfw_photographs(shared / "lfw", {name: everybody[name] for name in sorted(some)})
    pairs = load_pairs(embedded_pairs())
    for name in (str(shared / "verifiers" / "dlib_resnet.onnx"), "facenet-mini"):
        manifest = find_manifest(name)
        assert manifest.alignment is not None
        side = manifest.input.width
        verifier = RuntimeVerifier(manifest)
        nobody = crop_pairs(pairs, side, side, manifest.alignment.template)
        drawn = verifier.embed(to_unit(nobody.images))
        crops = [photographs.crop(i, side)[..., ::-1] for i in range(len(photographs))]
        real = verifier.embed(to_unit(np.stack(crops)))
        d = np.stack([distances(manifest.decision.metric, drawn, np.broadcast_to(e, drawn.shape)) for e in real])
        found = {
            image: (photographs.names[place], distance)
            for image, place, distance in zip(nobody.names, d.argmin(0), d.min(0), strict=True)
        }
        mine = {row["image"]: row for row in recorded if row["verifier"] == manifest.name}
        assert {image: photograph for image, (photograph, _) in found.items()} == {
            image: row["photograph"] for image, row in mine.items()
        }
        measured = [distance for _, distance in found.values()]
        np.testing.assert_allclose(measured, [float(mine[image]["distance"]) for image in found], atol=1e-3)
        assert d.min() > manifest.decision.threshold, name
