"""What services that compare two faces themselves answer, as distances of the toolkit's decision rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.verifiers.manifest import Decision

Rule = Literal["similarity", "distance", "distance-at-most"]
# Services round. A number may leave its range by this share of it.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Scale:
    """A number from `low` to `high` that a service gives for two faces, and when it means "same".

    Attributes:
        rule: "similarity": same from `threshold` on; "distance": same below it; "distance-at-most": same up to it.
        low, high: the range of the number.
        threshold: the threshold of the service.
    """

    rule: Rule
    low: float
    high: float
    threshold: float

    @property
    def decision(self) -> Decision:
        """The same decision in distances: "same" strictly below the threshold. The range is 0 to `maximum`.

        Where the service includes its threshold, that of the distances is the next larger number.
        """
        edge = self.high - self.threshold if self.rule == "similarity" else self.threshold - self.low
        threshold = edge if self.rule == "distance" else np.nextafter(edge, np.inf)
        return Decision("service", float(threshold), self.high - self.low)

    def distance(self, number: float) -> float | None:
        """Return a number of the service as a distance. Return None if it is outside of the range.

        The difference of two numbers is rounded. Near the threshold, the side on which the service sees the number
        counts.
        """
        room = _ROUNDING * (self.high - self.low)
        if not self.low - room <= number <= self.high + room:
            return None
        number = min(max(number, self.low), self.high)
        threshold = self.decision.threshold
        if self.rule == "similarity":
            same, distance = number >= self.threshold, self.high - number
        else:
            same = number < self.threshold or (self.rule == "distance-at-most" and number == self.threshold)
            distance = number - self.low
        return min(distance, float(np.nextafter(threshold, -np.inf))) if same else max(distance, threshold)
