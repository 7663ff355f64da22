"""Canaries: the same questions, asked again and again, to notice that a service is no longer what was audited.

A service that was swapped answers the first question differently. A service behind a cache would answer it as before,
so each check also asks about images that it has never seen: the same faces with noise of one gray level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.documents import from_plain
from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.remote.ledger import Ledger

Crop = NDArray[np.uint8]
# Asks for the distance of a probe to a reference, in one call, past everything that is known; NaN: no face was found.
Ask = Callable[[Crop, Crop], float]

# Fresh images of the first check, to learn how much noise of one gray level moves a distance.
_FRESH = 3
# A distance may move by this many times what it moved in the first check, and by this share of the threshold.
_TIMES, _SHARE = 4.0, 1e-3
# The most pairs that the first check tries.
_TRIED = 4
# The calls of a check, and the most calls of the first check, if each crop is a call.
CHECK, FIRST = 6, 2 * (2 + _FRESH + 1) * _TRIED


@dataclass(frozen=True)
class Canary:
    """The first answers of a service, which later ones must agree with.

    Attributes:
        pair: the number of the pair that is asked, among those that were offered.
        same: the distance of its two faces.
        fresh: the mean distance with fresh noise on the probe.
        other: the distance of its probe to another person, with fresh noise.
        moves, fresh_moves: how far the answers may be from `same` and from `fresh`.
    """

    pair: int
    same: float
    fresh: float
    other: float
    moves: float
    fresh_moves: float


class Watch:
    """Asks the canaries.

    Attributes:
        canary: the first answers.
    """

    def __init__(
        self, ask: Ask, pairs: Sequence[tuple[Crop, Crop]], stranger: Crop, threshold: float, ledger: Ledger, where: str
    ) -> None:
        """Ask the first canary, or read its answers from the ledger, and then check them.

        Args:
            ask: asks the service.
            pairs: probe and reference of some genuine pairs; the first that a service answers steadily is taken.
            stranger: a face of somebody else.
            threshold: the threshold of the service's decision.
            ledger: keeps the first answers, and how many checks there were.
            where: the start of every message.

        Raises:
            UnavailableError: the service has changed since the ledger began, does not look at the images, or finds no
                face in them.
            InputError: the ledger's answers are damaged.
        """
        self._ask, self._pairs, self._stranger = ask, pairs, stranger
        self._threshold, self._ledger, self._where = threshold, ledger, where
        if ledger.canary is None:
            self.canary = self._first()
            ledger.begin_canary(asdict(self.canary))
            self._asked_at = ledger.calls
        else:
            self.canary = _read(ledger.canary, len(pairs), where)
            self.check()

    def due(self, calls: int) -> bool:
        """Whether `calls` calls were made since the last check."""
        return self._ledger.calls - self._asked_at >= calls

    def check(self) -> None:
        """Ask whether the service is still the same. If it is not, forget what it answered since the last check.

        Raises:
            UnavailableError: it is not.
        """
        problem = self._problem()
        if problem:
            lost = self._ledger.void()
            raise UnavailableError(
                f"{self._where}: {problem}. The {lost} answers since the last check are not used. When the audited "
                "service is back, give the same command again; to audit the new one, choose another run folder"
            )
        self._ledger.confirm()
        self._asked_at = self._ledger.calls

    def _problem(self) -> str:
        first, number = self.canary, self._ledger.calls
        probe, reference = self._pairs[first.pair]
        same = self._ask(probe, reference)
        fresh, other = (
            self._ask(_noisy(probe, number, 0), reference),
            self._ask(_noisy(probe, number, 1), self._stranger),
        )
        if np.isnan(same) or np.isnan(fresh):
            return "the service no longer finds a face in the canary pair, where it found one at the start"
        if abs(same - first.same) > first.moves:
            return f"the service has changed: the distance of the canary pair was {first.same:.6g} and is {same:.6g}"
        if fresh == other:
            return "the service gives the same answer to different faces, so it no longer looks at the images"
        if abs(fresh - first.fresh) > first.fresh_moves:
            return (
                f"the service has changed, and a cache hides it: the canary pair has the distance {same:.6g} as "
                f"before, but with noise of one gray level {fresh:.6g} instead of {first.fresh:.6g}"
            )
        return ""

    def _first(self) -> Canary:
        problem = "the service finds no face in the first pairs; check the size of the crops"
        for pair, (probe, reference) in enumerate(self._pairs[:_TRIED]):
            same = [self._ask(probe, reference) for _ in range(2)]
            fresh = [self._ask(_noisy(probe, pair, i), reference) for i in range(_FRESH)]
            other = self._ask(_noisy(probe, pair, _FRESH), self._stranger)
            moved, noise = float(np.ptp(same)), float(np.ptp([*same, *fresh]))
            if np.isnan([*same, *fresh]).any():
                continue
            if other in fresh:
                problem = (
                    f"the service gives the same answer ({other:g}) to different faces, so it does not look at the "
                    "images, or a cache answers; audit the service itself"
                )
            elif max(moved, noise) >= self._threshold / 4:
                problem = (
                    "the service answers the same faces differently from call to call, by more than a quarter of the "
                    "threshold, so that a change of the service could not be noticed"
                )
            else:
                least = _SHARE * self._threshold
                moves, fresh_moves = max(_TIMES * moved, least), max(_TIMES * noise, least)
                return Canary(pair, same[0], float(np.mean(fresh)), other, moves, fresh_moves)
        raise UnavailableError(f"{self._where}: {problem}")


def _noisy(crop: Crop, number: int, which: int) -> Crop:
    """The crop with noise of one gray level, different for each number."""
    generator = np.random.default_rng([number, which])
    return np.clip(crop.astype(np.int16) + generator.integers(-1, 2, crop.shape), 0, 255).astype(np.uint8)


def _read(kept: object, pairs: int, where: str) -> Canary:
    try:
        canary: Canary = from_plain(Canary, kept, "canary")
    except ValueError as error:
        raise InputError(f"{where}: the ledger's canary is damaged ({error}); choose another run folder") from error
    if not 0 <= canary.pair < pairs:
        raise InputError(f"{where}: the ledger's canary names a pair that the audit does not have; choose another run")
    return canary
