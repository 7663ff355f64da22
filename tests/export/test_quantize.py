"""Quantized variants: they drop in, keep the defense, and what they change is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner

from cli import app
from tests.models import write_linear
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.export.compare import run_quantization, split_pairs
from toolkit.export.quantize import PRECISIONS, Precision, quantized, write_quantized
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.profiles.harden import harden, hardened_manifest, write_hardened
from toolkit.profiles.profile import find_profile
from toolkit.report.build import print_quantization
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.manifest import Manifest, find_manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

EXECUTION = Execution("cpu", threads=1)
MINI = find_manifest("facenet-mini")


def crops_of(manifest: Manifest, source: Path, limit: int, folds: list[int] | None = None) -> CropSet:
    template = manifest.alignment.template if manifest.alignment else None
    return crop_pairs(
        load_pairs(source, limit=limit, folds=folds), manifest.input.width, manifest.input.height, template
    )


@pytest.fixture(scope="module")
def faces() -> CropSet:
    return crops_of(MINI, embedded_pairs(), 40)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_hardened_file_stays_one_that_drops_in(tmp_path: Path, faces: CropSet, precision: Precision) -> None:
    original = write_hardened(MINI, find_profile("detector"), tmp_path / "hardened.onnx")
    report = run_quantization(
        read_manifest(original.path), precision, tmp_path / "q.onnx", faces, "faces", 12, EXECUTION, seed=0, repeats=1
    )
    assert report.cosine_min > 0.98
    assert report.flips.trials > 10
    assert report.alarms is not None
    assert report.score_difference is not None
    assert 0 < report.score_difference < read_manifest(original.path).alarm
    assert 0 < report.relative_p99 <= report.relative_max < 0.25
    assert report.latency_quartiles[0] <= report.latency_ratio <= report.latency_quartiles[1]
    sessions = [onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in
                (original.path, report.written.path)]  # fmt: skip
    for side in (sessions[0].get_inputs(), sessions[0].get_outputs()):
        other = sessions[1].get_inputs() if side[0].name == "input" else sessions[1].get_outputs()
        assert [(v.name, v.type, v.shape) for v in side] == [(v.name, v.type, v.shape) for v in other]
    for batch in (1, 3):
        images = model_input(to_unit(faces.images[:batch]), MINI.input)
        embeddings, scores = sessions[1].run(None, {"input": images})
        assert len(embeddings) == len(scores) == batch
    metadata = {p.key: p.value for p in onnx.load(str(report.written.path)).metadata_props}
    assert precision in metadata["sixpixels.quantized"]
    assert metadata["sixpixels.profile"] == find_profile("detector").text, "what was audited is still in the file"
    again = read_manifest(report.written.path)
    assert again.decision == MINI.decision
    with pytest.raises(InputError, match="quantized already"):
        write_quantized(again, "int8", tmp_path / "twice.onnx", faces.images[:2], "faces")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["mean3", "strict", "randomized"])
def test_the_defense_computes_what_it_did_before(faces: CropSet, precision: Precision, name: str) -> None:
    profile = find_profile(name)
    hardened = harden(read_model(MINI), MINI, profile)
    variant = quantized(hardened, hardened_manifest(MINI, profile), precision, faces.images[:8])
    images: dict[str, NDArray[Any]] = {"input": model_input(to_unit(faces.images[8:10]), MINI.input)}
    if name == "randomized":
        images[ENTROPY] = np.array([3, 4], np.int64)
    before, after = (value_before_verifier(graph, images) for graph in (onnx.load_from_string(hardened), variant))
    # Rounded to float16 on the way they would differ by 1e-4; ONNX Runtime fuses nodes differently.
    np.testing.assert_allclose(before, after, atol=1e-6)
    onnx.checker.check_model(variant)
    done = {n.output[0]: n.op_type for n in variant.graph.node}
    for node in variant.graph.node:
        if node.name.startswith("sixpixels/"):
            assert node.op_type not in {"QuantizeLinear", "DequantizeLinear"}
            assert not {done.get(value) for value in node.input} & {"DequantizeLinear"}


def value_before_verifier(model: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What the profile gives to the verifier's first node."""
    values = {value for node in model.graph.node for value in node.output}
    # Where a cast to float16 stands behind it, the converter has left it the name.
    last = next(v for v in ("sixpixels/defended_cast_to_fp16", "sixpixels/defended") if v in values)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([last], feed)[0])


