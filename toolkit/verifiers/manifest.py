"""The manifest: a file `model.toml` beside a model file that describes the input, the output and the decision."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.errors import InputError, UsageError
from toolkit.files import bundled, checked_path, inside, sha256, write_bytes
from toolkit.tables import Table, edit_toml, read_table
from toolkit.verifiers.hardened import DetectorOutput, VoteOutput, read_detector, read_vote

Layout = Literal["NHWC", "NCHW"]
Channels = Literal["RGB", "BGR"]
Standardization = Literal["fixed", "per-image"]
# How a manifest may compare two embeddings.
Measure = Literal["squared-euclidean", "euclidean", "cosine"]
# "service": a remote service compares two crops itself, and gives no embeddings.
Metric = Literal["squared-euclidean", "euclidean", "cosine", "service"]
CheckpointFormat = Literal["keras", "keras-weights", "frozen-graph", "saved-model"]

SCHEMA_VERSION = 1
LARGEST_SIDE = 4096
# What a provenance says of a calibrated threshold, up to the next clause.
_CALIBRATED = "; threshold: "
_CALIBRATED_CLAUSE = re.compile(f"{_CALIBRATED}[^;]*")


@dataclass(frozen=True)
class Input:
    """The format of the model's input tensor.

    A crop in [0, 1] is first scaled to ``x = low + crop * (high - low)`` and then standardized. Fixed standardization
    is ``(x - mean) / std`` per channel, in the order of `channels`. Per-image standardization is
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
    """The embedding.

    Attributes:
        name: the tensor's name.
        size: its length.
        normalize: whether to L2-normalize it before computing distances.
        lipschitz: how far the tensor moves at most, in L2, for each unit that a crop in [0, 1] is changed in L2; None
            if nobody promises that. See `verifiers.lipschitz`, which checks it.
    """

    name: str
    size: int
    normalize: bool
    lipschitz: float | None = None


@dataclass(frozen=True)
class Decision:
    """The decision rule: two crops are "same" if their distance is below `threshold`.

    `maximum` is the largest possible distance.
    """

    metric: Metric
    threshold: float
    maximum: float


@dataclass(frozen=True)
class Alignment:
    """The positions (x, y) of the five landmarks in the crop, in pixels: eyes, nose, mouth corners; left first."""

    template: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Checkpoint:
    """The original framework's model. The format `keras-weights` needs the network's name and arguments."""

    path: Path
    format: CheckpointFormat
    sha256: str | None
    network: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The checked description of a verifier.

    Attributes:
        service: what the answers of a remote verifier depend on; None for a file. Then `model` is not a model, but the
            description of the service.
    """

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
    vote: VoteOutput | None = None
    service: str | None = None

    @property
    def alarm(self) -> float:
        """The attack score above which an image is flagged; infinity without a detector."""
        return np.inf if self.detector is None else self.detector.threshold

    @property
    def reading(self) -> str:
        """SHA-256 of how the model's file is read: the format of its input and of its output, the alarm and the vote.

        The embeddings and the attack scores of a crop depend on the file and on this.
        """
        content = [asdict(self.input), asdict(self.output), self.alarm]
        if self.vote is not None:
            content.append(asdict(self.vote))
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_threshold(manifest: Manifest, threshold: float) -> Manifest:
    """Return the manifest of the same verifier with another threshold.

    Raises:
        UsageError: the threshold is not between 0 and the largest distance.
    """
    decision = manifest.decision
    if not 0 < threshold < decision.maximum:
        raise UsageError(f"the threshold is {threshold:g}; it must be between 0 and {decision.maximum:g}")
    return replace(manifest, decision=replace(decision, threshold=threshold))


def write_threshold(manifest: Manifest, threshold: float, how: str) -> None:
    """Set the threshold in a manifest's file, and say in its provenance how it was chosen.

    The rest of the file stays the same. What an earlier call said is replaced.

    Raises:
        UsageError: the threshold is not between 0 and the largest distance.
        InputError: the file cannot be read or written.
    """
    import tomlkit

    with_threshold(manifest, threshold)
    document = edit_toml(manifest.path)
    document["decision"]["threshold"] = threshold
    others = _CALIBRATED_CLAUSE.sub("", manifest.provenance)
    document["model"]["provenance"] = f"{others}{_CALIBRATED}{how.replace(';', ',')}"
    write_bytes(manifest.path, tomlkit.dumps(document).encode())


def find_manifest(name: str | Path | Manifest) -> Manifest:
    """Find the manifest for a shipped model's name or for a path.

    A model file without a manifest beside it is recognized by its hash if it is a shipped model.

    Args:
        name: the name of a shipped model, a path for `read_manifest`, or a manifest, which is returned unchanged.

    Raises:
        InputError: there is no manifest, or it is not valid.
    """
    if isinstance(name, Manifest):
        return name
    name, shipped = str(checked_path(str(name), "model")), bundled("models")
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
        path: a manifest; or a folder with a `model.toml`; or an ONNX file `x.onnx` with an `x.toml` or, as a fallback,
            a `model.toml` beside it.

    Raises:
        InputError: there is no manifest, or it is not valid. The message names the key.
    """
    source = _locate(path)
    top = read_table(source, SCHEMA_VERSION)
    name = top.name_text("name")
    folder = source.parent

    model = top.table("model")
    model_path = _model_path(source, model.take("file", str), path)
    model_hash = model.take("sha256", str, None)
    license_, provenance = model.take("license", str), model.take("provenance", str)
    model.done()
    if path.suffix == ".onnx" and path.resolve() != model_path.resolve():
        raise InputError(
            f"{source}: describes {model_path.name}, not {path.name}; write a {path.stem}.toml beside {path.name}"
        )

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
        detector=read_detector(top.table("detector")),
        vote=read_vote(top.table("vote")),
    )
    top.done()
    return manifest


