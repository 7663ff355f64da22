"""The deployed verifier: an ONNX file that ONNX Runtime runs as its manifest describes."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError, reason_of
from toolkit.threads import go_on
from toolkit.verifiers.edge import (
    BYTES,
    INPUTS,
    batches,
    check_crops,
    embedding_rows,
    fits_bytes,
    model_input,
    of_unit_length,
)
from toolkit.verifiers.entropy import ENTROPY, os_entropy, seeded_entropy
from toolkit.verifiers.manifest import Input, Manifest
from toolkit.verifiers.onnx_file import OnnxFile, read_onnx
from toolkit.verifiers.trial import ONNX, is_shipped, try_once
from toolkit.verifiers.votes import DRAWS, REFERENCE, THRESHOLD, compared, enrolling

_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}
# Types of an embedding.
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
# ONNX Runtime's default algorithm search for cuDNN changes results by about 1e-6 from run to run.
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "DEFAULT"}}


@dataclass(frozen=True)
class Execution:
    """How ONNX Runtime should run a model.

    Attributes:
        provider: the execution provider: a short name (cpu, cuda, ...), a full name, or "auto" for the best provider
            of this machine.
        required: the provider that the session must really use; None accepts any.
        threads: the number of threads, also of an audit; 0 takes OMP_NUM_THREADS, or lets ONNX Runtime choose.
        batch: the number of crops per call, unless the file fixes the batch size.
    """

    provider: str = "auto"
    required: str | None = None
    threads: int = 0
    batch: int = 32


def provider_name(name: str) -> str:
    """Return the full name of a provider. Short names are case-insensitive."""
    return _SHORT_NAMES.get(name.lower(), name)


def read_model(manifest: Manifest) -> bytes:
    """Read the model file of a manifest, with its external data inside. If the manifest states a hash, it is checked.

    A model that is not shipped is loaded and run once in a process of its own before. See `trial`.

    Raises:
        InputError: the file is missing, empty, larger than 2 GB, or has another hash; or ONNX Runtime cannot load it.
    """
    content = open_model(manifest).content
    try_model(content, manifest)
    return content


def open_model(manifest: Manifest) -> OnnxFile:
    """Read the model file of a manifest as `read_model` does, without a trial.

    Raises:
        InputError: the file is missing, empty, larger than 2 GB, or has another hash.
    """
    path = manifest.model
    if not path.is_file():
        raise InputError(f"{path}: no such model file; correct model.file in {manifest.path}")
    file = read_onnx(path)
    if manifest.sha256 not in (None, file.sha256):
        raise InputError(
            f"{path}: sha256 is {file.sha256}, but {manifest.sha256} is expected; the file was changed or damaged"
        )
    return file


def try_model(content: bytes, manifest: Manifest) -> None:
    """Load a serialized model, and run it on one crop, in a process of its own. Each model is tried once.

    Shipped models are not tried.

    Raises:
        InputError: it cannot be loaded or run, or it dies, hangs or takes too much memory.
    """
    if is_shipped(content):
        return
    about = {"where": str(manifest.model), "input": asdict(manifest.input)}
    try_once(_load_and_run, about, content, str(manifest.model), ONNX)


def _load_and_run(about: dict[str, Any], content: bytes) -> bytes:
    spec = Input(**about["input"])
    session = open_session(content, about["where"])
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    # What does not fit the manifest is not run: the verifier says later why it does not fit.
    entry = inputs.get(spec.name)
    if len(inputs) == 1 and entry is not None and entry.type in INPUTS and _has_shape(entry.shape, spec):
        batch = entry.shape[0]
        shape = (batch if isinstance(batch, int) else 1, spec.height, spec.width, 3)
        tensor = model_input(np.full(shape, 0.5, np.float32), spec, entry.type)
        run_session(session, None, {spec.name: tensor}, about["where"])
    return b""


def threads_of_environment() -> int:
    """OMP_NUM_THREADS, which other numeric libraries obey too; 0 without it."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and len(text) < 4 else 0


