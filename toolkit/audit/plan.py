"""The plan: which probes are crafted against what, and where they are replayed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.attacks.base import Attack
from toolkit.errors import UsageError
from toolkit.profiles.profile import Profile

Knowledge = Literal["zero", "partial", "perfect", "query"]
# What can be asked for: `query` is what perfect knowledge is called where an attack only asks the deployed verifier.
ASKED: tuple[Knowledge, ...] = ("zero", "partial", "perfect")
# Who meets what is really deployed.
ADAPTIVE: tuple[Knowledge, ...] = ("perfect", "query")
Goal = Literal["dodging", "impersonation", "group"]
# Of ordinary pairs, genuine and impostor ones.
GOALS: tuple[Goal, ...] = ("dodging", "impersonation")


@dataclass(frozen=True)
class Scenario:
    """One attack on one deployed profile, crafted against the profile `known` to the attacker.

    Zero knowledge is of the bare verifier, partial of another profile, perfect of the deployed one; it is called query
    where the attack does not see the model, but asks it within a budget. Without a defense all of it is perfect.
    """

    attack: Attack
    knowledge: Knowledge
    profile: Profile
    known: Profile


@dataclass(frozen=True)
class Unavailable:
    """An attack that cannot be run on this verifier, and why."""

    attack: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What an audit does. Scenarios that share attack and `known` share their crafted probes."""

    scenarios: tuple[Scenario, ...]
    unavailable: tuple[Unavailable, ...]

    @property
    def crafts(self) -> list[tuple[Attack, Profile]]:
        """Each distinct (attack, known profile), in order."""
        return list(dict.fromkeys((s.attack, s.known) for s in self.scenarios))


def make_plan(
    attacks: Sequence[Attack],
    profiles: Sequence[Profile],
    knowledge: Sequence[Knowledge],
    no_gradients: str | None,
) -> Plan:
    """Lay out the scenarios.

    Args:
        attacks: the attacks to run.
        profiles: the profiles that may be deployed.
        knowledge: the levels of knowledge for the profiles that have a defense, of `ASKED`.
        no_gradients: why gradient attacks cannot be run, or None if they can.

    Raises:
        UsageError: nothing is left to run, two profiles have one name, or partial knowledge is asked for with fewer
            than two defended profiles.
    """
    names = [profile.name for profile in profiles]
    if len(set(names)) < len(names):
        raise UsageError(f"two profiles are called {max(names, key=names.count)}; a report could not tell them apart")
    bare = next((p for p in profiles if p.empty), Profile("none", "", (), ""))
    defended = [profile for profile in profiles if not profile.empty]
    if "partial" in knowledge and len(defended) < 2:
        raise UsageError("partial knowledge is of another profile than the deployed one: name two that defend")
    scenarios, unavailable = [], []
    for attack in attacks:
        if attack.needs == "gradient" and no_gradients is not None:
            unavailable.append(Unavailable(attack.name, no_gradients))
            continue
        full: Knowledge = "query" if hasattr(attack, "budget") else "perfect"
        for profile, level in itertools.product(profiles, knowledge):
            if profile.empty:
                scenarios += [Scenario(attack, full, profile, profile)] if level == knowledge[0] else []
            elif level == "zero":
                scenarios.append(Scenario(attack, level, profile, bare))
            elif level == "partial":
                scenarios += [Scenario(attack, level, profile, other) for other in defended if other != profile]
            else:
                scenarios.append(Scenario(attack, full, profile, profile))
    if not scenarios:
        reasons = "; ".join(f"{u.attack}: {u.reason}" for u in unavailable)
        raise UsageError(f"nothing to run: no attack, profile or knowledge is left ({reasons})")
    return Plan(tuple(scenarios), tuple(unavailable))
