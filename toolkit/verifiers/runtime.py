"""The deployed verifier: an ONNX file that ONNX Runtime runs as its manifest describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.files import check_sha256
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.entropy import ENTROPY, os_entropy, seeded_entropy
from toolkit.verifiers.manifest import Manifest

_LARGEST_MODEL = 2 << 30
_SHORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
}
# ONNX Runtime's default algorithm search for cuDNN changes results by about 1e-6 from run to run.
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "DEFAULT"}}


@dataclass(frozen=True)
class Execution:
    """How ONNX Runtime should run a model.

    Attributes:
        provider: the execution provider: a short name (cpu, cuda, ...), a full name, or "auto" for the best provider
            of this machine.
        required: the provider that the session must really use; None accepts any.
        threads: the number of threads; 0 lets ONNX Runtime choose.
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
    """Read the model file of a manifest. If the manifest states a hash, it is checked first.

    Raises:
        InputError: the file is missing, empty, larger than 2 GB, or has another hash.
    """
    path = manifest.model
    if not path.is_file():
        raise InputError(f"{path}: no such model file; correct model.file in {manifest.path}")
    if not 0 < path.stat().st_size <= _LARGEST_MODEL:
        raise InputError(f"{path}: has {path.stat().st_size} bytes; a model must have 1 byte to 2 GB")
    if manifest.sha256 is not None:
        check_sha256(path, manifest.sha256)
    return path.read_bytes()


class RuntimeVerifier:
    """A verifier in ONNX Runtime.

    Attributes:
        manifest: the description of the verifier.
        provider: the execution provider that the session really uses (the first in its list).
        images_run: the number of crops that the model has processed so far.
        fixed_batch: the batch size that the file fixes; None if it accepts any.
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
        self.execution = execution or Execution()
        self.seed = seed
        self.images_run = 0
        content = read_model(manifest) if model is None else model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.execution.threads
        # ONNX Runtime writes long messages to standard error about each provider that does not work here. They are not
        # needed, because the provider that the session really uses is checked below.
        onnxruntime.set_default_logger_severity(4)
        providers = self._providers()
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"{manifest.model}: ONNX Runtime cannot load it ({reason})") from error
        self.provider: str = self._session.get_providers()[0]
        required = self.execution.required
        if required and self.provider != provider_name(required):
            raise UnavailableError(
                f"{provider_name(required)} is required, but the session runs on {self.provider}; "
                "check the driver and its libraries, or remove --require-provider"
            )
        self.fixed_batch = self._check_tensors()

    def _providers(self) -> list[Any]:
        available = onnxruntime.get_available_providers()
        if self.execution.provider == "auto":
            # TensorRT needs minutes to build an engine, so it is used only if it is requested by name.
            names = [name for name in available if name != "TensorrtExecutionProvider"]
        else:
            name = provider_name(self.execution.provider)
            if name not in available:
                raise UnavailableError(
                    f"provider {name} is not in this ONNX Runtime; choose one of {', '.join(available)}"
                )
            names = [name]
        return [(name, _PROVIDER_OPTIONS.get(name, {})) for name in names]

    def _check_tensors(self) -> int | None:
        """Compare inputs and outputs with the manifest. Return the batch size that the file fixes, or None.

        Raises:
            InputError: they do not match.
        """
        spec, where = self.manifest.input, self.manifest.model
        inputs = {tensor.name: tensor for tensor in self._session.get_inputs()}
        outputs = {tensor.name: tensor for tensor in self._session.get_outputs()}
        optional = {tensor.name for tensor in self._session.get_overridable_initializers()}
        self._takes_entropy = ENTROPY in optional
        if list(inputs) != [spec.name]:
            raise InputError(f"{where}: inputs are {sorted(inputs)}, but the manifest names {spec.name!r}")
        if self.manifest.output.name not in outputs:
            raise InputError(
                f"{where}: outputs are {sorted(outputs)}, but the manifest names {self.manifest.output.name!r}"
            )
        if self.manifest.detector is not None and self.manifest.detector.name not in outputs:
            raise InputError(
                f"{where}: outputs are {sorted(outputs)}, but the manifest's detector names "
                f"{self.manifest.detector.name!r}"
            )
        if inputs[spec.name].type != "tensor(float)":
            raise InputError(f"{where}: input {spec.name!r} is {inputs[spec.name].type}, not tensor(float)")
        shape = inputs[spec.name].shape
        expected = [spec.height, spec.width, 3] if spec.layout == "NHWC" else [3, spec.height, spec.width]
        if len(shape) != 4 or any(isinstance(s, int) and s != e for s, e in zip(shape[1:], expected, strict=True)):
            raise InputError(
                f"{where}: input {spec.name!r} has shape {shape}, but the manifest says "
                f"(N, {', '.join(map(str, expected))}) {spec.layout}"
            )
        return shape[0] if isinstance(shape[0], int) else None

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute embeddings. They are L2-normalized if the manifest says so.

        Args:
            crops: (N, H, W, 3), RGB in [0, 1].

        Returns:
            (N, D) float32.

        Raises:
            InputError: the crops have another size, or an embedding has another length or values that are not finite.
        """
        return self.embed_and_score(crops)[0]

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute embeddings (N, D) as in `embed`, and the detector's attack scores (N,), which are 0 without detector.

        Raises:
            InputError: as in `embed`; or the scores have another shape or values that are not finite.
        """
        spec, output, detector = self.manifest.input, self.manifest.output, self.manifest.detector
        wanted = [output.name] if detector is None else [output.name, detector.name]
        if crops.ndim != 4 or crops.shape[1:] != (spec.height, spec.width, 3):
            raise InputError(
                f"crops of shape {crops.shape} do not fit {self.manifest.name}, which takes "
                f"(N, {spec.height}, {spec.width}, 3)"
            )
        size = self.fixed_batch or self.execution.batch
        parts, scores = [np.empty((0, output.size), np.float32)], [np.empty(0, np.float32)]
        for start in range(0, len(crops), size):
            batch = crops[start : start + size]
            missing = (self.fixed_batch or len(batch)) - len(batch)
            padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            feed: dict[str, NDArray[Any]] = {spec.name: model_input(padded, spec)}
            if self._takes_entropy:
                feed[ENTROPY] = os_entropy(len(padded)) if self.seed is None else seeded_entropy(padded, self.seed)
            try:
                embeddings, *score = (found[: len(batch)] for found in self._session.run(wanted, feed))
            except Exception as error:  # ONNX Runtime raises a dozen unrelated types
                reason = str(error).splitlines()[0][:200]
                raise InputError(f"{self.manifest.model}: ONNX Runtime failed while running it ({reason})") from error
            if embeddings.shape != (len(batch), output.size):
                raise InputError(
                    f"{self.manifest.model}: output {output.name!r} has shape {embeddings.shape} for "
                    f"{len(batch)} crops, but the manifest says embeddings of {output.size}"
                )
            if score and (score[0].shape != (len(batch),) or not np.isfinite(score[0]).all()):
                raise InputError(
                    f"{self.manifest.model}: output {wanted[1]!r} must have one finite number for each of "
                    f"{len(batch)} crops; its shape is {score[0].shape}"
                )
            parts.append(embeddings)
            scores.append(score[0] if score else np.zeros(len(batch), np.float32))
        self.images_run += len(crops)
        result = np.concatenate(parts)
        if not np.isfinite(result).all():
            bad = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
            raise InputError(f"{self.manifest.model}: the embedding of crop {bad} has NaN or infinite values")
        if output.normalize:
            result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), np.float32(1e-12))
        return result, np.concatenate(scores)
