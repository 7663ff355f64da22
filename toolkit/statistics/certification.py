"""Certified robustness by randomized smoothing (Cohen, Rosenfeld and Kolter 2019)."""

from __future__ import annotations

from scipy import stats

from toolkit.statistics.intervals import Rate


def certified_radius(votes: Rate, sigma: float, confidence: float) -> float | None:
    """Return the certified L2 radius: no smaller perturbation changes the majority decision under Gaussian noise.

    This is Theorem 1 of the paper with the exact lower bound p of the vote's probability, as in the paper's algorithm
    CERTIFY. The radius is sigma times the normal quantile of p.

    Args:
        votes: the number of noise draws that gave the candidate decision, over all draws. The candidate must have been
            chosen beforehand on other draws.
        sigma: the standard deviation of the noise.
        confidence: one-sided; the certificate is wrong with probability at most 1 - confidence.

    Returns:
        The radius in the unit of `sigma`; None (abstain) if the votes do not show a majority.
    """
    bound = votes.lower_bound(confidence)
    return sigma * float(stats.norm.ppf(bound)) if bound > 0.5 else None
