"""What every library is given: a verifier, pairs that it decides rightly, and a budget for each attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.networks import build
from toolkit.pixels import to_unit
from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.scores import distances
from toolkit.verifiers.tensorflow import TensorFlowVerifier, tensorflow_model_input

Images = NDArray[np.float32]

# Of the quarter-width model, which has random weights.
SEED = 0
# The libraries' first weight of the margin in Carlini and Wagner's attack: of the powers of ten from 0.1 to 10,000 the
# one with which Foolbox's norms were smallest. With its default, 0.001, three searches find next to nothing.
FIRST_C = {"quarter": 10.0, "facenet-mini": 1.0}


@dataclass(frozen=True)
class Budget:
    """How much each attack may do; the numbers of the comparison, or a few for a warm-up."""

    fgsm_levels: int = 100
    fgsm_largest: float = 0.25
    deepfool_steps: int = 50
    pgd_steps: int = 40
    pgd_epsilon: float = 8 / 255
    searches: int = 3
    search_steps: int = 50
    deviations: int = 20
    largest_deviation: float = 0.5
    draws: int = 10
    fmn_steps: int = 100
    ddn_steps: int = 100
    apgd_steps: int = 40


SMALL = Budget(
    fgsm_levels=2,
    deepfool_steps=2,
    pgd_steps=2,
    searches=1,
    search_steps=2,
    deviations=2,
    draws=1,
    fmn_steps=2,
    ddn_steps=2,
    apgd_steps=2,
)


@dataclass(frozen=True)
class Problem:
    """The pairs to attack, and the verifier.

    Attributes:
        manifest: the verifier, its threshold included.
        network: from the model's input tensor to embeddings, differentiable; the same weights for every library.
        probes: (N, H, W, 3) in [0, 1].
        references: (N, D), the references' embeddings.
        genuine: (N,), whose goal is to be judged different.
        seeds: (N,), one for each pair, so that it draws the same in every batch.
        first_c: what the libraries' Carlini-Wagner attacks begin with.
    """

    manifest: Manifest
    network: Callable[[Any], Any]
    probes: Images
    references: NDArray[np.float32]
    genuine: NDArray[np.bool_]
    seeds: NDArray[np.int64]
    first_c: float

    def some(self, rows: slice) -> Problem:
        """A few of the pairs."""
        return replace(
            self,
            probes=self.probes[rows],
            references=self.references[rows],
            genuine=self.genuine[rows],
            seeds=self.seeds[rows],
        )

    def flips(self, verifier: TensorFlowVerifier, images: Images) -> NDArray[np.bool_]:
        """Whether images (N, ...) reach the pairs' goals."""
        decision = self.manifest.decision
        d = distances(decision.metric, verifier.embed(images), self.references)
        return (d < decision.threshold) != self.genuine


