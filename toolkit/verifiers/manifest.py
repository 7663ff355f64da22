"""The manifest: `model.toml` beside a model file, which says what goes in, what comes out and what "same" means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.errors import InputError, UsageError
from toolkit.files import bundled, inside, sha256
from toolkit.tables import Table, read_table

Layout = Literal["NHWC", "NCHW"]
Channels = Literal["RGB", "BGR"]
Standardization = Literal["fixed", "per-image"]
Metric = Literal["squared-euclidean", "euclidean", "cosine"]
CheckpointFormat = Literal["keras", "keras-weights", "frozen-graph", "saved-model"]

SCHEMA_VERSION = 1
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Input:
    """What the model's input tensor holds.

    A crop in [0, 1] becomes ``low + crop * (high - low)``, then with fixed standardization
    ``(x - mean) / std`` per channel (in the order of `channels`), or with per-image standardization
    ``(x - mean(x)) / max(std(x), 1 / sqrt(x.size))`` (FaceNet's "prewhitening").
    """

    name: str
    height: int
    width: int
    layout: Layout
    channels: Channels
    low: float
    high: float
    standardization: Standardization
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Output:
    """The embedding: its tensor, its length, and whether it is L2-normalized before the distance."""

    name: str
    size: int
    normalize: bool


@dataclass(frozen=True)
class Decision:
    """Two crops are "same" when their distance is below `threshold`; `maximum` is the largest distance."""

    metric: Metric
    threshold: float
    maximum: float


@dataclass(frozen=True)
class Alignment:
    """Where a face's five points (eyes, nose, mouth corners; left first) lie in the crop, in its pixels."""

    template: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Checkpoint:
    """The original framework's model. A `keras-weights` file needs the network's name and arguments."""

    path: Path
    format: CheckpointFormat
    sha256: str | None
    network: dict[str, Any]


@dataclass(frozen=True)
class DetectorOutput:
    """A second output (N,): images that score above `threshold` are flagged as attacks.

    `false_alarm` is the share of clean images that the threshold was calibrated to flag.
    """

    name: str
    threshold: float
    false_alarm: float


@dataclass(frozen=True)
class Manifest:
    """A verifier's description, checked."""

    path: Path
    name: str
    model: Path
    sha256: str | None
    license: str
    provenance: str
    input: Input
    output: Output
    decision: Decision
    alignment: Alignment | None
    checkpoint: Checkpoint | None
    detector: DetectorOutput | None = None

    @property
    def alarm(self) -> float:
        """The attack score above which an image is flagged; infinite without a detector."""
        return np.inf if self.detector is None else self.detector.threshold


def with_threshold(manifest: Manifest, threshold: float) -> Manifest:
    """The same verifier with another threshold.

    Raises:
        UsageError: it does not lie between 0 and the largest distance.
    """
    decision = manifest.decision
    if not 0 < threshold < decision.maximum:
        raise UsageError(f"the threshold is {threshold:g}; it must lie between 0 and {decision.maximum:g}")
    return replace(manifest, decision=replace(decision, threshold=threshold))


def find_manifest(name: str) -> Manifest:
    """The manifest of what a user names: a shipped model, or anything that `read_manifest` takes.

    A model file without a manifest beside it is recognized by its hash if a shipped manifest describes it.

    Raises:
        InputError: there is no manifest, or it is not valid.
    """
    shipped = bundled("models")
    if "/" not in name and (shipped / name / "model.toml").is_file():
        return read_manifest(shipped / name)
    path = Path(name)
    if path.is_file() and path.suffix != ".toml" and not any(c.is_file() for c in _candidates(path)):
        digest = sha256(path)
        for source in sorted(shipped.glob("*/model.toml")):
            manifest = read_manifest(source)
            if manifest.sha256 == digest:
                return replace(manifest, model=path)
    return read_manifest(path)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Args:
        path: a `model.toml`, or the folder or `.onnx` file that has one beside it (for `x.onnx`,
            `x.toml` is preferred to `model.toml`).

    Raises:
        InputError: there is no manifest, or it is not valid; the message names the key.
    """
    source = _locate(path)
    top = read_table(source, SCHEMA_VERSION)
    name = top.take("name", str)
    folder = source.parent

    model = top.table("model")
    model_path = inside(folder, model.take("file", str), f"{source}: model.file")
    model_hash = model.take("sha256", str, None)
    license_, provenance = model.take("license", str), model.take("provenance", str)
    model.done()
    if path.suffix == ".onnx" and path.resolve() != model_path:
        raise InputError(f"{source}: describes {model_path.name}, not {path.name}; write a {path.stem}.toml beside it")

    manifest = Manifest(
        path=source,
        name=name,
        model=model_path,
        sha256=model_hash,
        license=license_,
        provenance=provenance,
        input=read_input(top.table("input")),
        output=read_output(top.table("output")),
        decision=read_decision(top.table("decision")),
        alignment=read_alignment(top.table("alignment")),
        checkpoint=_read_checkpoint(top.table("checkpoint"), folder),
        detector=_read_detector(top.table("detector")),
    )
    top.done()
    return manifest


def _candidates(path: Path) -> list[Path]:
    if path.suffix == ".toml":
        return [path]
    if path.is_dir():
        return [path / "model.toml"]
    return [path.with_suffix(".toml"), path.parent / "model.toml"]


def _locate(path: Path) -> Path:
    for candidate in _candidates(path):
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise InputError(f"{path}: no such model, manifest or shipped model")
    raise InputError(f"{path}: no manifest found (looked for {', '.join(str(c) for c in _candidates(path))})")


def read_input(table: Table) -> Input:
    """Read an [input] table; InputError names the key that is wrong."""
    low, high = table.numbers("range", 2)
    if high <= low:
        raise table.fail("range", f"must rise, not go from {low} to {high}")
    mean = table.numbers("mean", 3, (0.0, 0.0, 0.0))
    std = table.numbers("std", 3, (1.0, 1.0, 1.0))
    if min(std) <= 0:
        raise table.fail("std", f"must be positive, not {std}")
    result = Input(
        name=table.take("name", str),
        height=read_side(table, "height"),
        width=read_side(table, "width"),
        layout=table.choice("layout", Layout),
        channels=table.choice("channels", Channels),
        low=low,
        high=high,
        standardization=table.choice("standardization", Standardization, "fixed"),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )
    table.done()
    return result


def read_side(table: Table, key: str) -> int:
    """Read a crop's width or height in pixels; InputError names the key that is wrong."""
    side: int = table.take(key, int)
    if not 8 <= side <= LARGEST_SIDE:
        raise table.fail(key, f"must be from 8 to {LARGEST_SIDE}, not {side}")
    return side


def read_output(table: Table) -> Output:
    """Read an [output] table; InputError names the key that is wrong."""
    result = Output(table.take("name", str), table.take("size", int), table.take("normalize", bool))
    if result.size < 1:
        raise table.fail("size", f"must be at least 1, not {result.size}")
    table.done()
    return result


def read_decision(table: Table) -> Decision:
    """Read a [decision] table; InputError names the key that is wrong."""
    result = Decision(table.choice("metric", Metric), table.take("threshold", float), table.take("maximum", float))
    if not 0 < result.threshold < result.maximum:
        raise table.fail("threshold", f"must lie between 0 and the maximum {result.maximum}, not {result.threshold}")
    table.done()
    return result


def read_alignment(table: Table) -> Alignment | None:
    """Read an [alignment] table, None where it is empty; InputError names the key that is wrong."""
    if not table.rest:
        return None
    rows = table.take("template", list)
    if len(rows) != 5 or not all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(v, (int, float)) for v in row) for row in rows
    ):
        raise table.fail("template", "must be five [x, y] points")
    table.done()
    return Alignment(tuple((float(x), float(y)) for x, y in rows))


def _read_detector(table: Table) -> DetectorOutput | None:
    if not table.rest:
        return None
    result = DetectorOutput(table.take("output", str), table.take("threshold", float), table.take("false_alarm", float))
    if result.threshold <= 0:
        raise table.fail("threshold", f"must be positive, not {result.threshold}")
    if not 0 < result.false_alarm < 1:
        raise table.fail("false_alarm", f"must lie between 0 and 1, not {result.false_alarm}")
    table.done()
    return result


def _read_checkpoint(table: Table, folder: Path) -> Checkpoint | None:
    if not table.rest:
        return None
    result = Checkpoint(
        inside(folder, table.take("file", str), f"{table.source}: checkpoint.file"),
        table.choice("format", CheckpointFormat),
        table.take("sha256", str, None),
        table.take("network", dict, {}),
    )
    table.done()
    return result
