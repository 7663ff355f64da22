"""Manifests found by trying: how a bare file is read, how clearly, and when nothing reads it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli import app
from tests import exports
from tests.models import MANIFEST
from toolkit.audit.evaluate import evaluate_verifier
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, embedded_pairs, load_pairs
from toolkit.files import bundled
from toolkit.manifests import readings
from toolkit.manifests.faces import crossed_pairs, first_sample
from toolkit.manifests.guess import guess_manifest
from toolkit.manifests.outline import Probe, Shape
from toolkit.manifests.readings import PER_IMAGE, SCALINGS, Reading, templates
from toolkit.manifests.wording import NOT_TO_BE_HARDENED
from toolkit.profiles.harden import harden_verifier
from toolkit.report.manifest import print_guess
from toolkit.verifiers.manifest import find_manifest, read_manifest

MINI = bundled("models") / "facenet-mini" / "facenet-mini.onnx"


@pytest.fixture(scope="module")
def generated() -> PairSet:
    return load_pairs(embedded_pairs(), limit=40)


def choices(found) -> dict[str, tuple[str, str]]:  # type: ignore[no-untyped-def]
    return {choice.what: (choice.chosen, choice.verdict) for choice in found.choices}


@pytest.mark.shared
def test_a_verifier_that_was_exported_otherwise_is_read_rightly(shared: Path, tmp_path: Path) -> None:
    """`python benchmarks/guess.py` tries ten more."""
    path = exports.export(
        shared / "verifiers" / "dlib_resnet.onnx", "NCHW", 150, tmp_path / "verifier.onnx",
        exports.aligned("arcface", 112), exports.bgr, exports.several_outputs, exports.scaled(-1, 1),
        exports.other_layout, exports.fixed_batch(3),
    )  # fmt: skip
    pairs = load_pairs(shared / "lfw", limit=60)
    found = guess_manifest(path, pairs)
    told = choices(found)
    assert told["alignment"][0] == "arcface"
    assert told["channels"][0] == "BGR"
    assert told["output"] == ("embedding", "clear")
    assert told["shape"] == ("NHWC 112 x 112", "stated")
    right = {"-1 to 1", "(x - 127.5) / 128"}
    assert right & {told["range"][0], *next(c.ties for c in found.choices if c.what == "range")}
    # What the guess says of its winner is what the toolkit says of the manifest that was written.
    evaluation = evaluate_verifier(path, pairs)
    assert evaluation.clean.d_prime == pytest.approx(found.best[0].separation, rel=1e-3)
    assert evaluation.clean.eer == pytest.approx(found.best[0].eer, abs=1e-3)
    assert evaluation.threshold == pytest.approx(found.best[0].threshold, rel=1e-5)
    assert evaluation.warnings == ()
    assert read_manifest(path).sha256 == found.sha256


def test_the_shipped_verifier_is_read_as_its_manifest_says(generated: PairSet, tmp_path: Path) -> None:
    (tmp_path / "mini.onnx").write_bytes(MINI.read_bytes())
    done = CliRunner().invoke(
        app,
        ["manifest", "guess", str(tmp_path / "mini.onnx"), "--limit", "40", "--json", "-o", str(tmp_path / "m.toml")],
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {c["what"]: c["verdict"] for c in found["choices"]}["metric"] == "only", "the embeddings have length 1"
    assert (found["best"][0]["layout"], found["best"][0]["height"], found["best"][0]["channels"]) == (
        "NHWC",
        160,
        "RGB",
    )
    written, shipped = read_manifest(tmp_path / "m.toml"), find_manifest("facenet-mini")
    assert (written.sha256, written.output.name) == (shipped.sha256, shipped.output.name)
    assert "# Found by trying" in (tmp_path / "m.toml").read_text()
    checked = CliRunner().invoke(app, ["manifest", "check", str(tmp_path / "m.toml"), "--limit", "40"])
    assert checked.exit_code == 0, checked.output
    assert "Nothing speaks against this manifest" in checked.output


def test_a_verifier_that_no_profile_can_protect_is_said_to_be_one(
    generated: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "SCALINGS", {PER_IMAGE: SCALINGS[PER_IMAGE]})
    (tmp_path / "mini.onnx").write_bytes(MINI.read_bytes())
    found = guess_manifest(tmp_path / "mini.onnx", generated)
    assert found.best[0].range == PER_IMAGE
    page = io.StringIO()
    print_guess(found, Console(file=page, width=300))
    assert NOT_TO_BE_HARDENED in page.getvalue()
    assert f'# {NOT_TO_BE_HARDENED}\nstandardization = "per-image"' in (tmp_path / "mini.toml").read_text()
    with pytest.raises(InputError, match="each image is standardized before the graph"):
        harden_verifier(tmp_path / "mini.onnx", "mean3", tmp_path / "hardened.onnx")


def test_a_wrong_manifest_is_named_by_check_and_by_evaluate(tmp_path: Path) -> None:
    (tmp_path / "facenet-mini.onnx").write_bytes(MINI.read_bytes())
    text = find_manifest("facenet-mini").path.read_text()
    text = text[: text.index("[checkpoint]")] + text[text.index("[input]") :]
    (tmp_path / "model.toml").write_text(text.replace("range = [0, 255]", "range = [0, 1]"))
    for command in (["manifest", "check"], ["evaluate"]):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "model.toml"), "--limit", "40"])
        told = " ".join(done.output.split())
        assert "WARNING: facenet-mini: the verifier accepts all 40 clean pairs, impostors too; the threshold is" in told
        assert done.exit_code == (3 if command[0] == "manifest" else 0)


def linear(folder: Path, sides: tuple[object, object], outputs: int = 32, dtype: int = onnx.TensorProto.FLOAT) -> Path:
    """A file that averages the colors, whatever the size of the image."""
    helper = onnx.helper
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["colors"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colors", "w"], ["y"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3, outputs)).astype(np.float32)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", dtype, ["n", 3, *sides])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", outputs])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    path = folder / "colors.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def labeled(pairs: PairSet, genuine: list[bool]) -> PairSet:
    return replace(pairs, pairs=tuple(replace(p, genuine=g) for p, g in zip(pairs.pairs, genuine, strict=True)))


def test_what_does_not_recognize_people_has_no_manifest(generated: PairSet, tmp_path: Path) -> None:
    path, rng = linear(tmp_path, (64, 64)), np.random.default_rng(1)
    truth = [pair.genuine for pair in generated.pairs]
    with pytest.raises(InsufficientError, match=r"no combination tells these people apart: .*EER of"):
        guess_manifest(path, labeled(generated, rng.permutation(truth).tolist()))
    with pytest.raises(InsufficientError, match=r"labels of .* may be swapped"):
        guess_manifest(path, labeled(generated, [not genuine for genuine in truth]))
    assert not path.with_suffix(".toml").exists()
    with pytest.raises(InsufficientError, match=r"has 3 genuine and 2 impostor pairs; 10 of each kind"):
        guess_manifest(path, load_pairs(embedded_pairs(), limit=5))


def test_embeddings_that_are_all_the_same_are_named(generated: PairSet, tmp_path: Path) -> None:
    model = onnx.load(linear(tmp_path, (64, 64)))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((3, 32), np.float32), "w"))
    onnx.save(model, tmp_path / "zeros.onnx")
    with pytest.raises(InsufficientError, match="embeddings that are all the same or no numbers"):
        guess_manifest(tmp_path / "zeros.onnx", generated)


def test_what_a_file_leaves_open_is_found_by_running_it(tmp_path: Path) -> None:
    outline = Probe(linear(tmp_path, ("h", "w"))).outline
    assert {shape.height for shape in outline.shapes} == {112, 150, 160, 224}
    assert {shape.layout for shape in outline.shapes} == {"NCHW"}
    assert not outline.fixed_shape
    with pytest.raises(InputError, match=r"no output has 16 values or more"):
        Probe(linear(tmp_path, (64, 64), outputs=8))
    with pytest.raises(InputError, match=r"is of type INT8, and must be FLOAT"):
        Probe(linear(tmp_path, (64, 64), dtype=onnx.TensorProto.INT8))
    (tmp_path / "text.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="is not an ONNX file"):
        Probe(tmp_path / "text.onnx")


def test_a_manifest_is_not_replaced_unasked_and_lies_beside_its_model(generated: PairSet, tmp_path: Path) -> None:
    path = linear(tmp_path, (64, 64))
    path.with_suffix(".toml").write_text(MANIFEST)
    with pytest.raises(UsageError, match="is there already; give --overwrite"):
        guess_manifest(path, generated)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="lies beside its model or in a folder above it"):
        guess_manifest(path, generated, tmp_path / "other" / "m.toml")


def test_means_follow_the_order_of_channels() -> None:
    reading = Reading(Shape("NCHW", 112, 112), "VGGFace2's mean", "BGR", "arcface", "y", "cosine")
    assert reading.spec("x").mean == tuple(reversed(SCALINGS["VGGFace2's mean"].mean))
    assert reading.spec("x").mean[0] == 91.4953, "blue comes first"


def test_templates_lie_in_their_crops_and_grow_with_them() -> None:
    for side in (112, 150, 160, 224):
        for name, points in templates(Shape("NCHW", side, side)).items():
            small = np.array(templates(Shape("NCHW", 112, 112))[name])
            np.testing.assert_allclose(np.array(points), small * side / 112, rtol=1e-6)
            assert (small > 0).all()
            assert (small < 112).all()
    narrow = np.array(templates(Shape("NCHW", 112, 96))["arcface"])
    np.testing.assert_allclose(narrow, np.array(templates(Shape("NCHW", 112, 112))["arcface"]) - [8, 0])


def test_images_of_one_person_are_never_crossed_as_impostors() -> None:
    pairs = load_pairs(embedded_pairs(), limit=40)
    sample = first_sample(pairs, 12, np.random.default_rng(0))
    assert all(pair.genuine for pair in sample.pairs.pairs)

    made = sample.pairs.pairs
    names = list(dict.fromkeys(name for pair in made for name in (pair.probe, pair.reference)))
    places = np.array([[names.index(pair.probe), names.index(pair.reference)] for pair in made])
    index, genuine = crossed_pairs(CropSet(np.empty((len(names), 1)), tuple(names), made, places, ()))  # type: ignore[arg-type]
    person = [name.split("/")[-2] for name in names]
    for (i, j), same in zip(index, genuine, strict=True):
        assert (person[i] == person[j]) == same
    assert genuine.sum() == len({frozenset(row) for row in map(tuple, places)})
    assert (~genuine).sum() > 100
