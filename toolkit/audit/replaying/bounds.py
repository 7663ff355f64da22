"""Bounds: whether probes stay within what their attack declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, is_worn
from toolkit.attacks.norms import sizes
from toolkit.audit.crafting.artifacts import float_step
from toolkit.audit.replaying.sanity import Check
from toolkit.pixels import Bools, Float, to_unit
from toolkit.profiles.profile import Profile

# The relative accuracy of the norms of float32 images.
_SLACK = 1e-5


@dataclass(frozen=True)
class Kept:
    """What was looked at of one chunk of probes.

    Attributes:
        attack, known: the attack, and the profile that it was crafted against.
        beyond: (N,), whether a probe leaves the attack's ball, the pixels that it may change, or the range of pixels.
        reach: (N,), the norm of the float perturbation in units of the ball's radius; zero without a ball.
    """

    attack: Attack
    known: Profile
    beyond: Bools
    reach: Float


def look_at(
    attack: Attack,
    known: Profile,
    clean: NDArray[np.uint8],
    crafted: Crafted,
    landmarks: NDArray[np.float64] | None,
) -> Kept:
    """Compare probes with what their attack declares.

    Float probes may exceed a bound by the rounding of their artifact, and 8-bit probes by half a level in every value.

    Args:
        attack: the attack.
        known: the profile that the attacker knows.
        clean: (N, H, W, 3), the clean probes.
        crafted: the probes, as they were read from their artifact.
        landmarks: (5, 2), see `Task`.
    """
    traits, original = attack.traits, to_unit(clean)
    n, height, width = clean.shape[:3]
    step, root = float_step(crafted.probes - original), float(np.sqrt(original[0].size))
    side = step[:, None, None, None]
    beyond: Bools = np.any((crafted.probes < -side) | (crafted.probes > 1 + side), axis=(1, 2, 3))
    reach = np.zeros(n)
    if traits.norm is not None and traits.epsilon is not None:
        scale = 1.0 if traits.norm == "linf" else root
        limit = traits.epsilon * (1 + _SLACK)
        for probes, slack in ((crafted.probes, step), (to_unit(crafted.probes8), 0.5 / 255)):
            beyond = beyond | (sizes(traits.norm, probes - original) > limit + scale * slack)
        reach = sizes(traits.norm, crafted.probes - original) / traits.epsilon
    if is_worn(attack):
        fixed = ~attack.pixels(landmarks, height, width)
        for probes in (crafted.probes, to_unit(crafted.probes8)):
            beyond |= (probes != original)[:, fixed].any(axis=(1, 2))
    return Kept(attack, known, beyond, reach)


def check_bounds(kept: Sequence[Kept]) -> list[Check]:
    """Check every crafted probe of the run, for each attack and known profile."""
    checks = []
    for attack, known in dict.fromkeys((k.attack, k.known) for k in kept):
        mine = [k for k in kept if (k.attack, k.known) == (attack, known)]
        beyond, reach = (np.concatenate([getattr(k, name) for k in mine]) for name in ("beyond", "reach"))
        bound = "the range of pixels"
        if attack.traits.epsilon is not None:
            bound = f"its {attack.traits.norm} ball; the furthest perturbation has {reach.max():.3f} times its radius"
        elif is_worn(attack):
            bound = "the pixels that it declares"
        checks.append(
            Check(
                "bounds",
                f"{attack.name} on {known.name}",
                not beyond.any(),
                f"{int((~beyond).sum())} of {len(beyond)} probes stay within {bound}",
            )
        )
    return checks
