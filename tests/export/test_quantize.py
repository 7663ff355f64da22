"""Quantized variants: they drop in, keep the defense, and what they change is counted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.models import write_linear
from toolkit.attacks.base import to_unit
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.export.compare import run_quantization, split_pairs
from toolkit.export.quantize import PRECISIONS, Precision, quantized, write_quantized
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.profiles.harden import harden, hardened_manifest, write_hardened
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.manifest import Manifest, find_manifest, read_manifest
from toolkit.verifiers.runtime import Execution, read_model

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
@pytest.mark.parametrize("name", ["mean3", "strict"])
def test_the_defense_computes_what_it_did_before(faces: CropSet, precision: Precision, name: str) -> None:
    profile = find_profile(name)
    hardened = harden(read_model(MINI), MINI, profile)
    variant = quantized(hardened, hardened_manifest(MINI, profile), precision, faces.images[:8])
    images = {"input": model_input(to_unit(faces.images[8:10]), MINI.input)}
    before, after = (value_before_verifier(graph, images) for graph in (onnx.load_from_string(hardened), variant))
    # Rounded to float16 on the way they would differ by 1e-4; ONNX Runtime fuses nodes differently.
    np.testing.assert_allclose(before, after, atol=1e-6)
    onnx.checker.check_model(variant)
    done = {n.output[0]: n.op_type for n in variant.graph.node}
    for node in variant.graph.node:
        if node.name.startswith("sixpixels/"):
            assert node.op_type not in {"QuantizeLinear", "DequantizeLinear"}
            assert not {done.get(value) for value in node.input} & {"DequantizeLinear"}


def value_before_verifier(model: onnx.ModelProto, feed: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
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
    with pytest.raises(InputError, match="needs crops to calibrate on"):
        write_quantized(MINI, "int8", tmp_path / "q.onnx", faces.images[:0], "nothing")
    with pytest.raises(UsageError, match="is the verifier itself"):
        write_quantized(MINI, "fp16", MINI.model, faces.images[:0], "nothing")
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        write_quantized(MINI, "fp16", tmp_path / "q.bin", faces.images[:0], "nothing")


@pytest.mark.shared
@pytest.mark.parametrize("precision", PRECISIONS)
def test_another_verifier_in_channels_first(tmp_path: Path, shared: Path, precision: Precision) -> None:
    manifest = find_manifest(str(shared / "verifiers" / "dlib_resnet.onnx"))
    crops = crops_of(manifest, shared / "lfw", 24, [7, 8])
    report = run_quantization(manifest, precision, tmp_path / "q.onnx", crops, "lfw", 12, EXECUTION, seed=0, repeats=1)
    assert report.cosine_min > 0.98
    assert report.flips.successes <= 1
    assert report.written.bytes_after < report.written.bytes_before
