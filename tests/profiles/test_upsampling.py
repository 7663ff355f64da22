"""A hardened file does not enlarge what the verifier averages again, and enlarges wherever something else sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.models import write_linear
from toolkit.defenses.base import Defense
from toolkit.defenses.mean import Mean
from toolkit.defenses.median import Median
from toolkit.defenses.noise import Noise
from toolkit.profiles.detector import Detector
from toolkit.profiles.harden import deploy, harden
from toolkit.profiles.profile import Profile
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import RuntimeVerifier, read_model

SIDE, SIZE = 8, 4
CROPS = np.random.default_rng(1).random((5, SIDE, SIDE, 3), np.float32)
HALVES = {"kernel_shape": [2, 2], "strides": [2, 2]}


def write_averaging(folder: Path, layout: str = "NHWC", channels: str = "BGR", **attributes: Any) -> Manifest:
    """A linear verifier that averages its crop before, and says in its file what shapes its values have."""
    attributes = attributes or HALVES
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, SIZE)).astype(np.float32)
    path = write_linear(
        folder, weights=weights, side=SIDE, layout=layout, channels=channels, range=[0, 255], mean=127.5, std=128.0
    )
    proto = onnx.load(path)
    graph = proto.graph
    turned = "turned" if layout == "NHWC" else "input"
    del graph.node[:], graph.initializer[:]
    if layout == "NHWC":
        graph.node.append(helper.make_node("Transpose", ["input"], [turned], perm=[0, 3, 1, 2]))
        graph.value_info.append(helper.make_tensor_value_info(turned, TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]))
    graph.node.extend(
        [
            helper.make_node("AveragePool", [turned], ["averages"], name="averages", **attributes),
            helper.make_node("Flatten", ["averages"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
        ]
    )
    shape = onnx.shape_inference.infer_shapes(proto)
    sides = next(v for v in shape.graph.value_info if v.name == "averages").type.tensor_type.shape.dim[1:]
    count = int(np.prod([side.dim_value for side in sides]))
    graph.initializer.append(numpy_helper.from_array(weights[:count], "weights"))
    path.write_bytes(proto.SerializeToString())
    return read_manifest(path)


def enlargements(manifest: Manifest, profile: Profile) -> int:
    proto = onnx.load_model_from_string(harden(read_model(manifest), manifest, profile))
    onnx.checker.check_model(proto, full_check=True)
    return sum(node.op_type == "Resize" for node in proto.graph.node)


def agree(manifest: Manifest, profile: Profile) -> None:
    """The deployed file and the profile's NumPy form give the same embeddings."""
    staged = profile.embed_and_score(
        RuntimeVerifier(manifest).embed, manifest.decision.metric, CROPS, seeded_entropy(CROPS, 7)
    )
    deployed = deploy(read_model(manifest), manifest, profile, seed=7).embed_and_score(CROPS)
    for i in range(2):
        np.testing.assert_allclose(deployed[i], staged[i], rtol=1e-4, atol=1e-4)


def noisy(*more: Defense, draws: int = 1, block: int = 2) -> Profile:
    return Profile("noisy", "", (Noise(0.2, block), *more), "x", "", draws)


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_an_average_of_the_repeated_blocks_needs_no_repetition(
    tmp_path: Path, layout: str, channels: str, draws: int
) -> None:
    manifest = write_averaging(tmp_path, layout, channels)
    assert enlargements(manifest, noisy(draws=draws)) == 0
    agree(manifest, noisy(draws=draws))


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [1, 1]},
        {"kernel_shape": [2, 2]},
        {"kernel_shape": [4, 4], "strides": [4, 4]},
        {"kernel_shape": [4, 2], "strides": [4, 2]},
        {**HALVES, "pads": [1, 1, 1, 1]},
        {**HALVES, "auto_pad": "SAME_UPPER"},
    ],
    ids=str,
)
def test_another_average_still_sees_the_repeated_blocks(tmp_path: Path, attributes: dict[str, Any]) -> None:
    manifest = write_averaging(tmp_path, **attributes)
    assert enlargements(manifest, noisy()) == 1
    agree(manifest, noisy())


def test_what_else_sees_the_crop_still_sees_all_its_pixels(tmp_path: Path) -> None:
    manifest = write_averaging(tmp_path)
    watched = replace(noisy(), detector=Detector((Median(3),), 0.1, 0.05))
    for profile in (noisy(Mean(3)), noisy(block=4), watched):
        assert enlargements(manifest, profile) == 1
        agree(manifest, profile)
    proto = onnx.load(manifest.model)
    proto.graph.node.append(helper.make_node("ReduceMean", ["turned"], ["mean"], axes=[1, 2, 3], keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch"]))
    manifest.model.write_bytes(proto.SerializeToString())
    assert enlargements(manifest, noisy()) == 1
    agree(manifest, noisy())
