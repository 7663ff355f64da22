"""The original framework's side: a verifier in TensorFlow, with embeddings and gradients through its defenses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.checkpoints import load_network
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Input, Manifest
from toolkit.verifiers.onnx_graph import load_onnx
from toolkit.verifiers.quiet import import_tensorflow

_BATCH = 32


def tensorflow_model_input(crops: Any, spec: Input) -> Any:
    """`edge.model_input`, differentiable: crops (N, H, W, 3) in [0, 1] to the model's tensor."""
    tf = import_tensorflow()
    x = crops[..., ::-1] if spec.channels == "BGR" else crops
    x = spec.low + x * (spec.high - spec.low)
    if spec.standardization == "per-image":
        mean = tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)
        std = tf.math.reduce_std(x, axis=(1, 2, 3), keepdims=True)
        x = (x - mean) / tf.maximum(std, 1.0 / np.sqrt(spec.height * spec.width * 3))
    else:
        x = (x - tf.constant(spec.mean, tf.float32)) / tf.constant(spec.std, tf.float32)
    return tf.transpose(x, (0, 3, 1, 2)) if spec.layout == "NCHW" else x


def has_checkpoint(manifest: Manifest) -> bool:
    """Whether the original framework's model is there; without it, gradients come from the ONNX file."""
    return manifest.checkpoint is not None and manifest.checkpoint.path.exists()


def differentiable(manifest: Manifest) -> Callable[[Any], Any]:
    """The verifier's network in TensorFlow: from its checkpoint, or from the ONNX file where there is none.

    Raises:
        InputError: it cannot be loaded, or the ONNX file has an operator that has no translation.
        UnavailableError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    if manifest.checkpoint is not None and has_checkpoint(manifest):
        return load_network(manifest.checkpoint, manifest.output.normalize)
    network = load_onnx(manifest.model)
    if not manifest.output.normalize:
        return network
    return lambda x: tf.math.l2_normalize(network(x), axis=-1, epsilon=1e-24)


class TensorFlowVerifier:
    """The verifier in TensorFlow, behind an optional differentiable defense; compiled, any batch size."""

    def __init__(
        self,
        manifest: Manifest,
        defense: Callable[[Any, Any], Any] | None = None,
        network: Callable[[Any], Any] | None = None,
        draws: int = 1,
        seed: int = 0,
    ) -> None:
        """Load the network.

        Args:
            manifest: what goes in and comes out.
            defense: maps crops (N, H, W, 3) in [0, 1], and entropies (N,) for what is random in it, to crops.
            network: from the model's input tensor to embeddings; by default `differentiable`.
            draws: gradients and distances are means over this many draws of a random defense (expectation over
                transformation, Athalye et al. 2018).
            seed: of those draws, together with the crop's pixels.

        Raises:
            UnavailableError: TensorFlow is not installed.
            InputError: the network cannot be loaded.
        """
        tf = import_tensorflow()
        network = network or differentiable(manifest)
        self.manifest, self.draws, self.seed = manifest, draws, seed
        metric = manifest.decision.metric

        def embed(crops: Any, entropy: Any) -> Any:
            defended = crops if defense is None else defense(crops, entropy)
            return network(tensorflow_model_input(defended, manifest.input))

        def distance(a: Any, b: Any) -> Any:
            if metric == "cosine":
                return 1.0 - tf.reduce_sum(tf.math.l2_normalize(a, -1) * tf.math.l2_normalize(b, -1), axis=-1)
            squared = tf.reduce_sum(tf.square(a - b), axis=-1)
            return squared if metric == "squared-euclidean" else tf.sqrt(tf.maximum(squared, 1e-12))

        images = tf.TensorSpec((None, manifest.input.height, manifest.input.width, 3), tf.float32)
        embeddings = tf.TensorSpec((None, manifest.output.size), tf.float32)
        entropies = tf.TensorSpec((None,), tf.int64)

        @tf.function(input_signature=[images, entropies], autograph=False)
        def embed_compiled(crops: Any, entropy: Any) -> Any:
            return embed(crops, entropy)

        @tf.function(input_signature=[images, embeddings, entropies], autograph=False)
        def gradient_compiled(crops: Any, references: Any, entropy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(crops)
                # The draws of a crop lie beside each other.
                each = distance(embed(tf.repeat(crops, draws, 0), entropy), tf.repeat(references, draws, 0))
                d = tf.reduce_mean(tf.reshape(each, (-1, draws)), axis=1)
                total = tf.reduce_sum(d)
            return d, tape.gradient(total, crops)

        self._embed, self._gradient = embed_compiled, gradient_compiled

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) of crops (N, H, W, 3), RGB in [0, 1]."""
        batches = [crops[i : i + _BATCH] for i in range(0, len(crops), _BATCH)]
        parts = [self._embed(batch, seeded_entropy(batch, self.seed)).numpy() for batch in batches]
        return np.concatenate([np.empty((0, self.manifest.output.size), np.float32), *parts])

    def distances_and_gradients(
        self, crops: NDArray[np.float32], references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Distances (N,) to reference embeddings (N, D) and their gradients (N, H, W, 3) with respect to the crops."""
        d, g = [np.empty(0)], [np.empty((0, *crops.shape[1:]), np.float32)]
        size = max(1, _BATCH // self.draws)
        for i in range(0, len(crops), size):
            batch = crops[i : i + size]
            entropy = np.stack([seeded_entropy(batch, self.seed, draw) for draw in range(self.draws)], axis=1)
            distance, gradient = self._gradient(batch, references[i : i + size], entropy.ravel())
            d.append(distance.numpy().astype(np.float64))
            g.append(gradient.numpy())
        return np.concatenate(d), np.concatenate(g)