def bright_people(folder: Path) -> Path:
    """Four people, each twice, who differ in brightness alone: two dark ones, two bright ones."""
    lines = []
    for person, levels in {"a": (20, 24), "b": (30, 34), "c": (120, 124), "d": (220, 224)}.items():
        (folder / person).mkdir()
        for i, level in enumerate(levels):
            cv2.imwrite(str(folder / person / f"{i}.png"), np.full((8, 8, 3), level, np.uint8))
        lines.append(f"{person}/0.png,{person}/1.png,same")
    lines.append("c/0.png,d/0.png,different")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


def test_a_range_that_calibration_did_not_see_flips_just_the_pair_beyond_it(tmp_path: Path) -> None:
    source = bright_people(tmp_path)
    mean = np.full((8 * 8 * 3, 1), 1 / (8 * 8 * 3), np.float32)
    manifest = read_manifest(write_linear(tmp_path, weights=mean, side=8, threshold=0.2))
    crops = crops_of(manifest, source, 100)
    # Whoever is set apart is chance: a seed for which it is the darkest person.
    seed = next(s for s in range(100) if split_pairs(crops, 2, s).calibration.max() < 30)
    report = run_quantization(manifest, "int8", tmp_path / "q.onnx", crops, "people", 2, EXECUTION, seed, repeats=1)
    assert report.relative_max > 0.8, "the brightest embedding, 224, is clipped to that of the darkest person"
    # The bright people are clipped to the brightness of the darkest: c and d become the same.
    assert (report.flips.successes, report.flips.trials) == (1, 4)
    assert (report.before.fmr.successes, report.after.fmr.successes) == (0, 1)
    assert report.after.fnmr.successes == 0


def test_nobody_is_both_in_calibration_and_in_the_report(faces: CropSet) -> None:
    split = split_pairs(faces, 12, seed=1)
    assert len(split.calibration) == 12
    shown = {crop.tobytes() for crop in split.calibration}
    for row in np.flatnonzero(split.report):
        for place in faces.index[row]:
            assert faces.images[place].tobytes() not in shown
    with pytest.raises(InsufficientError, match="no pair is left"):
        split_pairs(faces, len(faces.images), seed=1)


def test_what_cannot_be_quantized_is_refused(tmp_path: Path, faces: CropSet) -> None:
    with pytest.raises(InputError, match="needs crops for calibration"):
        write_quantized(MINI, "int8", tmp_path / "q.onnx", faces.images[:0], "nothing")
    with pytest.raises(UsageError, match="is the verifier itself"):
        write_quantized(MINI, "fp16", MINI.model, faces.images[:0], "nothing")
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        write_quantized(MINI, "fp16", tmp_path / "q.bin", faces.images[:0], "nothing")


def linear(folder: Path, edit: Callable[[onnx.ModelProto], object], batch: str | int = "batch") -> Manifest:
    """A linear verifier of 8x8 crops whose graph was changed; its nodes have no names."""
    weights = np.random.default_rng(0).normal(size=(8 * 8 * 3, 4)).astype(np.float32)
    path = write_linear(folder, weights=weights, side=8, batch=batch)
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return read_manifest(path)


NOISE = np.random.default_rng(1).integers(0, 256, (10, 8, 8, 3), np.uint8)


def weights_as_a_node(model: onnx.ModelProto) -> None:
    """As PyTorch's exporter writes them."""
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("edit", "batch"), [(weights_as_a_node, "batch"), (lambda _: None, 3)])
def test_constant_nodes_and_a_fixed_batch_are_taken(
    tmp_path: Path, precision: Precision, edit: Callable[[onnx.ModelProto], object], batch: str | int
) -> None:
    manifest = linear(tmp_path, edit, batch)
    variant = quantized(read_model(manifest), manifest, precision, NOISE)
    # Weights that the converters do not know as such stay in float32.
    kept = [t.name for t in variant.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and t.dims == [192, 4]]
    assert not kept
    sides = [
        RuntimeVerifier(manifest, model, EXECUTION).embed(to_unit(NOISE))
        for model in (None, variant.SerializeToString())
    ]
    np.testing.assert_allclose(sides[1], sides[0], atol=0.02 * np.abs(sides[0]).max())