def make_problem(model: str, pairs: Path, count: int, folder: Path) -> None:
    """Choose pairs and write them into `folder`: half genuine, half impostor, no probe twice.

    Args:
        model: "quarter", or the name of a verifier with a checkpoint.
        pairs: LFW, or a list of pairs.
        count: of pairs.
        folder: that `read_problem` reads.

    Random weights have no threshold of their own: it is put at the median distance, so that about half the pairs are
    decided rightly.
    """
    manifest = find_manifest("facenet-mini" if model == "quarter" else model)
    verifier = TensorFlowVerifier(manifest, network=_network(model))
    spec, template = manifest.input, None if manifest.alignment is None else manifest.alignment.template
    crops = crop_pairs(load_pairs(pairs, limit=6 * count), spec.width, spec.height, template)
    embeddings = verifier.embed(to_unit(crops.images[:]))
    d = distances(manifest.decision.metric, embeddings[crops.index[:, 0]], embeddings[crops.index[:, 1]])
    genuine = np.array([pair.genuine for pair in crops.pairs])
    threshold = float(np.median(d)) if model == "quarter" else manifest.decision.threshold
    _, first = np.unique(crops.index[:, 0], return_index=True)
    right = np.flatnonzero(((d < threshold) == genuine) & np.isin(np.arange(len(d)), first))
    kept = np.concatenate([right[genuine[right]][: count // 2], right[~genuine[right]][: count // 2]])
    # Both goals in every part of a batch.
    kept = kept.reshape(2, -1).T.ravel()
    np.savez(
        folder / "pairs.npz",
        probes=crops.images[crops.index[kept, 0]],
        references=embeddings[crops.index[kept, 1]],
        genuine=genuine[kept],
        threshold=threshold,
    )


def read_problem(model: str, folder: Path, seed: int) -> Problem:
    """What `make_problem` wrote."""
    manifest = find_manifest("facenet-mini" if model == "quarter" else model)
    with np.load(folder / "pairs.npz") as file:
        decision = replace(manifest.decision, threshold=float(file["threshold"]))
        return Problem(
            replace(manifest, decision=decision),
            _network(model),
            to_unit(file["probes"]),
            file["references"],
            file["genuine"],
            1000 * seed + np.arange(len(file["genuine"])),
            FIRST_C.get(model, 1.0),
        )


@cache
def _network(model: str) -> Callable[[Any], Any]:
    import keras

    if model == "quarter":
        keras.utils.set_random_seed(SEED)
        network = build("inception_resnet_v1", embedding_size=128, width=0.25, folded=True)
        return lambda x: tf.math.l2_normalize(network(x, training=False), axis=-1)
    manifest = find_manifest(model)
    if manifest.checkpoint is None:
        raise SystemExit(f"{model}: has no checkpoint, and the libraries need one")
    return load_network(manifest.checkpoint, manifest.output.normalize)


class TwoClasses:
    """The verification decision as the libraries want it: a classifier of images into "same" (0) and "different" (1).

    The logits are half the threshold minus the distance, and its negative: their difference is the margin itself.
    Which reference an image is compared with is told by the clean probe that is nearest to it: attacks may split and
    reorder their batches as they like. Images run forward and backward are counted.
    """

    def __init__(self, problem: Problem) -> None:
        """Compile it."""
        # Variables, as ART calls the model inside graphs of its own too.
        self._forward, self._backward = tf.Variable(0), tf.Variable(0)
        spec, decision = problem.manifest.input, problem.manifest.decision
        if decision.metric != "squared-euclidean":
            raise SystemExit(f"{problem.manifest.name}: only squared Euclidean distances are compared here")
        clean = tf.reshape(tf.constant(problem.probes), (len(problem.probes), -1))
        half = tf.reduce_sum(tf.square(clean), axis=1) / 2
        references = tf.constant(problem.references)

        @tf.function(input_signature=[tf.TensorSpec((None, *problem.probes.shape[1:]))], autograph=False)
        def logits(images: Any) -> Any:
            flat = tf.stop_gradient(tf.reshape(images, (-1, clean.shape[1])))
            nearest = tf.argmax(tf.matmul(flat, clean, transpose_b=True) - half, axis=1)
            embeddings = problem.network(tensorflow_model_input(images, spec))
            d = tf.reduce_sum(tf.square(embeddings - tf.gather(references, nearest)), axis=1)
            margin = (decision.threshold - d) / 2
            return tf.stack([margin, -margin], axis=1)

        @tf.custom_gradient
        def counted(images: Any) -> Any:
            def back(upstream: Any) -> Any:
                self._backward.assign_add(tf.shape(upstream)[0])
                return upstream

            return tf.identity(images), back

        self._logits, self._counted = logits, counted

    @property
    def forward(self) -> int:
        """Images run forward so far."""
        return int(self._forward.numpy())

    @property
    def backward(self) -> int:
        """Images run backward so far."""
        return int(self._backward.numpy())

    def __call__(self, images: Any, training: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002 - ART's signature
        """Logits (N, 2) of images (N, H, W, 3)."""
        self._forward.assign_add(tf.shape(images)[0])
        return self._logits(self._counted(images))
