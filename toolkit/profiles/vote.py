"""The vote of a profile: most of its draws decide, and how clearly they do is a certificate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vote:
    """Decides each pair as most draws do (randomized smoothing, Cohen et al. 2019).

    `confidence` is that of each certificate. `threshold` is that of the distances of single draws. It is valid only for
    the verifier that it was calibrated for. A draw differs more from a reference than a clean crop does, so that the
    verifier's own threshold would refuse too many.
    """

    threshold: float
    confidence: float = 0.999

    def __post_init__(self) -> None:
        if not 0 < self.threshold < float("inf"):
            raise ValueError(f"threshold must be a positive number, not {self.threshold}")
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be from 0.5 to below 1, not {self.confidence}")
