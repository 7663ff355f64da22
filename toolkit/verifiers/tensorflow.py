"""The differentiable verifier: embeddings, and gradients through its defenses, in TensorFlow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, refusing
from toolkit.quiet import import_tensorflow
from toolkit.threads import go_on
from toolkit.verifiers.differentiable import differentiable
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Input, Manifest
from toolkit.verifiers.variants import centers, tensorflow_attack_scores, tensorflow_distances, tensorflow_fold
from toolkit.verifiers.votes import compared, voted_scale

_BATCH = 32
# Batches have these sizes only. TensorFlow prepares each convolution anew for each size, which takes as long as a few
# more images, and forgets it where there are many sizes. An attack's batches shrink with every pair that falls.
_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, _BATCH)
# TensorFlow cannot trace two functions at once that share a network.
_TRACING = RLock()


def _padded(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Repeat the last row until there are `size` rows."""
    return array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def _joined(parts: list[Any]) -> Any:
    """Concatenate arrays, without a copy of one alone."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class NoGradientError(InputError):
    """The embedding does not depend on the input in a way that has a gradient."""


def tensorflow_model_input(crops: Any, spec: Input) -> Any:
    """Convert crops (N, H, W, 3) in [0, 1] to the model's tensor. This is `edge.model_input` with gradients."""
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


def _traced_once(function: Any) -> Callable[..., Any]:
    """Make a `tf.function` with a signature one that several threads may call. It is traced at its first call.

    The traced function is called itself: to look for it again, by its many variables, takes a third of a millisecond.
    """
    traced: list[Any] = []

    def run(*arguments: NDArray[Any]) -> Any:
        if not traced:
            with _TRACING:
                traced[:] = [function.get_concrete_function()]
        return traced[0](*map(import_tensorflow().convert_to_tensor, arguments))

    return run


