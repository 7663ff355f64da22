"""The shipped verifier that is Lipschitz by construction: its promise, its precision, and attacks on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import foolbox
import numpy as np
import onnx
import pytest
import scipy.linalg
import tensorflow as tf
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.attack import attack_verifier
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.pixels import Images, to_unit
from toolkit.verifiers.differentiable import differentiable
from toolkit.verifiers.lipschitz import _ROUNDING, certified_radii, lipschitz_layers
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances, is_same
from toolkit.verifiers.tensorflow import tensorflow_model_input

NAME = "facenet-lipschitz"
MANIFEST = find_manifest(NAME)
PAIRS = 14


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(MANIFEST, Execution("cpu"), 0)


@pytest.fixture(scope="module")
def crops(shared: Path) -> CropSet:
    assert MANIFEST.alignment is not None
    pairs = load_pairs(shared / "lfw", limit=PAIRS, folds=[7, 8])
    return crop_pairs(pairs, MANIFEST.input.width, MANIFEST.input.height, MANIFEST.alignment.template)


def test_the_promise_is_the_product_of_singular_values_that_scipy_finds() -> None:
    model = read_model(MANIFEST)
    assert MANIFEST.output.lipschitz is not None
    found = lipschitz_layers(model, MANIFEST)
    assert np.prod([layer.bound for layer in found]) <= MANIFEST.output.lipschitz <= 1.0001
    graph = onnx.load_from_string(model).graph
    weights = {tensor.name: numpy_helper.to_array(tensor).astype(float) for tensor in graph.initializer}
    layers = {layer.name: layer for layer in found}
    for node in graph.node:
        bound = layers[node.output[0]].bound
        if node.op_type == "Gemm":
            assert bound == pytest.approx(scipy.linalg.svdvals(weights[node.input[1]])[0], rel=1e-6)
        if node.op_type == "Conv":  # a small image, with zeros around it, as one matrix
            kernel, stride = weights[node.input[1]], next(a.ints[0] for a in node.attribute if a.name == "strides")
            assert scipy.linalg.svdvals(_matrix(kernel, stride, side=2 * stride))[0] <= bound * (1 + 1e-9)


def _matrix(kernel: np.ndarray, stride: int, side: int) -> np.ndarray:
    """The matrix of a convolution with `stride` zeros around an image, written out from its definition."""
    out, inner, size, _ = kernel.shape
    steps = side // stride
    rows = np.zeros((out, steps, steps, inner, side + 2 * stride, side + 2 * stride))
    for y in range(steps):
        for x in range(steps):
            top, left = y * stride, x * stride
            rows[:, y, x, :, top : top + size, left : left + size] = kernel
    return rows[..., stride:-stride, stride:-stride].reshape(out * steps * steps, -1)


@pytest.mark.shared
def test_single_precision_errs_less_than_certificates_allow_for(crops: CropSet, bench: Bench) -> None:
    exact = onnx.load_from_string(read_model(MANIFEST))
    for tensor in exact.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*exact.graph.input, *exact.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    images = to_unit(np.asarray(crops.images[:1]))
    (wanted,) = ReferenceEvaluator(exact).run(None, {"input": images.transpose(0, 3, 1, 2).astype(np.float64)})
    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = RuntimeVerifier(MANIFEST).embed(images)
    assert np.linalg.norm(found - unit, axis=1).max() < _ROUNDING
    np.testing.assert_allclose(bench.raw_lengths(images), np.linalg.norm(wanted, axis=1), rtol=_ROUNDING)


@pytest.mark.shared
@pytest.mark.parametrize(("goal", "kind"), [("dodging", True), ("impersonation", False)])
def test_neither_our_best_attack_nor_foolbox_breaks_a_certificate(
    crops: CropSet, bench: Bench, goal: Literal["dodging", "impersonation"], kind: bool
) -> None:
    genuine = np.array([pair.genuine for pair in crops.pairs])
    probes, references = (np.asarray(crops.images[side]) for side in crops.index[genuine == kind].T)
    verifier, shown = RuntimeVerifier(MANIFEST), to_unit(probes)
    enrolled = verifier.embed(to_unit(references))

    def decided(images: Images) -> NDArray[np.bool_]:
        return is_same(MANIFEST.decision, distances(MANIFEST.decision.metric, verifier.embed(images), enrolled))

    clean = distances(MANIFEST.decision.metric, verifier.embed(shown), enrolled)
    radii = np.where(decided(shown) == kind, certified_radii(MANIFEST, clean, bench.raw_lengths(shown)), 0)
    ours = to_unit(attack_verifier(NAME, probes, references, goal, "fmn", settings=("fmn.steps=40",)).probes)
    network, limit = differentiable(MANIFEST), MANIFEST.decision.threshold

    def logits(images: tf.Tensor) -> tf.Tensor:
        embeddings = tf.math.l2_normalize(network(tensorflow_model_input(images, MANIFEST.input)), axis=1)
        margin = limit - tf.reduce_sum(tf.square(embeddings - enrolled), axis=1)
        return tf.stack([margin, -margin], axis=1)

    model = foolbox.TensorFlowModel(logits, bounds=(0, 1), device="/CPU:0")
    labels = tf.constant(np.full(len(probes), int(not kind)))
    theirs = foolbox.attacks.L2FMNAttack(steps=25).run(model, tf.constant(shown), labels).numpy()
    for images in (ours, theirs):
        far = np.sqrt(np.square(images.astype(np.float64) - shown).sum(axis=(1, 2, 3)))
        fell = (decided(images) != kind) & (radii > 0)
        assert fell.sum() >= 5, "an attack that never succeeds checks nothing"
        assert (far[fell] >= radii[fell]).all()
        assert np.median(far[fell] / radii[fell]) < 6, "certificates are of the size of what attacks need"
