"""Certified robustness by randomized smoothing (Cohen, Rosenfeld and Kolter 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
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


def vote_radii(draws: int, sigma: float, confidence: float) -> NDArray[np.float64]:
    """Return the certified L2 radius for each possible number of votes.

    The same draws choose the decision and bound its probability. Both decisions are therefore bounded at half the
    error, so that the certificate is wrong with probability at most 1 - confidence, whichever wins. This is Theorem 1
    of Cohen et al. 2019 for two classes; their CERTIFY spends separate draws on the choice instead.

    Args:
        draws: the number of draws N.
        sigma: the standard deviation of the noise.
        confidence: of each certificate.

    Returns:
        (N + 1,), by the number of draws that accept, in the unit of `sigma`; 0 where neither decision is certain.
    """
    one_sided = (1 + confidence) / 2
    radii = np.zeros(draws + 1)
    for votes in range(draws // 2, draws + 1):
        radius = certified_radius(Rate(votes, draws), sigma, one_sided) or 0.0
        radii[votes] = radii[draws - votes] = max(radius, radii[votes])
    return radii


def embedding_radius(
    embeddings: NDArray[np.floating], reference: NDArray[np.floating], threshold: float, sigma: float, confidence: float
) -> tuple[bool, float]:
    """Return the decision of a smoothed embedding, and its certified L2 radius.

    The smoothed verifier compares the direction of the mean embedding of noisy copies with a reference of unit length.
    The mean of vectors of unit length under Gaussian noise is Lipschitz with the constant sqrt(2 / (pi sigma^2))
    (Pautov et al. 2022, arXiv:2202.01186). The decision changes where the mean leaves or enters the cone of
    directions that are near enough to the reference, so that the radius is the distance of the mean to the surface of
    this cone over the constant.

    The mean of N draws is known up to sqrt(2 ln(1 / error) / N) + 1 / sqrt(N), which is taken off the distance first
    (McDiarmid's inequality for the length of the deviation, whose expectation is at most 1 / sqrt(N)).

    Args:
        embeddings: (N, D), of unit length, one for each draw.
        reference: (D,), of unit length.
        threshold: of the squared Euclidean distance between directions, from 0 to 4; smaller means "same".
        sigma: the standard deviation of the noise.
        confidence: of the certificate.

    Returns:
        Whether the smoothed verifier accepts, and the radius in the unit of `sigma`; 0 if nothing is certain.
    """
    draws, mean = len(embeddings), np.asarray(embeddings, np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    angle = float(np.arccos(np.clip(mean @ reference / max(length, 1e-12), -1, 1)))
    edge = float(np.arccos(np.clip(1 - threshold / 2, -1, 1)))
    # Beyond a right angle, the nearest point of the cone is its tip.
    apart = abs(angle - edge)
    distance = length * float(np.sin(apart)) if apart < np.pi / 2 else length
    unknown = float(np.sqrt(2 * np.log(1 / (1 - confidence)) / draws) + 1 / np.sqrt(draws))
    return angle < edge, max(0.0, distance - unknown) * sigma * float(np.sqrt(np.pi / 2))