def open_session(
    content: bytes, where: str | Path, provider: str = "CPUExecutionProvider", threads: int = 0
) -> onnxruntime.InferenceSession:
    """Load a serialized ONNX model in ONNX Runtime, on one provider or on the best ("auto").

    Args:
        content: the model, with all its weights inside.
        where: the file that it came from, for error messages.
        provider: see `Execution`.
        threads: the number of threads; 0 takes OMP_NUM_THREADS, or lets ONNX Runtime choose.

    Raises:
        InputError: the model cannot be loaded.
        UnavailableError: the provider was asked for by name and cannot be used here.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or threads_of_environment()
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # ONNX Runtime writes long messages to standard error about each provider that does not work here. They are not
    # needed, because the provider that the session really uses is checked below.
    onnxruntime.set_default_logger_severity(4)
    providers = _providers(provider)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise InputError(f"{where}: ONNX Runtime cannot load it ({reason_of(error)})") from error
    used, asked = session.get_providers()[0], provider_name(provider)
    if asked not in ("auto", used):
        raise UnavailableError(
            f"{asked} was asked for, but cannot be used on this machine: the session runs on {used}; "
            "check the driver and its libraries (see `sixpixels doctor`), or give --provider auto"
        )
    return session


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str] | None, feed: dict[str, NDArray[Any]], where: str | Path
) -> list[Any]:
    """Run a session. Return the named outputs; None returns all.

    Raises:
        InputError: ONNX Runtime fails.
    """
    try:
        return list(session.run(outputs, feed))
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise InputError(f"{where}: ONNX Runtime failed while running it ({reason_of(error)})") from error


def _sides(spec: Input) -> list[int]:
    """Return the dimensions of the input tensor after the batch."""
    return [spec.height, spec.width, 3] if spec.layout == "NHWC" else [3, spec.height, spec.width]


def _has_shape(shape: list[Any], spec: Input) -> bool:
    """Return whether a session's input shape accepts batches of the manifest's tensors."""
    fits = len(shape) == 4 and not any(
        isinstance(s, int) and s != e for s, e in zip(shape[1:], _sides(spec), strict=True)
    )
    return fits and not (isinstance(shape[0], int) and shape[0] < 1)


def _providers(asked: str) -> list[Any]:
    available = onnxruntime.get_available_providers()
    if asked == "auto":
        # TensorRT needs minutes to build an engine, so it is used only if it is requested by name.
        names = [name for name in available if name != "TensorrtExecutionProvider"]
    else:
        name = provider_name(asked)
        if name not in available:
            raise UnavailableError(f"provider {name} is not in this ONNX Runtime; choose one of {', '.join(available)}")
        names = [name]
    return [(name, _PROVIDER_OPTIONS.get(name, {})) for name in names]


class RuntimeVerifier:
    """A verifier in ONNX Runtime.

    Attributes:
        manifest: the description of the verifier.
        provider: the execution provider that the session really uses (the first in its list).
        images_run: the number of crops that the model has processed so far.
        fixed_batch: the batch size that the file fixes; None if it accepts any. It is 1 if the file says that the
            embedding has no batch.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: bytes | None = None,
        execution: Execution | None = None,
        seed: int | None = None,
    ) -> None:
        """Load a model and check it against the manifest.

        Args:
            manifest: the description of the verifier.
            model: the content of the model file. By default the manifest's file is read.
            execution: how to run the model.
            seed: the seed for random defenses. Draws depend on the seed and on the crop's pixels, so that an audit is
                reproducible. None draws from the operating system, as a deployment must.

        Raises:
            InputError: the model cannot be loaded, or its tensors do not match the manifest.
            UnavailableError: the requested provider does not exist here, or the required provider is not used.
        """
        self.manifest = manifest
        self._draws = 1 if manifest.vote is None else manifest.vote.draws
        self.execution = execution or Execution()
        self.seed = seed
        self.images_run = 0
        content = read_model(manifest) if model is None else model
        self._session = open_session(content, manifest.model, self.execution.provider, self.execution.threads)
        self.provider: str = self._session.get_providers()[0]
        required = self.execution.required
        if required and self.provider != provider_name(required):
            raise UnavailableError(
                f"{provider_name(required)} is required, but the session runs on {self.provider}; "
                "check the driver and its libraries, or remove --require-provider"
            )
        self.fixed_batch = self._check_tensors()

    def _check_tensors(self) -> int | None:
        """Compare inputs and outputs with the manifest. Return the batch size that the file fixes, or None.

        Raises:
            InputError: they do not match.
        """
        spec, where = self.manifest.input, self.manifest.model
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        optional = {tensor.name for tensor in self._session.get_overridable_initializers()}
        self._takes_entropy = ENTROPY in {*optional, *inputs}
        named = [spec.name] if self.manifest.vote is None else [spec.name, ENTROPY, REFERENCE, THRESHOLD]
        if sorted(inputs) != sorted(named):
            raise InputError(f"{where}: inputs are {sorted(inputs)}, but the manifest names {', '.join(named)}")
        self._check_outputs({name: tensor.type for name, tensor in outputs.items()})
        self._kind = self._check_kind(inputs[spec.name].type)
        shape = inputs[spec.name].shape
        if not _has_shape(shape, spec):
            expected = ", ".join(map(str, _sides(spec)))
            raise InputError(
                f"{where}: input {spec.name!r} has shape {shape}, but the manifest says (N, {expected}) {spec.layout}"
            )
        if isinstance(shape[0], int):
            return int(shape[0])
        return 1 if outputs[self.manifest.output.name].shape == [self.manifest.output.size] else None

    def _check_kind(self, kind: str) -> str:
        """Return the type of the input, or raise InputError if it cannot be made of crops as the manifest says."""
        spec, where = self.manifest.input, self.manifest.model
        if kind not in INPUTS:
            raise InputError(f"{where}: input {spec.name!r} is {kind}, not one of {', '.join(INPUTS)}")
        if kind == BYTES and not fits_bytes(spec):
            raise InputError(
                f"{where}: input {spec.name!r} takes pixels as bytes; write range = [0, 255] into "
                f"{self.manifest.path}, with no mean, std or standardization"
            )
        return kind

    def tensor(self, crops: NDArray[np.float32]) -> NDArray[Any]:
        """Return the input tensor of crops (N, H, W, 3) in [0, 1], in the file's type."""
        return model_input(crops, self.manifest.input, self._kind)

    def _check_outputs(self, outputs: dict[str, str]) -> None:
        """Compare the types of the outputs by name with the manifest.

        Raises:
            InputError: an output that the manifest names is missing, or is not a tensor of floating-point numbers.
        """
        detector, where = self.manifest.detector, self.manifest.model
        vote = self.manifest.vote and DRAWS
        named = ("manifest", self.manifest.output.name), ("manifest's detector", detector and detector.name)
        for who, name in (*named, ("manifest's vote", vote)):
            if name is not None and name not in outputs:
                raise InputError(f"{where}: outputs are {sorted(outputs)}, but the {who} names {name!r}")
            if name is not None and outputs[name] not in FLOATS:
                raise InputError(f"{where}: output {name!r} is {outputs[name]}, not a tensor of floating-point numbers")

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute embeddings. They are L2-normalized if the manifest says so.

        Args:
            crops: (N, H, W, 3), RGB in [0, 1].

        Returns:
            (N, D) float32. Of a file with a vote, the embeddings of all draws, (N, draws * D).

        Raises:
            InputError: the crops have another size, or an embedding has another length or values that are not finite.
        """
        return self.embed_and_score(crops)[0]

    def embed_and_score(
        self, crops: NDArray[np.float32], draw: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute embeddings (N, D) as in `embed`, and the detector's attack scores (N,), which are 0 without detector.

        Args:
            crops: see `embed`.
            draw: number of the draw of seeded random defenses, from 0.

        Raises:
            InputError: as in `embed`; or the scores have another shape or values that are not finite.
        """
        spec, output, detector = self.manifest.input, self.manifest.output, self.manifest.detector
        name, size = (output.name, output.size) if self._draws == 1 else (DRAWS, output.size * self._draws)
        wanted = [name] if detector is None else [name, detector.name]
        check_crops(crops, spec.height, spec.width, self.manifest.name)
        parts, scores = [np.empty((0, size), np.float32)], [np.empty(0, np.float32)]
        for batch, count in batches(crops, max(1, self.execution.batch // self._draws), self.fixed_batch):
            go_on()
            feed: dict[str, NDArray[Any]] = {spec.name: self.tensor(batch)}
            if self._takes_entropy:
                feed[ENTROPY] = os_entropy(len(batch)) if self.seed is None else seeded_entropy(batch, self.seed, draw)
            if self._draws > 1:
                feed |= enrolling(output.size)
            found = run_session(self._session, wanted, feed, self.manifest.model)
            if any(value.ndim == 0 for value in found):
                raise InputError(f"{self.manifest.model}: outputs {wanted} must have a value for each crop")
            first = found[0] if self._draws == 1 else found[0].reshape(len(found[0]), -1)
            rows, *score = embedding_rows(first, len(batch), size), *(value[:count] for value in found[1:])
            if rows is None:
                raise InputError(
                    f"{self.manifest.model}: output {name!r} has shape {found[0].shape} for "
                    f"{len(batch)} crops, but the manifest says embeddings of {size}"
                )
            if score and (score[0].shape != (count,) or not np.isfinite(score[0]).all()):
                raise InputError(
                    f"{self.manifest.model}: output {wanted[1]!r} must have one finite number for each of "
                    f"{count} crops; its shape is {score[0].shape}"
                )
            parts.append(rows[:count].astype(np.float32, copy=False))
            scores.append(score[0] if score else np.zeros(count, np.float32))
        self.images_run += len(crops)
        result = np.concatenate(parts)
        if not np.isfinite(result).all():
            bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
            raise InputError(f"{self.manifest.model}: the embedding of crop {bad} has NaN or infinite values")
        # The file normalizes the draws of a vote itself.
        unit = output.normalize and self._draws == 1
        return of_unit_length(result) if unit else result, np.concatenate(scores)

    def compare(self, embeddings: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distances (N,) of embeddings to references, both from `embed`. See `votes.compared`."""
        return compared(self.manifest, embeddings, references)
