"""Lipschitz bounds: against SciPy's singular values of each layer, and certificates against the exact distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.linalg
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.models import write_linear
from toolkit.audit.clean.bench import Bench
from toolkit.errors import InputError
from toolkit.profiles.harden import hardened_manifest
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.lipschitz import certified_radii, check_lipschitz, lipschitz_bound, lipschitz_layers
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

SIDE = 8
RNG = np.random.default_rng(0)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def one_layer(operator: str, weights: dict[str, Any], **attributes: Any) -> bytes:
    """A verifier of one operator on (N, 3, 8, 8), flattened."""
    nodes = [
        helper.make_node(operator, ["input", *weights], ["layer"], **attributes),
        helper.make_node("Flatten", ["layer"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_linear(tmp_path, weights=normal(3 * SIDE * SIDE, 2), side=SIDE, layout="NCHW"))


def apart() -> NDArray[np.float32]:
    """An input whose values are far from each other and from 0, so that no small step meets a kink."""
    count = 3 * SIDE * SIDE
    return (RNG.permutation(count) - count / 2 + 0.5).astype(np.float32).reshape(3, SIDE, SIDE)


def jacobian(model: bytes, at: NDArray[np.float32]) -> NDArray[np.float64]:
    """The matrix of a layer around an input, column by column; layers here are linear or piecewise linear."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run(x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(session.run(None, {"input": x})[0], np.float64)

    basis = 1e-2 * np.eye(at.size, dtype=np.float32).reshape(-1, *at.shape)
    return (run(at + basis) - run(at[None])).T / 1e-2