class TensorFlowVerifier:
    """A compiled verifier in TensorFlow, with an optional differentiable defense. It accepts any batch size.

    Several threads may use it at once.
    """

    def __init__(
        self,
        manifest: Manifest,
        defense: Callable[[Any, Any], Any] | None = None,
        network: Callable[[Any], Any] | None = None,
        draws: int = 1,
        seed: int = 0,
        squeezers: Sequence[Callable[[Any], Any]] = (),
        voters: Callable[[Any, Any], Any] | None = None,
        *,
        random: bool = True,
    ) -> None:
        """Load the network.

        Args:
            manifest: the description of the verifier.
            defense: maps crops (N, H, W, 3) in [0, 1] and entropies (N,) to defended crops. If the profile is an
                ensemble, it returns several times N crops: first draw 1 of all crops, then draw 2, and so on.
            network: maps the model's input tensor to embeddings. The default is `differentiable(manifest)`.
            draws: gradients and distances are means over this many draws of a random defense (expectation over
                transformation, Athalye et al. 2018).
            seed: the seed of these draws, which also depend on the crop's pixels.
            squeezers: the detector's squeezers. Each maps defended crops to squeezed crops.
            voters: the defense with all draws of a vote, in the order of an ensemble. `defense` then makes one draw,
                so that attacks follow the mean of the distances of `draws` draws, as large a part of the vote as they
                can afford. `embed` and `compare` do what the deployed file does.
            random: whether the defense uses the entropies; they are computed only then.

        Raises:
            UnavailableError: TensorFlow is not installed.
            InputError: the network cannot be loaded.
        """
        self.manifest, self.draws, self.seed = manifest, draws, seed
        self._random = random and defense is not None
        network = network or differentiable(manifest)
        self._compile(network, defense, squeezers)
        self._votes = None if voters is None else self._voting(network, voters, squeezers)

    def _compile(
        self,
        network: Callable[[Any], Any],
        defense: Callable[[Any, Any], Any] | None,
        squeezers: Sequence[Callable[[Any], Any]],
    ) -> None:
        tf = import_tensorflow()
        manifest, draws, metric = self.manifest, self.draws, self.manifest.decision.metric
        scale = voted_scale(manifest)

        def folded(crops: Any, entropy: Any, squeezers: Sequence[Callable[[Any], Any]]) -> Any:
            defended = crops if defense is None else defense(crops, entropy)
            variants = tf.concat([defended, *(squeeze(defended) for squeeze in squeezers)], axis=0)
            embeddings = network(tensorflow_model_input(variants, manifest.input))
            return tensorflow_fold(embeddings, 1 + len(squeezers), tf.shape(crops)[0])

        def mean_and_gradient(crops: Any, each: Callable[[Any], Any]) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(crops)
                # The draws of a crop are adjacent.
                mean = tf.reduce_mean(tf.reshape(each(tf.repeat(crops, draws, 0)), (-1, draws)), axis=1)
                total = tf.reduce_sum(mean)
            gradient = tape.gradient(total, crops)
            if gradient is None:
                raise NoGradientError(
                    f"{manifest.model}: has no gradient, because the embedding depends on the input only through "
                    "operations without one; choose attacks that need none"
                )
            return mean, gradient

        images = tf.TensorSpec((None, manifest.input.height, manifest.input.width, 3), tf.float32)
        embeddings = tf.TensorSpec((None, manifest.output.size), tf.float32)
        entropies = tf.TensorSpec((None,), tf.int64)

        @tf.function(input_signature=[images, entropies], autograph=False)
        def embed_compiled(crops: Any, entropy: Any) -> Any:
            variants = folded(crops, entropy, squeezers)
            return variants[0], tensorflow_attack_scores(metric, variants)

        @tf.function(input_signature=[images, embeddings, entropies], autograph=False)
        def gradient_compiled(crops: Any, references: Any, entropy: Any) -> Any:
            repeated = tf.repeat(references, draws, 0)
            return mean_and_gradient(
                crops, lambda x: scale * tensorflow_distances(metric, folded(x, entropy, ())[0], repeated)
            )

        @tf.function(input_signature=[images, entropies], autograph=False)
        def score_gradient_compiled(crops: Any, entropy: Any) -> Any:
            return mean_and_gradient(crops, lambda x: tensorflow_attack_scores(metric, folded(x, entropy, squeezers)))

        self._embed = _traced_once(embed_compiled)
        self._gradient = _traced_once(gradient_compiled)
        self._score_gradient = _traced_once(score_gradient_compiled)

    def _voting(
        self,
        network: Callable[[Any], Any],
        voters: Callable[[Any, Any], Any],
        squeezers: Sequence[Callable[[Any], Any]],
    ) -> Any:
        """Compile the embeddings (N, draws * D) of all draws, and the attack scores (N,) of their means."""
        tf = import_tensorflow()
        spec, size, metric = self.manifest.input, self.manifest.output.size, self.manifest.decision.metric
        images = tf.TensorSpec((None, spec.height, spec.width, 3), tf.float32)

        @tf.function(input_signature=[images, tf.TensorSpec((None,), tf.int64)], autograph=False)
        def drawn(crops: Any, entropy: Any) -> Any:
            defended, count = voters(crops, entropy), tf.shape(crops)[0]
            variants = tf.concat([defended, *(squeeze(defended) for squeeze in squeezers)], axis=0)
            embeddings = network(tensorflow_model_input(variants, spec))
            scores = tensorflow_attack_scores(metric, tensorflow_fold(embeddings, 1 + len(squeezers), count))
            each = tf.reshape(embeddings[: tf.shape(defended)[0]], (-1, count, size))
            return tf.reshape(tf.transpose(each, (1, 0, 2)), (count, -1)), scores

        return _traced_once(drawn)

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of embeddings to references, as the deployed verifier compares them."""
        return compared(self.manifest, embeddings, references)

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of crops (N, H, W, 3), RGB in [0, 1]; of a vote, those of all draws."""
        return self.embed_and_score(crops)[0]

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embeddings (N, D) as in `embed`, and attack scores (N,), which are zero without squeezers."""
        # All draws of a vote are so many that one crop at a time fills a batch.
        run, size = (self._embed, _BATCH) if self._votes is None else (self._votes, 1)
        embeddings, scores = [np.empty((0, self._width), np.float32)], [np.empty(0, np.float32)]
        for i in range(0, len(crops), size):
            go_on()
            batch = crops[i : i + size]
            with self._running():
                embedding, score = run(batch, self._entropy(batch))
            embeddings.append(embedding.numpy())
            scores.append(score.numpy())
        return np.concatenate(embeddings), np.concatenate(scores)

    @property
    def _width(self) -> int:
        """How many numbers there are for each crop."""
        vote = self.manifest.vote
        return self.manifest.output.size * (1 if vote is None or self._votes is None else vote.draws)

    def _entropy(self, crops: NDArray[np.float32], draw: int = 0) -> NDArray[np.int64]:
        """Return entropies (N,) for a random defense. For others, skip the hashing, which is slow."""
        return seeded_entropy(crops, self.seed, draw) if self._random else np.zeros(len(crops), np.int64)

    def _running(self) -> AbstractContextManager[None]:
        """Everything that TensorFlow raises while it traces or runs the network becomes an `InputError`."""
        return refusing(f"{self.manifest.model}: TensorFlow cannot run it")

    def distances(self, crops: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of `distances_and_gradients` without computing gradients."""
        # `embed` is compiled in any case: a function of its own would cost seconds, to run the same network.
        return self._gradients(self._distance, crops, references)[0]

    def _distance(self, crops: NDArray[np.float32], references: NDArray[np.float32], entropy: NDArray[np.int64]) -> Any:
        """Return the mean distances (N,) over the draws, and no gradients."""
        tf = import_tensorflow()
        embeddings, _ = self._embed(np.repeat(crops, self.draws, 0), entropy)
        each = tensorflow_distances(self.manifest.decision.metric, embeddings, np.repeat(references, self.draws, 0))
        mean = voted_scale(self.manifest) * tf.reduce_mean(tf.reshape(each, (-1, self.draws)), axis=1)
        return mean, tf.zeros((0, *crops.shape[1:]))

    def distances_and_gradients(
        self, crops: NDArray[np.float32], references: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return distances (N,) to references (N, D), and their gradients (N, H, W, 3) with respect to the crops."""
        return self._gradients(self._gradient, crops, references)

    def scores_and_gradients(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return attack scores (N,), and their gradients (N, H, W, 3) with respect to the crops."""
        return self._gradients(self._score_gradient, crops)

    def _size(self, count: int) -> int:
        """The size of the batch that `count` crops are computed in."""
        return count if self.draws > 1 or self._votes is not None else _SIZES[bisect_left(_SIZES, count)]

    def _gradients(
        self, compiled: Callable[..., Any], crops: NDArray[np.float32], *others: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Run `compiled` on batches of the arrays. Return values (N,) and gradients (N, H, W, 3)."""
        others = tuple(centers(other, self.manifest.output.size) for other in others)
        if not len(crops):
            return np.empty(0), np.empty((0, *crops.shape[1:]), np.float32)
        values, gradients = [], []
        size = max(1, _BATCH // self.draws)
        for i in range(0, len(crops), size):
            go_on()
            batch = crops[i : i + size]
            entropy = np.stack([self._entropy(batch, draw) for draw in range(self.draws)], axis=1)
            count = len(batch)
            given: list[NDArray[Any]] = [batch, *(other[i : i + size] for other in others), entropy]
            *arrays, entropies = [_padded(array, self._size(count)) for array in given]
            with self._running():
                value, gradient = compiled(*arrays, entropies.ravel())
            values.append(value.numpy()[:count].astype(np.float64))
            gradients.append(gradient.numpy()[:count])
        return _joined(values), _joined(gradients)
