"""Tests of this installation: versions, providers, shipped files, disk space and memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from toolkit import __version__
from toolkit.errors import SixpixelsError, reason_of
from toolkit.files import bundled, check_sha256, sha256_of
from toolkit.threads import cores

Status = Literal["ok", "warning", "failed"]

_OLDEST_PYTHON = (3, 11)
_TENSORFLOW = "needed for gradient attacks: pip install 'sixpixels[tensorflow]'"
# For each package: its name, the distributions that provide it, what to do if none is installed, and whether an audit
# needs it.
_PACKAGES = (
    ("numpy", ("numpy",), "", True),
    ("onnx", ("onnx",), "", True),
    ("onnxruntime", ("onnxruntime-gpu", "onnxruntime"), "", True),
    ("opencv", ("opencv-python-headless", "opencv-python"), "", True),
    (
        "tensorflow",
        ("tensorflow-cpu", "tensorflow"),
        _TENSORFLOW,
        False,
    ),
)
_LITTLE_DISK, _LITTLE_MEMORY = 2e9, 2e9
# Largest relative difference between a provider and NumPy. It is large because GPUs multiply with fewer digits.
_TOLERANCE = 1e-2
_SHIPPED = "facenet-mini"


@dataclass(frozen=True)
class Finding:
    """The result of one test: its subject, its status, details, and a remedy if something is wrong."""

    about: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The results of all tests, in order."""

    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether no test failed. Warnings are about things that only some users need."""
        return all(finding.status != "failed" for finding in self.findings)


def diagnose() -> Diagnosis:
    """Run all tests. A test that fails does not stop the others. TensorFlow is not imported."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("providers", _providers),
        ("gpu", _gpu),
        ("models", _models),
        ("faces", _faces),
        ("profiles", _profiles),
        ("plugins", _plugins),
        ("machine", _machine),
    )
    findings = []
    for about, check in checks:
        try:
            findings += list(check())
        except (SixpixelsError, ImportError, OSError) as error:
            findings.append(Finding(about, "failed", " ".join(str(error).split()), _REINSTALL))
    return Diagnosis(tuple(findings))


_REINSTALL = "install sixpixels again"


def _python() -> Iterator[Finding]:
    fine = sys.version_info >= _OLDEST_PYTHON
    needed = ".".join(map(str, _OLDEST_PYTHON))
    yield Finding(
        "python",
        "ok" if fine else "failed",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if fine else f"use Python {needed} or later",
    )
    yield Finding("sixpixels", "ok", __version__)


def _packages() -> Iterator[Finding]:
    for name, distributions, remedy, needed in _PACKAGES:
        found = [(d, v) for d in distributions if (v := _version(d)) is not None]
        if not found:
            yield Finding(name, "failed" if needed else "warning", "not installed", remedy or _REINSTALL)
        elif len(found) > 1 and name != "tensorflow":
            both = " and ".join(d for d, _ in found)
            yield Finding(name, "warning", f"{both} are both installed and overwrite each other", "uninstall one")
        else:
            yield Finding(name, "ok", f"{found[0][1]} ({found[0][0]})")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _providers() -> Iterator[Finding]:
    """Run a small convolution on every provider of ONNX Runtime, and compare the result with NumPy."""
    import numpy as np
    import onnxruntime

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 8, 16, 16)).astype(np.float32), rng.standard_normal((4, 8, 1, 1)).astype(np.float32)
    expected = np.maximum(np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0]), 0)
    graph = _convolution(w)
    onnxruntime.set_default_logger_severity(4)
    for name in onnxruntime.get_available_providers():
        must = name == "CPUExecutionProvider"
        try:
            session = onnxruntime.InferenceSession(graph, providers=[name], enable_fallback=0)
            used, result = session.get_providers()[0], session.run(None, {"x": x})[0]
        except Exception as error:  # noqa: BLE001  ONNX Runtime raises a dozen unrelated types
            reason = reason_of(error)[:120]
            yield Finding(name, "failed" if must else "warning", f"cannot run a model ({reason})", _DRIVER)
            continue
        difference = float(np.abs(result - expected).max() / np.abs(expected).max())
        if used != name:
            yield Finding(name, "warning", f"is listed but does not work: models run on {used} instead", _DRIVER)
        elif difference > _TOLERANCE:
            yield Finding(
                name, "failed", f"computes wrong numbers (relative error {difference:.1e})", "use another provider"
            )
        else:
            yield Finding(name, "ok", f"works (relative difference from NumPy {difference:.0e})")


_DRIVER = "to use this provider, check its driver and libraries; --require-provider makes audits fail without it"


