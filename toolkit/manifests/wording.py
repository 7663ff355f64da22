"""The text of a guessed manifest, with a comment for what is certain, what was inferred, and how clearly it won."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.manifests.readings import Reading
from toolkit.manifests.search import Found, Tried
from toolkit.text import LONGEST_NAME, cut, shown

if TYPE_CHECKING:
    from toolkit.manifests.guess import GuessedChoice, GuessedReading

_SAID = {
    "stated": "The file says so.",
    "only": "Nothing else was possible.",
    "clear": "Found by trying; every other {what} that was tried separates clearly worse.",
    "tie": "Found by trying, but a tie: these pairs do not tell it from {ties}.",
}
# What a profile needs, and a standardization outside of the file has lost.
NOT_TO_BE_HARDENED = (
    "No profile can be put in front of a file whose images are standardized one by one outside of it: audit `none` "
    "alone, or export the standardization inside the graph."
)
_WHAT = {"range": "value range", "channels": "channel order", "alignment": "alignment", "shape": "shape",
         "output": "output", "metric": "metric"}  # fmt: skip


def manifest_text(found: Found, choices: Sequence[GuessedChoice], best: GuessedReading, target: Path) -> str:
    """Return the manifest of the winner.

    Args:
        found: the search's result.
        choices: how clearly each choice won.
        best: the winner on all pairs.
        target: where it will lie; the model's file is named relative to it.
    """
    said = {choice.what: _comment(choice) for choice in choices}
    parts = (
        _head(found, best, target),
        _input(found, said),
        _output(found, said),
        _decision(found, best, said["metric"]),
        _alignment(found.winner.reading, said["alignment"]),
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _head(found: Found, best: GuessedReading, target: Path) -> list[str]:
    outline, a = found.outline, best.accuracy
    low, high = a.wilson()
    file = outline.path.resolve().relative_to(target.resolve().parent).as_posix()
    made = f" by {shown(outline.producer, 60)}" if outline.producer else ""
    rates = f"{a.successes}/{a.trials} [{100 * low:.1f}, {100 * high:.1f}] %, EER {100 * best.eer:.1f} %"
    return [
        f"# Written by `sixpixels manifest guess`. Accuracy on {best.pairs} pairs: {rates}.",
        "# Check what is called a tie, and fill in the license and where the model comes from.",
        "schema = 1",
        f"name = {_text(cut(outline.path.stem, LONGEST_NAME))}",
        "",
        "[model]",
        f"file = {_text(file)}",
        f"sha256 = {_text(outline.sha256)}",
        'license = "unknown"',
        f"provenance = {_text(f'unknown; the file was written{made} with opset {outline.opset}')}",
    ]


def _input(found: Found, said: dict[str, str]) -> list[str]:
    reading = found.winner.reading
    spec = reading.spec(found.outline.input)
    warned = [f"# {NOT_TO_BE_HARDENED}"] if spec.standardization == "per-image" else []
    return [
        "[input]",
        "# The file says so.",
        f"name = {_text(spec.name)}",
        f"# {said['shape']}",
        f"height = {spec.height}",
        f"width = {spec.width}",
        f"layout = {_text(spec.layout)}",
        f"# {said['channels']}",
        f"channels = {_text(spec.channels)}",
        f"# {reading.scaling}. {said['range']}",
        f"range = {_numbers((spec.low, spec.high))}",
        *warned,
        f"standardization = {_text(spec.standardization)}",
        f"mean = {_numbers(spec.mean)}",
        f"std = {_numbers(spec.std)}",
    ]


def _output(found: Found, said: dict[str, str]) -> list[str]:
    name = found.winner.reading.output
    return [
        "[output]",
        f"# {said['output']}",
        f"name = {_text(name)}",
        f"size = {found.outline.outputs[name]}",
        f"# {_normalization(found.winner, unit=found.outline.unit_length[name])}",
        "normalize = false",
    ]


def _decision(found: Found, best: GuessedReading, said: str) -> list[str]:
    maximum, calibrate = _largest_distance(found.winner), f"sixpixels calibrate {shown(found.outline.path.name)}"
    return [
        "[decision]",
        f"# {said}",
        f"metric = {_text(found.winner.reading.compared)}",
        f"# Of the best accuracy on these pairs. To hold a false match rate: {calibrate}.",
        f"threshold = {_threshold(best.threshold, maximum)!r}",
        f"# {_maximum(found.winner)}",
        f"maximum = {maximum!r}",
    ]


def _alignment(reading: Reading, said: str) -> list[str]:
    points = reading.points()
    if points is None:
        return [f"# No [alignment]: the images are crops already. {said}"]
    places = ", ".join(_numbers([round(value, 4) for value in point]) for point in points)
    return ["[alignment]", f"# {reading.template}. {said}", f"template = [{places}]"]


def _largest_distance(tried: Tried) -> float:
    """The largest distance that is possible: 2 for cosine; twice the longest embedding seen for Euclidean distances."""
    return 2.0 if tried.reading.compared == "cosine" else float(np.ceil(20 * tried.longest) / 10)


def _maximum(tried: Tried) -> str:
    if tried.reading.compared == "cosine":
        return "The largest possible cosine distance."
    return f"Twice the length of the longest embedding seen, {tried.longest:.3g}."


def _normalization(tried: Tried, *, unit: bool) -> str:
    if unit:
        return "The embeddings have length 1 already, so that every metric decides alike."
    if tried.reading.compared == "cosine":
        return "Cosine distances do not depend on the length of embeddings."
    return "Euclidean distances of embeddings as they are."


def _threshold(value: float, maximum: float) -> float:
    """Round a threshold, if that leaves it between 0 and the maximum."""
    rounded = float(f"{value:.6g}")
    return rounded if 0 < rounded < maximum else value


def _comment(choice: GuessedChoice) -> str:
    return _SAID[choice.verdict].format(what=_WHAT[choice.what], ties=", ".join(map(shown, choice.ties)))


def _text(value: str) -> str:
    import tomlkit

    return tomlkit.string(value).as_string()


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' if value == float(f'{value:g}') else repr(float(value)) for value in values)}]"