def _model_path(source: Path, file: str, asked: Path) -> Path:
    """The model's file, inside the manifest's folder. A link that leaves it is followed if it is what the user named.

    Caches of downloaded models consist of such links. What a manifest alone names may be hostile.
    """
    named = source.parent / checked_path(file, f"{source}: model.file")
    if asked.suffix == ".onnx" and (asked.name, asked.parent.resolve()) == (named.name, named.parent.resolve()):
        return asked
    try:
        return inside(source.parent, file, f"{source}: model.file")
    except InputError as error:
        if named.is_symlink():
            raise InputError(f"{error}; if you trust the link, give {named} itself instead of its manifest") from error
        raise


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
    raise InputError(f"{path}: no manifest found; write {' or '.join(str(c) for c in _candidates(path))}")


def read_input(table: Table) -> Input:
    """Read an [input] table.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    low, high = table.numbers("range", 2)
    if high <= low:
        raise table.fail("range", f"must be [low, high] with low below high, not [{low}, {high}]")
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
    """Read the width or height of a crop in pixels.

    Raises:
        InputError: the value is not valid. The message names the key.
    """
    side: int = table.take(key, int)
    if not 8 <= side <= LARGEST_SIDE:
        raise table.fail(key, f"must be from 8 to {LARGEST_SIDE}, not {side}")
    return side


def read_output(table: Table) -> Output:
    """Read an [output] table.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    result = Output(
        table.take("name", str),
        table.take("size", int),
        table.take("normalize", bool),
        table.take("lipschitz", float, None),
    )
    if result.size < 1:
        raise table.fail("size", f"must be at least 1, not {result.size}")
    if result.lipschitz is not None and result.lipschitz <= 0:
        raise table.fail("lipschitz", f"must be positive, not {result.lipschitz}")
    table.done()
    return result


def read_decision(table: Table) -> Decision:
    """Read a [decision] table.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    result = Decision(table.choice("metric", Measure), table.take("threshold", float), table.take("maximum", float))
    if not 0 < result.threshold < result.maximum:
        raise table.fail("threshold", f"must be between 0 and the maximum {result.maximum}, not {result.threshold}")
    table.done()
    return result


def read_alignment(table: Table) -> Alignment | None:
    """Read an [alignment] table. Return None if it is empty or missing.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    if not table.rest:
        return None
    rows = table.take("template", list)
    if len(rows) != 5 or not all(
        isinstance(row, list) and len(row) == 2 and all(isinstance(v, (int, float)) for v in row) for row in rows
    ):
        raise table.fail("template", "must be five [x, y] points")
    table.done()
    return Alignment(tuple((float(x), float(y)) for x, y in rows))


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