def _convolution(weights: object) -> bytes:
    """An ONNX model in memory: a 1 x 1 convolution with `weights`, then ReLU."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in "xy"]
    graph = helper.make_graph(nodes, "doctor", value[:1], value[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _gpu() -> Iterator[Finding]:
    command = shutil.which("nvidia-smi")
    if command is None:
        yield Finding("gpu", "ok", "no NVIDIA GPU found; models run on the CPU")
        return
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (subprocess.SubprocessError, OSError) as error:
        yield Finding("gpu", "warning", f"nvidia-smi fails ({error})", "check the driver")
        return
    for line in done.stdout.splitlines():
        yield Finding("gpu", "ok", line.strip())


def _models() -> Iterator[Finding]:
    """Check the hashes of the shipped models, and embed a face with each verifier."""
    from toolkit.faces.crops import crop_pairs
    from toolkit.faces.pairs import embedded_pairs, load_pairs
    from toolkit.pixels import to_unit
    from toolkit.verifiers.manifest import read_manifest
    from toolkit.verifiers.runtime import Execution, RuntimeVerifier

    pairs = load_pairs(embedded_pairs(), limit=2)
    for path in sorted(bundled("models").glob("*/model.toml")):
        about = f"model {path.parent.name}"
        try:
            manifest = read_manifest(path)
            if not manifest.model.is_file():
                yield Finding(about, "ok", "only the manifest is shipped, not the model file")
                continue
            checkpoint = manifest.checkpoint
            if checkpoint is not None and checkpoint.sha256 is not None:
                if checkpoint.path.is_dir():
                    sha256_of(checkpoint.path)
                else:
                    check_sha256(checkpoint.path, checkpoint.sha256)
            spec, template = manifest.input, manifest.alignment.template if manifest.alignment else None
            crops = crop_pairs(pairs, spec.width, spec.height, template)
            verifier = RuntimeVerifier(manifest, execution=Execution("cpu", threads=1))
            embedding = verifier.embed(to_unit(crops.images[:1]))
        except SixpixelsError as error:
            yield Finding(about, "failed", str(error), _REINSTALL)
        else:
            yield Finding(about, "ok", f"hashes are correct; it embeds a face ({embedding.shape[1]} numbers)")


def _faces() -> Iterator[Finding]:
    from toolkit.faces.images import read_image
    from toolkit.faces.pairs import embedded_pairs, load_pairs

    pairs = load_pairs(embedded_pairs())
    names = {name for pair in pairs.pairs for name in (pair.probe, pair.reference)}
    for name in names:
        read_image(pairs.root / name)
    yield Finding("faces", "ok", f"{len(pairs.pairs)} embedded pairs; all {len(names)} images can be read")


def _profiles() -> Iterator[Finding]:
    """Read every shipped profile with its denoisers, and run it with the shipped verifier."""
    import numpy as np

    from toolkit.profiles.harden import deploy
    from toolkit.profiles.profile import read_profile, shipped_profiles
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.runtime import Execution, read_model

    manifest = find_manifest(_SHIPPED)
    model, shipped = read_model(manifest), shipped_profiles()
    crop = np.full((1, manifest.input.height, manifest.input.width, 3), 0.5).astype(np.float32)
    broken = []
    for name, path in shipped.items():
        try:
            deploy(model, manifest, read_profile(path), Execution("cpu", threads=1), 0).embed(crop)
        except SixpixelsError as error:
            broken.append(name)
            yield Finding(f"profile {name}", "failed", str(error), _REINSTALL)
    fine = [name for name in shipped if name not in broken]
    yield Finding("profiles", "ok" if fine else "failed", f"{len(fine)} of {len(shipped)} shipped profiles work")


def _plugins() -> Iterator[Finding]:
    """Check attacks and defenses of other distributions. A broken one is a warning, because nothing else needs it."""
    from toolkit.errors import UsageError
    from toolkit.registry import OWN, Kind, find_entries

    kinds: tuple[Kind, ...] = ("attack", "defense")
    for kind in kinds:
        try:
            found = find_entries(kind)
        except UsageError as error:
            yield Finding("plugins", "failed", str(error), "uninstall one of the two distributions")
            continue
        for name, source in found.sources.items():
            if source != OWN:
                yield Finding(f"{kind} {name}", "ok", f"from {source}")
        for broken in found.broken:
            remedy = f"update or uninstall {broken.source.distribution}"
            yield Finding(
                f"{kind} {broken.name}", "warning", f"from {broken.source}, cannot be used: {broken.problem}", remedy
            )


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    little = free < _LITTLE_DISK
    yield Finding(
        "disk",
        "warning" if little else "ok",
        f"{free / 1e9:.1f} GB free in {Path.cwd()}",
        "the probes of an audit may not fit; `sixpixels audit --dry-run` estimates their size" if little else "",
    )
    yield Finding("cores", "ok", str(cores()))
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        # Compare the total, not the unused memory, because the kernel frees its file cache when needed.
        little = total < _LITTLE_MEMORY
        detail = f"{total / 1e9:.1f} GB, {memory / 1e9:.1f} GB of it unused"
        yield Finding("memory", "warning" if little else "ok", detail, "use --limit and one worker" if little else "")