def test_the_last_node_before_a_detector_is_the_verifiers(tmp_path: Path) -> None:
    hardened = write_hardened(linear(tmp_path, lambda _: None), find_profile("detector"), tmp_path / "h.onnx")
    manifest = read_manifest(hardened.path)
    variant = quantized(read_model(manifest), manifest, "int8", NOISE)
    weights = [t for t in variant.graph.initializer if t.dims == [192, 4]]
    assert [t.data_type for t in weights] == [onnx.TensorProto.UINT8]


def test_what_nobody_takes_is_not_left_in_a_file(faces: CropSet) -> None:
    profile = find_profile("strict")
    hardened = harden(read_model(MINI), MINI, profile)
    variant = quantized(hardened, hardened_manifest(MINI, profile), "fp16", faces.images[:0])
    used = {name for node in variant.graph.node for name in node.input} | {v.name for v in variant.graph.output}
    assert [n.name for n in variant.graph.node if n.op_type == "Cast" and n.output[0] not in used] == []


def custom(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain, model.graph.node[0].name = "their.ops", "odd"
    model.opset_import.add(domain="their.ops", version=1)


def elsewhere(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def in_halves(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))


def by_integers(model: onnx.ModelProto) -> None:
    """As dynamic quantization leaves it; only the operators matter here."""
    model.graph.node[1].op_type = "MatMulInteger"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (custom, "'odd' is the custom operator their.ops.Flatten"),
        (elsewhere, "'weights' is in another file"),
        (lambda m: m.graph.input.add(name="mask"), r"inputs are \['input', 'mask'\]"),
        (in_halves, "quantized already"),
        (by_integers, "quantized already"),
        (lambda m: m.graph.node.pop(), "has no Conv, Gemm, MatMul to quantize"),
    ],
)
def test_verifiers_that_cannot_be_changed_are_refused(
    tmp_path: Path, precision: Precision, edit: Callable[[onnx.ModelProto], object], message: str
) -> None:
    manifest = linear(tmp_path, edit)
    with pytest.raises(InputError, match=message):
        write_quantized(manifest, precision, tmp_path / "q.onnx", NOISE, "noise")
    assert not (tmp_path / "q.onnx").exists()


def test_a_failure_of_the_tools_names_the_verifier(tmp_path: Path) -> None:
    def misfit(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((5, 4), np.float32), "weights"))

    with pytest.raises(InputError, match=r"linear\.onnx: ONNX Runtime cannot load it \("):
        write_quantized(linear(tmp_path, misfit), "int8", tmp_path / "q.onnx", NOISE, "noise")


def test_an_unknown_precision_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["quantize", "facenet-mini", "--to", "int4", "-o", str(tmp_path / "q.onnx")])
    assert isinstance(done.exception, UsageError)
    assert "int4" in str(done.exception)
    assert "int8" in str(done.exception)


@pytest.mark.parametrize(
    ("quartiles", "said"), [((1.1, 1.3), "slower"), ((0.9, 1.1), "not faster"), ((0.4, 0.6), "faster")]
)
def test_the_page_says_what_was_measured_of_speed(tmp_path: Path, quartiles: tuple[float, float], said: str) -> None:
    (tmp_path / "people").mkdir()
    crops = crops_of(manifest := linear(tmp_path, lambda _: None), bright_people(tmp_path / "people"), 100)
    report = run_quantization(manifest, "fp16", tmp_path / "q.onnx", crops, "people", 1, EXECUTION, 0, repeats=1)
    console = Console(width=80, record=True, file=StringIO())
    print_quantization(replace(report, latency_quartiles=quartiles), console)
    lines = console.export_text().splitlines()
    assert any(f": {said} here" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.shared
@pytest.mark.parametrize("precision", PRECISIONS)
def test_another_verifier_in_channels_first(tmp_path: Path, shared: Path, precision: Precision) -> None:
    manifest = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    crops = crops_of(manifest, shared / "lfw", 24, [7, 8])
    report = run_quantization(manifest, precision, tmp_path / "q.onnx", crops, "lfw", 12, EXECUTION, seed=0, repeats=1)
    assert report.cosine_min > 0.98
    assert report.flips.successes <= 1
    assert report.written.bytes_after < report.written.bytes_before
