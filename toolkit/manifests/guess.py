"""Write a manifest for a bare model file: what the file says, and what is found by trying on labeled pairs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from toolkit.errors import InputError, InsufficientError, UsageError, refusing
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.files import write_bytes
from toolkit.manifests.outline import Outline, Probe
from toolkit.manifests.search import Choice, Found, Tried, search
from toolkit.manifests.wording import manifest_text
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.statistics.separation import LEAST_SEPARATION
from toolkit.statistics.verification import best_threshold, cross_validated_accuracy, eer

# Fewer readings fit in a table that one reads.
_ROWS = 8
Verdict = Literal["stated", "clear", "tie", "only"]


@dataclass(frozen=True)
class GuessedReading:
    """A reading, and what it does on pairs.

    Attributes:
        layout, height, width, range, channels, alignment, output, metric: the reading. A range and an alignment are
            named; the written manifest has their numbers.
        pairs: the number of pairs that it was tried on.
        separation: d' of the distances.
        ratio: the mean distance of genuine pairs over that of impostor pairs.
        accuracy: with the threshold chosen on other pairs (cross-validation).
        eer: equal error rate.
        threshold: of the best accuracy on these pairs.
    """

    layout: str
    height: int
    width: int
    range: str
    channels: str
    alignment: str
    output: str
    metric: str
    pairs: int
    separation: float
    ratio: float
    accuracy: Rate
    eer: float
    threshold: float


@dataclass(frozen=True)
class GuessedChoice:
    """How clearly one choice of the winner's won.

    Attributes:
        what: range, channels, alignment, shape, output or metric.
        chosen: the winner's.
        verdict: stated by the file; clear or a tie on these pairs; or the only one that was possible.
        ties: the others that these pairs do not tell from it.
        nearest: the other that is hardest to tell from it; empty without one.
        difference: the 95 % interval of the winner's measure less that of `nearest`: d' for a range, an output or a
            metric, and the logarithm of 1 / `ratio` for the others.
    """

    what: str
    chosen: str
    verdict: Verdict
    ties: tuple[str, ...]
    nearest: str
    difference: tuple[float, float] | None


@dataclass(frozen=True)
class Guess:
    """A manifest that was found by trying.

    Attributes:
        model, manifest: the model's file, and the manifest that was written beside it.
        sha256, producer, opset, fixed_batch: what the file says.
        pairs_source, genuine, impostor, left_out: the pairs.
        readings, images_run: the number of readings that were tried, and of the images that the model processed.
        best: readings that ran on most pairs, the best first.
        choices: how clearly each choice won.
    """

    model: str
    manifest: str
    sha256: str
    producer: str
    opset: int
    fixed_batch: int | None
    pairs_source: str
    genuine: int
    impostor: int
    left_out: int
    readings: int
    images_run: int
    best: tuple[GuessedReading, ...]
    choices: tuple[GuessedChoice, ...]


def guess_manifest(
    model: str | Path,
    pairs: PairSet | Path | str | None = None,
    output: str | Path | None = None,
    *,
    overwrite: bool = False,
    seed: int = 0,
    threads: int = 0,
    progress: Progress = SILENT,
) -> Guess:
    """Find out how to read a verifier, and write its manifest.

    Args:
        model: an ONNX file.
        pairs: from `load_pairs`, or a path to pairs; at least 10 genuine and 10 impostor pairs. Default: the generated
            faces that ship with the toolkit, which is too easy to be trusted for a verifier of one's own.
        output: the manifest, in the model's folder. Default: the model's name with .toml.
        overwrite: replace a manifest that is there.
        seed: of the samples of pairs and of the bootstrap.
        threads: of ONNX Runtime; see `Execution`.
        progress: shows the stages.

    Raises:
        InputError: the file is no usable ONNX file, or an image cannot be read.
        InsufficientError: there are too few pairs, or no reading tells these people apart.
        UsageError: the manifest is there already, or would lie in another folder than the model.
    """
    path = Path(model)
    target = _checked_target(path, path.with_suffix(".toml") if output is None else Path(output), overwrite=overwrite)
    chosen = find_pairs(pairs)
    found = search(Probe(path, threads), chosen, seed, progress)
    _check_separation(found, chosen)
    result = _guess(found, chosen, target, seed)
    write_bytes(target, manifest_text(found, result.choices, result.best[0], target).encode())
    return result


def _checked_target(model: Path, target: Path, *, overwrite: bool) -> Path:
    if not model.is_file():
        raise InputError(f"{model}: no such model file")
    with refusing(f"{model}: a manifest cannot name this file, because its name is not UTF-8"):
        str(model).encode()
    if not model.resolve().is_relative_to(target.resolve().parent):
        raise UsageError(f"{target}: a manifest lies beside its model or in a folder above it; choose another -o")
    if target.exists() and not overwrite:
        raise UsageError(f"{target}: is there already; give --overwrite to replace it, or another -o")
    return target


def _check_separation(found: Found, pairs: PairSet) -> None:
    """Refuse a winner that does not recognize people.

    Raises:
        InsufficientError: it does not.
    """
    winner, where = found.winner, found.outline.path
    if winner.separation >= LEAST_SEPARATION:
        return
    share = f"{100 * eer(winner.distances, winner.genuine):.0f} %"
    if min(tried.separation for tried in found.tried) <= -LEAST_SEPARATION:
        raise InsufficientError(
            f"{where}: no combination tells these people apart, but some put impostors nearer than genuine pairs: the "
            f"labels of {pairs.source} may be swapped"
        )
    raise InsufficientError(
        f"{where}: no combination tells these people apart: the best of {found.readings} has an EER of {share}. The "
        "labels may be wrong, the images may show no faces, the file may be no face verifier or be damaged, or its "
        "input is prepared in a way that is not tried here: write the manifest by hand (docs/manifests.md)"
    )


def _guess(found: Found, pairs: PairSet, target: Path, seed: int) -> Guess:
    outline, labels = found.outline, found.winner.genuine
    return Guess(
        str(outline.path), str(target), outline.sha256, outline.producer, outline.opset, outline.fixed_batch,
        pairs.source, int(labels.sum()), int((~labels).sum()), found.left_out, found.readings, found.images_run,
        tuple(_reading(tried, seed) for tried in found.tried[:_ROWS]),
        tuple(_choice(choice, found) for choice in found.choices),
    )  # fmt: skip


def _reading(tried: Tried, seed: int) -> GuessedReading:
    r, labels = tried.reading, tried.genuine
    folds = min(10, int(labels.sum()), int((~labels).sum()))
    accuracy = cross_validated_accuracy(tried.distances, labels, n_folds=folds, seed=seed).correct
    threshold = best_threshold(tried.distances, labels)
    return GuessedReading(
        **asdict(r.shape), range=r.scaling, channels=r.channels, alignment=r.template, output=r.output,
        metric=r.compared, pairs=len(labels), separation=tried.separation, ratio=math.exp(-tried.closeness),
        accuracy=accuracy, eer=eer(tried.distances, labels), threshold=threshold,
    )  # fmt: skip


def _choice(choice: Choice, found: Found) -> GuessedChoice:
    outline, what = found.outline, choice.what
    nearest = "" if choice.nearest is None else choice.nearest.reading.value(what)
    ties = tuple(dict.fromkeys(reading.value(what) for reading in choice.ties))
    verdict: Verdict = "tie" if ties else "clear"
    if choice.nearest is None:
        verdict = "stated" if _is_stated(outline, what) else "only"
    return GuessedChoice(what, found.winner.reading.value(what), verdict, ties, nearest, choice.difference)


def _is_stated(outline: Outline, what: str) -> bool:
    """Whether the file itself leaves no choice."""
    alone = {"shape": outline.fixed_shape, "output": len(outline.outputs) == 1, "range": outline.takes_bytes}
    return alone.get(what, False)
