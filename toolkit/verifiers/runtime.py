"""The deployed side: an ONNX file run by ONNX Runtime as its manifest says."""

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
# The default search of cuDNN makes results jitter by about 1e-6 from run to run.
_PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "DEFAULT"}}


@dataclass(frozen=True)
class Execution:
    """How ONNX Runtime is asked to run a model.

    `provider` is a short name (cpu, cuda, ...), a full name, or "auto": whatever this machine offers, the CPU last.
    `required` is the provider that must really be used. `threads` 0 lets ONNX Runtime choose.
    """

    provider: str = "auto"
    required: str | None = None
    threads: int = 0
    batch: int = 32


def provider_name(name: str) -> str:
    """Full name of a provider; short names are in any case."""
    return _SHORT_NAMES.get(name.lower(), name)


def read_model(manifest: Manifest) -> bytes:
    """Bytes of the manifest's model, hash checked first where the manifest states one.

    Raises:
        InputError: the file is missing, empty, larger than 2 GB, or not the one that the manifest describes.
    """
    path = manifest.model
    if not path.is_file():
        raise InputError(f"{path}: no such model file (named in {manifest.path})")
    if not 0 < path.stat().st_size <= _LARGEST_MODEL:
        raise InputError(f"{path}: {path.stat().st_size} bytes; a model has from 1 byte to 2 GB")
    if manifest.sha256 is not None:
        check_sha256(path, manifest.sha256)
    return path.read_bytes()


class RuntimeVerifier:
    """A verifier in ONNX Runtime.

    Attributes:
        manifest: what it was described as.
        provider: the execution provider that the session really uses, first in its list.
        images_run: number of crops that went through the model so far.
        fixed_batch: the size of a batch where the file fixes it, or None.
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
            manifest: what it is described as.
            model: the file's content; by default the manifest's file is read.
            execution: how to run it.
            seed: a graph with random defenses draws from it and the crop's pixels, so that an audit can be repeated;
                None draws from the operating system, as a deployment must.

        Raises:
            InputError: the model cannot be loaded, or its tensors are not what the manifest says.
            UnavailableError: the provider asked for does not exist here, or the required one is not used.
        """
        self.manifest = manifest
        self.execution = execution or Execution()
        self.seed = seed
        self.images_run = 0
        content = read_model(manifest) if model is None else model
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.execution.threads
        # ONNX Runtime writes pages on standard error about each provider that does not work here; which one the
        # session really uses is asked below.
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
                "check the driver and its libraries, or drop --require-provider"
            )
        self.fixed_batch = self._check_tensors()

    def _providers(self) -> list[Any]:
        available = onnxruntime.get_available_providers()
        if self.execution.provider == "auto":
            # TensorRT builds an engine for minutes: only when asked for by name.
            names = [name for name in available if name != "TensorrtExecutionProvider"]
        else:
            name = provider_name(self.execution.provider)
            if name not in available:
                raise UnavailableError(f"provider {name} is not in this ONNX Runtime; it has {', '.join(available)}")
            names = [name]
        return [(name, _PROVIDER_OPTIONS.get(name, {})) for name in names]

    def _check_tensors(self) -> int | None:
        """Compare inputs and outputs with the manifest; return the batch size if the file fixes it."""
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
        """Embeddings (N, D) of crops (N, H, W, 3), RGB in [0, 1]; L2-normalized where the manifest says so.

        Raises:
            InputError: the crops have another size, or an embedding has another length, NaN or infinity.
        """
        return self.embed_and_score(crops)[0]

    def embed_and_score(self, crops: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`embed`, and the detector's attack scores (N,), which are zero where the manifest has no detector.

        Raises:
            InputError: as by `embed`, or a score has another shape, NaN or infinity.
        """
        spec, output, detector = self.manifest.input, self.manifest.output, self.manifest.detector
        wanted = [output.name] if detector is None else [output.name, detector.name]
        if crops.ndim != 4 or crops.shape[1:] != (spec.height, spec.width, 3):
            raise InputError(
                f"crops of shape {crops.shape} given to {self.manifest.name}, which takes "
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
                    f"{self.manifest.model}: output {wanted[1]!r} must be one finite number for each of {len(batch)} "
                    f"crops; its shape is {score[0].shape}"
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
