"""Sanity checks of an audit: signs of weak attacks, masked gradients or a wrong model.

The checks follow Carlini et al. 2019 (arXiv:1902.06705, section 4), Athalye et al. 2018 (arXiv:1802.00420, section 3.1)
and the indicators of Pintor et al. 2022 (arXiv:2106.09947). They use the pairs of the run itself. If a check fails, the
run is invalid: low success rates may mean that the attacks are weak, not that the defense is strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import CLEARLY, Attack, Task, is_trained
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import make_task
from toolkit.audit.plan import ADAPTIVE, Scenario
from toolkit.audit.replaying.replay import Replay
from toolkit.faces.crops import CropSet
from toolkit.pixels import Bools, Images
from toolkit.profiles.profile import Profile
from toolkit.statistics.tests import mcnemar
from toolkit.verifiers.manifest import Decision

Outcome = tuple[Scenario, Replay]
CheckName = Literal[
    "parity", "gradient", "stable", "iterative", "adaptive", "masking", "unbounded", "budget", "converged", "restarts",
    "progress", "bounds", "certificates",
]  # fmt: skip

_LEVEL = 0.05
# Number of pairs to run an attack again on.
AGAIN = 8
# Probes that the parity check takes of one chunk, and chunks that it takes probes of.
SAMPLED, SAMPLES = 2, 16


@dataclass(frozen=True)
class Check:
    """The result of one check: its name, its subject, whether it passed, and the measured numbers in words."""

    name: CheckName
    about: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Sample:
    """Some float probes (m, H, W, 3) that were crafted for the pairs `rows` (m,)."""

    rows: NDArray[np.intp]
    probes: Images


@dataclass(frozen=True)
class Subject:
    """A profile to check.

    Attributes:
        profile: the profile.
        clean: the clean run of the deployed verifier.
        samples: some probes that were crafted against the profile.
        rounding: what two forms of the model may differ by, as a share of a distance; see `rounding_of`.
        of_bytes: whether the model takes bytes. It is then compared on probes of 8 bits: a filter puts values of float
            probes between two levels, where the two forms round to either.
    """

    profile: Profile
    clean: CleanRun
    samples: tuple[Sample, ...] = ()
    rounding: float = CLEARLY
    of_bytes: bool = False


def check_outcomes(outcomes: Sequence[Outcome], clean: dict[Profile, CleanRun]) -> list[Check]:
    """Run the checks that need only the outcomes.

    Iterative attacks must succeed at least as often as one-step attacks, and adaptive attacks as often as others.

    Args:
        outcomes: the results of all scenarios.
        clean: the clean run of each deployed profile.
    """
    checks = []
    for profile in dict.fromkeys(s.profile for s, _ in outcomes):
        mine = [(s, r) for s, r in outcomes if s.profile == profile]
        eligible = clean[profile].eligible
        checks += _iterative(profile, [(s, r) for s, r in mine if s.knowledge == "perfect"], eligible)
        for attack in dict.fromkeys(s.attack for s, _ in mine):
            by = [(s, r.success & eligible) for s, r in mine if s.attack == attack]
            about = f"{attack.name} on {profile.name}"
            for adaptive, strong in (o for o in by if o[0].knowledge in ADAPTIVE):
                for other, weak in (o for o in by if o[0].knowledge not in ADAPTIVE):
                    names = f"{adaptive.knowledge} knowledge", f"knowledge of {other.known.name}"
                    checks.append(_stronger("adaptive", about, names[0], strong, names[1], weak))
    return checks


def _iterative(profile: Profile, outcomes: Sequence[Outcome], eligible: Bools) -> list[Check]:
    gradient = [(s.attack, r) for s, r in outcomes if s.attack.needs == "gradient"]
    one_step = [(a, r) for a, r in gradient if not a.traits.steps and not is_trained(a)]
    iterative = [(a, r) for a, r in gradient if a.traits.steps and not a.traits.masked]
    checks = []
    for attack, replayed in one_step if iterative else ():
        # If every iterative attack is bounded, compare only probes within one of the bounds.
        asked = replayed.success & eligible
        if all(a.traits.epsilon is not None for a, _ in iterative):
            asked &= np.any([_within(a, replayed) for a, _ in iterative], axis=0)
        reached = np.any([r.success & eligible for _, r in iterative], axis=0)
        names = ", ".join(a.name for a, _ in iterative)
        checks.append(_stronger("iterative", profile.name, names, reached, attack.name, asked))
    return checks


def _within(attack: Attack, replayed: Replay) -> Bools:
    norm = replayed.l2 if attack.traits.norm == "l2" else replayed.linf
    return np.asarray(norm <= (attack.traits.epsilon or 0) * (1 + 1e-5))


def _stronger(name: CheckName, about: str, strong: str, strong_success: Bools, weak: str, weak_success: Bools) -> Check:
    """Check that `strong` succeeds at least as often as `weak` on the same pairs, except for differences by chance."""
    only_weak, only_strong = int((weak_success & ~strong_success).sum()), int((strong_success & ~weak_success).sum())
    passed = only_weak <= only_strong or mcnemar(only_strong, only_weak) >= _LEVEL
    return Check(
        name, about, passed, f"only {weak} succeeds on {only_weak} pairs, only {strong} on {only_strong} pairs"
    )


def sampled_rows(among: Bools, seed: int, most: int) -> NDArray[np.intp]:
    """Draw the rows of at most `most` of the pairs `among` (n,), always the same, in their order."""
    return np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(among))[:most])


def sample_task(
    subject: Subject, crops: CropSet, decision: Decision, seed: int, drawn: str, most: int, among: Bools | None = None
) -> tuple[Task, NDArray[np.intp]]:
    """Draw at most `most` eligible pairs, always the same, with the random numbers of the attack `drawn`."""
    clean = subject.clean
    rows = sampled_rows(clean.eligible if among is None else clean.eligible & among, seed, most)
    references = clean.embeddings[crops.index[rows, 1]]
    return make_task(drawn, crops, rows, references, decision, seed, clean.alarm), rows
