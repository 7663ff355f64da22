"""The host code of the documentation: a smoothed file decides and certifies alike in Python and in Node.js."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.audit.clean.bench import Bench
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.files import bundled
from toolkit.pixels import to_unit
from toolkit.profiles.harden import harden_verifier
from toolkit.profiles.profile import find_profile
from toolkit.profiles.vote import Vote
from toolkit.verifiers.lipschitz import certified_radii
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier
from toolkit.verifiers.scores import distances, is_same

HOSTS = bundled("models").parent / "docs" / "hosts"
DRAWS, CONFIDENCE = 24, 0.9


@pytest.fixture(scope="module")
def smoothed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a smoothed verifier and two pairs of crops, the first of one person."""
    folder = tmp_path_factory.mktemp("smoothed")
    profile = replace(find_profile("smoothed"), draws=DRAWS, vote=Vote(1.3, CONFIDENCE))
    harden_verifier("facenet-mini", profile, folder / "smoothed.onnx")
    template = find_manifest("facenet-mini").alignment
    assert template is not None
    crops: CropSet = crop_pairs(load_pairs(embedded_pairs(), limit=20), 160, 160, template.template)
    for genuine in (True, False):
        row = next(i for i, pair in enumerate(crops.pairs) if pair.genuine == genuine)
        for side, place in zip(("probe", "reference"), crops.index[row], strict=True):
            crops.images[place].tofile(folder / f"{genuine}-{side}.rgb")
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where onnxruntime-node is installed, without its scripts, which fetch libraries for graphics cards."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js and npm are not here")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-node@1.30.0"]
    try:
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-node: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def told(output: str) -> tuple[int, int, str, float]:
    """Votes, draws, decision and radius of a host's lines, whose own certificate must be that of the file."""
    votes, decision, radius, inside = output.splitlines()
    same, in_file = inside.removeprefix("in the file ").split()
    said, computed = decision.removeprefix("decision "), float(radius.removeprefix("radius "))
    assert {"1": "same", "0": "different", "-1": "abstains"}[same] == said
    assert float(in_file) == pytest.approx(computed, abs=2e-6)
    _, count, _, of = votes.split()
    return int(count), int(of), said, computed


@pytest.mark.parametrize(("genuine", "decision"), [(True, "same"), (False, "different")])
def test_python_reads_decision_and_certificate(smoothed: Path, genuine: bool, decision: str) -> None:
    command = [sys.executable, "-I", str(HOSTS / "verify.py"), "smoothed.onnx", "smoothed.toml"]
    crops = [f"{genuine}-probe.rgb", f"{genuine}-reference.rgb"]
    done = subprocess.run([*command, *crops], cwd=smoothed, capture_output=True, text=True, check=True)
    votes, draws, said, radius = told(done.stdout)
    assert draws == DRAWS
    assert said == decision, f"{votes} of {draws} votes"
    assert radius > 0
    more = subprocess.run([*command, *crops, "3"], cwd=smoothed, capture_output=True, text=True, check=True).stdout
    assert more.splitlines()[0].endswith(f"of {3 * DRAWS}")


@pytest.mark.parametrize(("genuine", "decision"), [(True, "same"), (False, "different")])
def test_node_reads_decision_and_certificate(smoothed: Path, node: Path, genuine: bool, decision: str) -> None:
    manifest = read_manifest(smoothed / "smoothed.onnx")
    assert manifest.vote is not None
    crops = [str(smoothed / f"{genuine}-{side}.rgb") for side in ("probe", "reference")]
    numbers = [str(manifest.decision.threshold), str(manifest.vote.sigma), str(CONFIDENCE)]
    command = ["node", str(HOSTS / "verify.mjs"), str(smoothed / "smoothed.onnx"), *crops, *numbers]
    done = subprocess.run(command, cwd=node, capture_output=True, text=True, check=True)
    votes, draws, said, _ = told(done.stdout)
    assert draws == DRAWS
    assert said == decision, f"{votes} of {draws} votes"


def test_a_lipschitz_bound_needs_no_more_than_the_embeddings(smoothed: Path) -> None:
    """The certificate that an audit gives to the same pair."""
    manifest = find_manifest("facenet-lipschitz")
    bench = Bench(manifest, Execution("cpu"), 0)
    for genuine in (True, False):
        names = [f"{genuine}-probe.rgb", f"{genuine}-reference.rgb"]
        command = [sys.executable, "-I", str(HOSTS / "bounded.py"), str(manifest.model), str(manifest.path), *names]
        done = subprocess.run(command, cwd=smoothed, capture_output=True, text=True, check=True)
        decision, radius = (line.split()[1] for line in done.stdout.splitlines())
        crops = [to_unit(np.fromfile(smoothed / name, np.uint8).reshape(1, 160, 160, 3)) for name in names]
        d = distances(manifest.decision.metric, *(RuntimeVerifier(manifest).embed(crop) for crop in crops))
        assert decision == ("same" if is_same(manifest.decision, d)[0] else "different")
        assert float(radius) == pytest.approx(certified_radii(manifest, d, bench.raw_lengths(crops[0]))[0], abs=1e-4)
