"""What the manifest of a hardened file says beside the verifier: its detector or its vote."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.tables import Table

# The most copies of one crop that may vote in one call: they are held in memory together.
MOST_DRAWS = 1024


@dataclass(frozen=True)
class DetectorOutput:
    """A second output (N,) with attack scores: images with a score above `threshold` are flagged as attacks.

    `false_alarm` is the share of clean images that the calibrated threshold flags.
    """

    name: str
    threshold: float
    false_alarm: float


@dataclass(frozen=True)
class VoteOutput:
    """The vote of a hardened file: `draws` noisy copies of a crop decide by majority. See `verifiers.votes`.

    `sigma` is the standard deviation of their noise, and `confidence` that of each certificate. `threshold` is that of
    a draw's distance; None if it is the decision's own.
    """

    draws: int
    sigma: float
    confidence: float
    threshold: float | None = None


def read_detector(table: Table) -> DetectorOutput | None:
    """Read a [detector] table. Return None if it is empty or missing.

    Raises:
        InputError: a value is not valid. The message names the key.
    """
    if not table.rest:
        return None
    result = DetectorOutput(table.take("output", str), table.take("threshold", float), table.take("false_alarm", float))
    if result.threshold <= 0:
        raise table.fail("threshold", f"must be positive, not {result.threshold}")
    if not 0 < result.false_alarm < 1:
        raise table.fail("false_alarm", f"must be between 0 and 1, not {result.false_alarm}")
    table.done()
    return result


def read_vote(table: Table) -> VoteOutput | None:
    """Read a [vote] table. See `read_detector`."""
    if not table.rest:
        return None
    result = VoteOutput(table.take("draws", int), table.take("sigma", float), table.take("confidence", float))
    if not 2 <= result.draws <= MOST_DRAWS:
        raise table.fail("draws", f"must be from 2 to {MOST_DRAWS}, not {result.draws}")
    if not 0 < result.sigma <= 10:
        raise table.fail("sigma", f"must be above 0 and at most 10, not {result.sigma}")
    if not 0.5 <= result.confidence < 1:
        raise table.fail("confidence", f"must be from 0.5 to below 1, not {result.confidence}")
    table.done()
    return result