CONVS = {
    "windows apart": {"strides": [4, 5], "pads": [1, 0, 0, 0]},
    "plain": {},
    "zeros around": {"pads": [1, 1, 1, 1]},
    "more zeros on one side": {"pads": [0, 2, 1, 0]},
    "strides": {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    "strides that zeros do not fit": {"strides": [2, 3], "pads": [0, 1, 1, 1]},
    "windows side by side": {"strides": [3, 3]},
}


@pytest.mark.parametrize("how", CONVS)
def test_no_convolution_has_a_larger_singular_value_than_its_bound(how: str, manifest: Manifest) -> None:
    model = one_layer("Conv", {"w": normal(5, 3, 3, 3), "b": normal(5)}, **CONVS[how])
    exact = scipy.linalg.svdvals(jacobian(model, normal(3, SIDE, SIDE)))[0]
    bound = lipschitz_bound(model, manifest)
    assert exact <= bound * (1 + 1e-4), "a bound that is too small certifies what can be turned around"
    assert bound <= 1.5 * exact, "zeros around a small image cost little"
    if how == "windows side by side":
        assert bound == pytest.approx(exact, rel=1e-3)


OTHERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], float]] = {
    "mean of blocks": ("AveragePool", {}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 1.0),
    "mean of windows": ("AveragePool", {}, {"kernel_shape": [3, 3], "strides": [1, 1]}, 1.6),
    "largest of blocks": ("MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 1.0),
    "largest of windows": ("MaxPool", {}, {"kernel_shape": [3, 3], "strides": [2, 2]}, 2.1),
    "mean of all": ("GlobalAveragePool", {}, {}, 1.0),
    "slopes": ("PRelu", {"s": np.float32([[[1]], [[-1]], [[-1.5]]])}, {}, 1.6),
    "scaled": ("Mul", {"s": np.float32([[[0.5]], [[-3]], [[1]]])}, {}, 1.0),
    "divided": ("Div", {"s": np.float32([[[0.5]], [[-3]], [[1]]])}, {}, 1.0),
    "folded": ("Abs", {}, {}, 1.0),
    "standardized": (
        "BatchNormalization",
        {"g": np.float32([1, -2, 3]), "b": np.ones(3, np.float32), "m": np.zeros(3, np.float32),
         "v": np.float32([1, 0.1, 9])},
        {}, 1.0,
    ),
    "moved": ("Transpose", {}, {"perm": [0, 3, 1, 2]}, 1.0),
    "blocks as channels": ("SpaceToDepth", {}, {"blocksize": 2}, 1.0),
    "matrix": ("MatMul", {"w": normal(SIDE, 4)}, {}, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("which", OTHERS)
def test_no_other_layer_is_steeper_than_its_bound(which: str, manifest: Manifest) -> None:
    operator, weights, attributes, slack = OTHERS[which]
    model = one_layer(operator, weights, **attributes)
    exact = max(scipy.linalg.svdvals(jacobian(model, apart()))[0] for _ in range(4))
    bound = lipschitz_bound(model, manifest)
    assert exact <= bound * (1 + 1e-3)
    assert bound <= slack * exact * (1 + 1e-3)


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "unknown": ("Exp", {}, {}, "none is known for Exp"),
    "groups": ("Conv", {"w": normal(3, 1, 3, 3)}, {"group": 3}, "one group"),
    "partial means": ("AveragePool", {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, "whole windows"),
    "skips in means": (
        "AveragePool",
        {},
        {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 2]},
        "without dilation",
    ),
    "skips in maxima": (
        "MaxPool",
        {},
        {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 2]},
        "without dilation",
    ),
    "jumps": ("ThresholdedRelu", {}, {"alpha": 0.5}, "none is known"),
    "any slope": ("HardSigmoid", {}, {"alpha": 50.0}, "none is known"),
    "no number of zeros": ("Conv", {"w": normal(3, 3, 3, 3)}, {"auto_pad": "SAME_UPPER"}, "given in numbers"),
    "repeats": ("Add", {"s": np.ones((4, 1, 3, 8, 8), np.float32)}, {}, "repeats"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_has_no_bound_is_refused_by_name(which: str, manifest: Manifest) -> None:
    operator, weights, attributes, said = REFUSED[which]
    with pytest.raises(InputError, match=f"no Lipschitz bound.*{said}"):
        lipschitz_bound(one_layer(operator, weights, **attributes), manifest)


def after_a_mean(*nodes: onnx.NodeProto, **weights: NDArray[Any]) -> bytes:
    """A verifier that averages the image to three values `means` (N, 3, 1, 1), and goes on with `nodes` to `layer`."""
    proto = onnx.load_from_string(one_layer("GlobalAveragePool", {}))
    proto.graph.node[0].output[0] = "means"
    last = proto.graph.node.pop()
    proto.graph.node.extend([*nodes, last])
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return bytes(proto.SerializeToString())


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_a_constant_that_spreads_one_value_over_an_image_is_refused(operator: str, manifest: Manifest) -> None:
    """Each of the 64 copies moves with the value, so that the embedding moves 8 times as far."""
    spread = helper.make_node(operator, ["means", "wide"], ["layer"])
    with pytest.raises(InputError, match="repeats the data"):
        lipschitz_bound(after_a_mean(spread, wide=np.ones((1, 3, 8, 8), np.float32)), manifest)
    bound = lipschitz_bound(after_a_mean(spread, wide=np.ones((3, 1, 1), np.float32)), manifest)
    assert bound == pytest.approx(1 / 8), "a constant of the size of the data is no harm"


def test_limits_that_depend_on_the_image_are_refused(manifest: Manifest) -> None:
    """What is cut off at a multiple of itself is as steep as the multiple."""
    nodes = [
        helper.make_node("Mul", ["means", "steep"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["limit"], keepdims=0),
        helper.make_node("Clip", ["means", "limit"], ["layer"]),
    ]
    with pytest.raises(InputError, match=r"Clip .* has no fixed"):
        lipschitz_bound(after_a_mean(*nodes, steep=np.float32([1000])), manifest)
    fixed = helper.make_node("Clip", ["means", "", "most"], ["layer"])
    assert lipschitz_bound(after_a_mean(fixed, most=np.float32(0.5)), manifest) == pytest.approx(1 / 8)


def test_operators_that_only_have_the_name_of_onnx_are_refused(manifest: Manifest) -> None:
    proto = onnx.load_from_string(one_layer("Abs", {}))
    proto.graph.node[0].domain = "com.microsoft"
    with pytest.raises(InputError, match="no Lipschitz bound"):
        lipschitz_bound(proto.SerializeToString(), manifest)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(InputError, match="no operator of ONNX computes 'layer'"):
        lipschitz_bound(proto.SerializeToString(), manifest)


def test_singular_values_that_take_too_long_are_refused(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    model = one_layer("Conv", {"w": normal(5, 3, 3, 3)})
    lipschitz_bound(model, manifest)
    monkeypatch.setattr("toolkit.verifiers.lipschitz._MOST_OPERATIONS", 1e3)
    with pytest.raises(InputError, match="too long"):
        lipschitz_bound(model, manifest)


def test_branches_and_per_image_standardization_are_refused(manifest: Manifest) -> None:
    proto = onnx.load_from_string(one_layer("Abs", {}))
    proto.graph.node.insert(1, helper.make_node("Add", ["layer", "input"], ["both"]))
    proto.graph.node[2].input[0] = "both"
    with pytest.raises(InputError, match="joins 2 branches"):
        lipschitz_bound(proto.SerializeToString(), manifest)
    of_each = replace(manifest, input=replace(manifest.input, standardization="per-image"))
    with pytest.raises(InputError, match="standardized by itself"):
        lipschitz_bound(read_model(manifest), of_each)


def promising(manifest: Manifest, bound: float, **output: Any) -> Manifest:
    return replace(manifest, output=replace(manifest.output, lipschitz=bound, **output))


def test_a_manifest_that_promises_too_much_is_refused_before_an_audit(manifest: Manifest) -> None:
    bound = lipschitz_bound(read_model(manifest), manifest)
    check_lipschitz(read_model(manifest), manifest)  # promises nothing
    Bench(promising(manifest, bound), Execution("cpu"), 0)
    with pytest.raises(InputError, match=r"output.lipschitz is .*multiply to .*steepest is MatMul"):
        Bench(promising(manifest, 0.999 * bound), Execution("cpu"), 0)


def test_the_pixel_range_counts(tmp_path: Path) -> None:
    weights = normal(3 * SIDE * SIDE, 2)
    path = write_linear(tmp_path, weights=weights, side=SIDE, range=[0, 255], mean=127.5, std=[128.0, 64.0, 128.0])
    layers = lipschitz_layers(read_model(read_manifest(path)), read_manifest(path))
    assert [layer.operator for layer in layers] == ["pixels", "Flatten", "MatMul"]
    assert layers[0].bound == pytest.approx(255 / 64)
    assert layers[2].bound == pytest.approx(scipy.linalg.svdvals(weights.astype(float))[0], rel=1e-6)


def test_a_promise_is_not_one_of_a_hardened_file(manifest: Manifest) -> None:
    bounded = promising(manifest, 9.0)
    assert hardened_manifest(bounded, find_profile("none")).output.lipschitz == 9.0
    assert hardened_manifest(bounded, find_profile("mean3")).output.lipschitz is None


# The exact distance to the border of a verifier whose embedding is a scaled rotation of the crop is known.
RULES: dict[str, tuple[Any, bool, float, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]]] = {
    "lengths": ("euclidean", False, 0.5, lambda a, b: np.linalg.norm(a - b, axis=1)),
    "squares": ("squared-euclidean", False, 0.5, lambda a, b: np.sum(np.square(a - b), axis=1)),
    "directions": ("squared-euclidean", True, 3.0, lambda a, b: 2 - 2 * np.sum(a * b, axis=1)),
    "cosines": ("cosine", True, 3.0, lambda a, b: 1 - np.sum(a * b, axis=1)),
}


@pytest.mark.parametrize("rule", RULES)
def test_thousands_of_certificates_reach_just_to_the_border(rule: str, manifest: Manifest) -> None:
    metric, normalize, spread, distance = RULES[rule]
    scale, size, threshold = 3.0, 12, 0.7
    manifest = promising(manifest, scale, normalize=normalize, size=size)
    manifest = replace(manifest, decision=replace(manifest.decision, metric=metric, threshold=threshold, maximum=4.0))
    probes = scale * 0.4 * RNG.normal(size=(3000, size))
    references = probes + spread * RNG.random((3000, 1)) * RNG.normal(size=(3000, size))

    def distances(x: NDArray[np.float64]) -> NDArray[np.float64]:
        units = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, references))
        return distance(*units) if normalize else distance(x, references)

    d = distances(probes)
    radii = certified_radii(manifest, d, np.linalg.norm(probes, axis=1))
    same = d < threshold
    assert 300 < same.sum() < 2700
    # The shortest way to the border: along the difference, or by a turn in the plane of both directions.
    if normalize:
        u = probes / np.linalg.norm(probes, axis=1, keepdims=True)
        along = references - np.sum(references * u, axis=1, keepdims=True) * u
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        turn = np.arcsin(np.minimum(scale * radii / np.linalg.norm(probes, axis=1), 1))[:, None]
        step = np.cos(turn) * (np.cos(turn) * u + np.where(same, -1, 1)[:, None] * np.sin(turn) * along) - u
        step *= np.linalg.norm(probes, axis=1, keepdims=True)
    else:
        away = probes - references
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        step = np.where(same, 1, -1)[:, None] * away * scale * radii[:, None]
    assert np.all(np.linalg.norm(step, axis=1) <= scale * radii * (1 + 1e-9))
    assert np.array_equal(distances(probes + step) < threshold, same), "a certificate was broken"
    beyond = distances(probes + 1.001 * step + 1e-4 * step / np.linalg.norm(step, axis=1, keepdims=True))
    reachable = np.abs(d - threshold) < 0.5  # beyond a quarter turn there is no border
    assert np.mean((beyond < threshold)[reachable] != same[reachable]) > 0.95, "certificates are not wasteful"


def test_the_raw_lengths_are_those_before_the_host_normalizes(manifest: Manifest) -> None:
    unit = promising(manifest, 100.0, normalize=True)
    crops = RNG.random((5, SIDE, SIDE, 3), np.float32)
    raw = RuntimeVerifier(manifest).embed(crops)
    np.testing.assert_allclose(Bench(unit, Execution("cpu"), 0).raw_lengths(crops), np.linalg.norm(raw, axis=1), 1e-5)
