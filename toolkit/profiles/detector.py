"""The detector of a profile: feature squeezing (Xu et al. 2018) on embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolkit.defenses.base import Defense
from toolkit.errors import UsageError
from toolkit.files import write_bytes
from toolkit.tables import edit_toml

# The name of the second output of a hardened graph with a detector.
ATTACK_SCORE = "attack_score"
MOST_SQUEEZERS = 8
# The start of the comment that says which verifier a threshold was calibrated for.
_CALIBRATED = "calibrated"


@dataclass(frozen=True)
class Detector:
    """Flags an image if one of the `squeezers` moves its embedding by more than `threshold`.

    The attack score is the largest distance between the embedding of a defended crop and the embeddings of its squeezed
    forms, in the verifier's metric. `false_alarm` is the share of clean images that the calibrated threshold flags. It
    is valid only for the verifier that the threshold was calibrated for.
    """

    squeezers: tuple[Defense, ...]
    threshold: float
    false_alarm: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.squeezers) <= MOST_SQUEEZERS:
            raise ValueError(f"needs 1 to {MOST_SQUEEZERS} [[detector.squeezer]] tables, not {len(self.squeezers)}")
        if not 0 < self.threshold < float("inf"):
            raise ValueError(f"threshold must be a positive number, not {self.threshold}")
        if not 0 < self.false_alarm < 1:
            raise ValueError(f"false_alarm must be between 0 and 1, not {self.false_alarm}")


def write_threshold(path: Path, threshold: float, false_alarm: float, calibrated_for: str) -> None:
    """Set the detector's threshold and false alarm rate in a profile file. Everything else stays unchanged.

    Args:
        path: the profile file.
        threshold: the threshold.
        false_alarm: the share of clean images that the threshold flags.
        calibrated_for: the verifier, for a comment beside the threshold. A user's own comment there is kept instead.

    Raises:
        UsageError: the profile has no detector.
        InputError: the file cannot be read.
    """
    import tomlkit

    document = edit_toml(path)
    detector = document.get("detector")
    if detector is None:
        raise UsageError(f"{path}: has no [detector]; add one before calibrating its threshold")
    said = detector["threshold"].trivia.comment.lstrip("# ")
    detector["threshold"], detector["false_alarm"] = threshold, false_alarm
    kept = said if said and not said.startswith(_CALIBRATED) else f"{_CALIBRATED} {calibrated_for}"
    detector["threshold"].comment(kept)
    write_bytes(path, tomlkit.dumps(document).encode())
