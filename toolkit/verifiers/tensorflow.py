"""The differentiable verifier: embeddings, and gradients through its defenses, in TensorFlow."""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, refusing
from toolkit.quiet import import_tensorflow
from toolkit.threads import go_on
from toolkit.verifiers.checkpoints import check_checkpoint, open_network, size_of
from toolkit.verifiers.entropy import seeded_entropy
from toolkit.verifiers.manifest import Checkpoint, Decision, Input, Manifest, Output
from toolkit.verifiers.normalize import Wanted, normalized
from toolkit.verifiers.onnx_file import model_sha256, parse_onnx, read_onnx
from toolkit.verifiers.onnx_graph import translate
from toolkit.verifiers.trial import TENSORFLOW, shipped_hashes, try_once
from toolkit.verifiers.variants import centers, tensorflow_attack_scores, tensorflow_distances, tensorflow_fold
from toolkit.verifiers.votes import compared, voted_scale

_BATCH = 32
# Batches have these sizes only. TensorFlow prepares each convolution anew for each size, which takes as long as a few
# more images, and forgets it where there are many sizes. An attack's batches shrink with every pair that falls.
_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 28, _BATCH)
# Networks that somebody uses, by all that they depend on, and the one that was asked for last. A sweep audits one
# verifier many times, and to load and trace its network takes seconds.
_IN_USE: WeakValueDictionary[tuple[str, str], Any] = WeakValueDictionary()
_LATEST: list[Any] = []
# TensorFlow cannot trace two functions at once that share a network.
_TRACING = RLock()
# Why a file has no normal form, by its hash, for the files whose networks were loaded here as they are.
_NO_NORMAL_FORM: dict[str, str] = {}


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


def has_checkpoint(manifest: Manifest) -> bool:
    """Return whether the original framework's model exists. Without it, gradients come from the ONNX file."""
    return manifest.checkpoint is not None and manifest.checkpoint.path.exists()


def differentiable(manifest: Manifest) -> Callable[[Any], Any]:
    """Load the verifier's network in TensorFlow, from its checkpoint or, without a checkpoint, from the ONNX file.

    Returns:
        A function from the model's input tensor to embeddings (N, D). It is traced once, and so is its gradient,
        however many verifiers share it: the same file gives the same function as long as that is in use.

    Raises:
        InputError: the model cannot be loaded, or the ONNX file has an operator that is not supported.
        UnavailableError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    checkpoint = manifest.checkpoint if has_checkpoint(manifest) else None
    digest = model_sha256(manifest.model) if checkpoint is None else check_checkpoint(checkpoint)
    key = digest, repr((checkpoint and (checkpoint.format, checkpoint.network), manifest.input, manifest.output))
    network = _IN_USE.get(key)
    if network is None:
        network = _IN_USE[key] = tf.function(_tried(manifest, checkpoint, digest), autograph=False)
    _LATEST[:] = [network]
    return network


def _tried(manifest: Manifest, checkpoint: Checkpoint | None, digest: str) -> Callable[[Any], Any]:
    """Load the network of `differentiable`, after a trial if it is not shipped."""
    model, lacking = model_for_gradients(manifest) if checkpoint is None else (b"", "")
    try:
        if digest not in shipped_hashes():
            about = {
                "model": str(manifest.model.resolve()), "sha256": digest, "input": asdict(manifest.input),
                "output": asdict(manifest.output), "metric": manifest.decision.metric,
                "checkpoint": checkpoint and {**asdict(checkpoint), "path": str(checkpoint.path.resolve())},
            }  # fmt: skip
            source = manifest.model if checkpoint is None else checkpoint.path
            try_once(_differentiate, about, model, str(source), TENSORFLOW, size_of(source))
        network = network_of(manifest, model)
    except InputError as error:
        if lacking:
            raise InputError(f"{error}; and it has no normal form ({lacking})") from error
        raise
    if lacking:
        _NO_NORMAL_FORM[digest] = lacking
    return network


def gradients_from(manifest: Manifest) -> str:
    """Say what the gradients of a verifier come from, and why not from the normal form of its ONNX file.

    The verifier's network must have been loaded in this process.
    """
    if manifest.checkpoint is not None and has_checkpoint(manifest):
        return manifest.checkpoint.path.name
    reason = _NO_NORMAL_FORM.get(model_sha256(manifest.model))
    return "the ONNX file itself" + (f" as it is, because it has no normal form: {reason}" if reason else "")


def model_for_gradients(manifest: Manifest) -> tuple[bytes, str]:
    """Return the ONNX file of a verifier in the form that is translated: the part of the embedding, for any batch.

    A file that has no such form is translated as it is, with what the operators make of it. Then the second value says
    why it has none.

    Raises:
        InputError: the file cannot be read.
    """
    model = read_onnx(manifest.model).content
    try:
        return normalized(model, manifest, Wanted((manifest.output.name,), folded=True, any_batch=True)), ""
    except InputError as error:
        return model, str(error)


def network_of(manifest: Manifest, model: bytes) -> Callable[[Any], Any]:
    """Load the network of `differentiable`, without a trial. `model` is that of `model_for_gradients`."""
    tf = import_tensorflow()
    if manifest.checkpoint is not None and has_checkpoint(manifest):
        return open_network(manifest.checkpoint, normalize=manifest.output.normalize)
    output = manifest.output
    network = translate(parse_onnx(model, manifest.model), manifest.model, output.name)

    def rows(x: Any) -> Any:
        # Fails for a file whose output has no row for each crop.
        found = tf.reshape(network(x), (tf.shape(x)[0], output.size))
        return tf.math.l2_normalize(found, axis=-1, epsilon=1e-24) if output.normalize else found

    return rows


def _differentiate(about: dict[str, Any], content: bytes) -> bytes:
    """Load a verifier's network, and compute one gradient. The content is the ONNX model, if there is no checkpoint."""
    spec, output = Input(**about["input"]), Output(**about["output"])
    given = about["checkpoint"]
    checkpoint = given and Checkpoint(**{**given, "path": Path(given["path"])})
    decision, model = Decision(about["metric"], 1.0, 4.0), Path(about["model"])
    manifest = Manifest(model, "", model, None, "", "", spec, output, decision, None, checkpoint)
    # A graph for one image alone must not seem to take any batch.
    crops = np.full((2, spec.height, spec.width, 3), 0.5, np.float32)
    verifier = TensorFlowVerifier(manifest, network=network_of(manifest, content))
    # A network without a gradient can be loaded: attacks that need one say so, and an audit finds it suspicious.
    with contextlib.suppress(NoGradientError):
        verifier.distances_and_gradients(crops, np.zeros((2, output.size), np.float32))
    return b""


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

        Raises:
            UnavailableError: TensorFlow is not installed.
            InputError: the network cannot be loaded.
        """
        self.manifest, self.draws, self.seed = manifest, draws, seed
        self._defended = defense is not None
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
        """Return entropies (N,) for the defense. Without a defense, skip the hashing, which is slow."""
        return seeded_entropy(crops, self.seed, draw) if self._defended else np.zeros(len(crops), np.int64)

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
