"""Certified robustness by randomized smoothing (Cohen, Rosenfeld and Kolter 2019)."""

from __future__ import annotations

from scipy import stats

from toolkit.statistics.intervals import Rate


def certified_radius(votes: Rate, sigma: float, confidence: float) -> float | None:
    """The L2 radius within which the majority of a decision under Gaussian noise cannot change.

    Theorem 1 of the paper with the exact lower bound p of the vote's probability, as in its algorithm CERTIFY: the
    radius is sigma times the normal quantile of p.

    Args:
        votes: draws on which the decision was the one that was chosen before, on other draws, over all draws.
        sigma: standard deviation of the noise.
        confidence: one-sided; the certificate is wrong with probability at most 1 - confidence.

    Returns:
        The radius in the unit of `sigma`, or None where no majority is shown: abstain.
    """
    bound = votes.lower_bound(confidence)
    return sigma * float(stats.norm.ppf(bound)) if bound > 0.5 else None
