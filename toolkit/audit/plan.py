"""The plan: which attacks craft probes against which profiles, and which profiles the probes are replayed on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.attacks.base import Attack, is_trained
from toolkit.errors import UsageError
from toolkit.profiles.profile import Profile

Knowledge = Literal["zero", "partial", "perfect", "query"]
# The levels that a user may ask for. Perfect knowledge is called `query` if the attack only queries the deployed
# verifier.
ASKED: tuple[Knowledge, ...] = ("zero", "partial", "perfect")
# The levels at which the attack adapts to the deployed profile.
ADAPTIVE: tuple[Knowledge, ...] = ("perfect", "query")
Goal = Literal["dodging", "impersonation", "group"]
# The goals on genuine and on impostor pairs, in this order.
GOALS: tuple[Goal, ...] = ("dodging", "impersonation")


@dataclass(frozen=True)
class Scenario:
    """One attack on one deployed profile, crafted against the profile `known` to the attacker.

    With zero knowledge, the attacker knows only the bare verifier; with partial knowledge, another profile; with
    perfect knowledge, the deployed profile. Perfect knowledge is called `query` if the attack does not see the model,
    but queries it within a budget. The bare verifier has only perfect or query knowledge.
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
    """All scenarios of an audit. Scenarios with the same attack and the same `known` share their crafted probes."""

    scenarios: tuple[Scenario, ...]
    unavailable: tuple[Unavailable, ...]

    @property
    def crafts(self) -> list[tuple[Attack, Profile]]:
        """Each distinct pair (attack, known profile), in the order of the scenarios."""
        return list(dict.fromkeys((s.attack, s.known) for s in self.scenarios))


def make_plan(
    attacks: Sequence[Attack],
    profiles: Sequence[Profile],
    knowledge: Sequence[Knowledge],
    no_gradients: str | None,
) -> Plan:
    """Build the scenarios.

    Args:
        attacks: the attacks to run.
        profiles: the profiles to attack, one at a time.
        knowledge: levels of `ASKED`, for the profiles with a defense.
        no_gradients: why gradient attacks cannot run, or None if they can.

    Raises:
        UsageError: no scenario is left, two profiles have the same name, or partial knowledge is asked for with fewer
            than two profiles that have a defense.
    """
    names = [profile.name for profile in profiles]
    if len(set(names)) < len(names):
        raise UsageError(f"two profiles are called {max(names, key=names.count)}; rename one")
    if "partial" in knowledge and sum(not profile.empty for profile in profiles) < 2:
        raise UsageError("partial knowledge needs at least two profiles with a defense; add one to --profiles")
    scenarios: list[Scenario] = []
    unavailable = []
    for attack in attacks:
        if attack.needs == "gradient" and no_gradients is not None:
            unavailable.append(Unavailable(attack.name, no_gradients))
            continue
        scenarios += _scenarios(attack, profiles, knowledge)
    if not scenarios:
        reasons = "; ".join(f"{u.attack}: {u.reason}" for u in unavailable)
        raise UsageError(f"nothing to run: no attack, profile or level of knowledge is left ({reasons})")
    return Plan(tuple(scenarios), tuple(unavailable))


def make_service_plan(
    attacks: Sequence[Attack], profile: Profile, source: Profile | None, *, graded: bool, no_gradients: str | None
) -> Plan:
    """Build the scenarios of a service, whose model and defenses nobody sees.

    Attacks that only query attack the service itself. Attacks by gradients craft their probes on local verifiers, and
    replay them: this is transfer, with zero knowledge of the service.

    Args:
        attacks: the attacks to run.
        profile: the empty profile, which stands for the service as it is.
        source: what the attacker knows instead, see `sources_profile`; None without local verifiers.
        graded: whether the service says how near a decision is.
        no_gradients: why the local verifiers have no gradients, or None if they have.

    Raises:
        UsageError: no scenario is left.
    """
    scenarios: list[Scenario] = []
    unavailable = []
    for attack in attacks:
        reason = None
        if attack.needs == "gradient" and source is None:
            reason = "a service gives no gradients; name a local verifier with --source to craft its probes on"
        elif attack.needs == "gradient":
            reason = (
                "it learns from many people at once, and is not transferred" if is_trained(attack) else no_gradients
            )
        elif attack.traits.graded and not graded:
            reason = "it needs to know how near a decision is, and this service gives the decision alone"
        if reason is not None:
            unavailable.append(Unavailable(attack.name, reason))
        elif attack.needs == "gradient" and source is not None:
            scenarios.append(Scenario(attack, "zero", profile, source))
        else:
            scenarios.append(Scenario(attack, _full(attack), profile, profile))
    if not scenarios:
        reasons = "; ".join(f"{u.attack}: {u.reason}" for u in unavailable)
        raise UsageError(f"nothing to run: no attack is left ({reasons})")
    return Plan(tuple(scenarios), tuple(unavailable))


def _full(attack: Attack) -> Knowledge:
    """The full knowledge of an attack: perfect, or queries alone."""
    return "perfect" if attack.traits.budget is None else "query"


def _scenarios(attack: Attack, profiles: Sequence[Profile], knowledge: Sequence[Knowledge]) -> list[Scenario]:
    """All scenarios of one attack."""
    bare = next((p for p in profiles if p.empty), Profile("none", "", (), ""))
    defended = [profile for profile in profiles if not profile.empty]
    full = _full(attack)
    found = []
    for profile, level in itertools.product(profiles, knowledge):
        if profile.empty:
            found += [Scenario(attack, full, profile, profile)] if level == knowledge[0] else []
        elif level == "zero":
            found.append(Scenario(attack, level, profile, bare))
        elif level == "partial":
            found += [Scenario(attack, level, profile, other) for other in defended if other != profile]
        elif not attack.traits.far:
            found.append(Scenario(attack, full, profile, profile))
    return found
