"""One set of probes on the target: which were sent, what the target decided, and the numbers of each goal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.crafting.carried import Carried, Crops, Places
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.replaying.replay import l2_norm
from toolkit.audit.transfer.judge import Judge, decided_rightly
from toolkit.pixels import Bools, to_unit
from toolkit.statistics.intervals import Rate

# Some pairs: their places (k,) among all, 8-bit probes (k, H, W, 3), and whether these succeed on the source (k,).
Some = tuple[Places, Crops, Bools]


@dataclass(frozen=True)
class TransferResult:
    """The results of one set of probes on the target, for one goal.

    Attributes:
        attack, known, goal: the attack, the profile that its probes were crafted against, and the goal.
        eligible: pairs that source (with profile `known`) and target both decide correctly without an attack.
        crafted: eligible pairs whose 8-bit probe succeeds on the source. Only these are sent to the target.
        failed: probes that the target rejects without a decision. They do not count as successes.
        asr: successes on the target, over eligible pairs.
        of_crafted: successes on the target, over sent probes: the transfer rate.
        beyond_resampling: successes of pairs that resampling alone does not flip.
        joint: whether the probes were crafted on all sources at once. `crafted` then counts probes whose mean margin
            over the sources, each in units of its threshold, reaches the goal.
        l2_source: median L2 norm of the sent probes' 8-bit perturbations in the source's crop, in units of the pixel
            range; None if none was sent.
        l2, linf: median norms of the same perturbations after resampling, that is, of the differences from the
            resampled clean crops.
    """

    attack: str
    known: str
    goal: Goal
    eligible: int
    crafted: int
    failed: int
    asr: Rate
    of_crafted: Rate
    beyond_resampling: int
    l2_source: float | None
    l2: float | None
    linf: float | None
    joint: bool = False


class Tested:
    """One set of probes on the target: what became of each of the n pairs.

    Attributes:
        sent: (n,), whether the probe was sent to the target.
        success, failed: (n,), whether the target decided wrongly, and whether it rejected the probe.
        l2_source, l2, linf: (n,), see `TransferResult`.
    """

    def __init__(self, pairs: Carried, eligible: Bools) -> None:
        self._pairs, self._eligible = pairs, eligible
        self.sent, self.success, self.failed = np.zeros((3, len(pairs)), np.bool_)
        self.l2_source, self.l2, self.linf = np.zeros((3, len(pairs)), np.float32)

    def take(self, judge: Judge, places: NDArray[np.intp], probes8: Crops, success8: Bools) -> None:
        """Send the probes of some pairs that are eligible and succeeded on the source."""
        chosen = self._eligible[places] & success8
        at, probes, pairs = places[chosen], probes8[chosen], self._pairs
        if not len(at):
            return
        clean = pairs.clean(at)
        carried, unattacked = pairs.carry(probes, at), pairs.carry(clean, at)
        still, self.failed[at] = decided_rightly(judge, carried, pairs.own_references(at), pairs.genuine[at])
        self.sent[at], self.success[at] = True, ~still & ~self.failed[at]
        self.l2_source[at] = l2_norm(to_unit(probes) - to_unit(clean))
        delta = to_unit(carried) - to_unit(unattacked)
        self.l2[at], self.linf[at] = l2_norm(delta), np.abs(delta).max(axis=(1, 2, 3))

    def results(self, name: tuple[str, str], flips: Bools, *, joint: bool) -> list[TransferResult]:
        """Summarize each goal that has pairs. `flips` (n,) says which pairs flip by resampling alone."""
        genuine = self._pairs.genuine

        def result(goal: Goal, of: Bools) -> TransferResult:
            sent = self.sent & of
            total, count, hits = (int(rows.sum()) for rows in (self._eligible & of, sent, self.success & of))

            def median(values: NDArray[np.floating]) -> float | None:
                return float(np.median(values[sent])) if count else None

            return TransferResult(
                *name,
                goal,
                eligible=total,
                crafted=count,
                failed=int((self.failed & of).sum()),
                asr=Rate(hits, total),
                of_crafted=Rate(hits, count),
                beyond_resampling=int((self.success & of & ~flips).sum()),
                l2_source=median(self.l2_source),
                l2=median(self.l2),
                linf=median(self.linf),
                joint=joint,
            )

        return [result(goal, of) for goal, of in zip(GOALS, (genuine, ~genuine), strict=True) if of.any()]
