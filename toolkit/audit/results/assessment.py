"""The assessment: all numbers and texts of a report, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Needs, Traits
from toolkit.audit.clean.result import CleanResult
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import ADAPTIVE, GOALS, Goal, Knowledge, Scenario, Unavailable
from toolkit.audit.replaying.certificates import CertificationResult
from toolkit.audit.replaying.detection import DetectionResult
from toolkit.audit.replaying.natural import NaturalResult
from toolkit.audit.replaying.replay import Replay, presentations
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.optimality import Optimality
from toolkit.audit.results.subgroups import Subgroups
from toolkit.errors import InputError
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tries import HitRate, hit_rate
from toolkit.verifiers.manifest import Metric
from toolkit.verifiers.parity import Parity
from toolkit.verifiers.remote.config import Answers

# The L2 limits in table 1 of the paper.
BUDGETS = (5.0, 1.0)
# Numbers of tries to report success at, if a profile is random.
TRIES = (1, 3, 10)


# As near to the original as the attack gets, anywhere in a ball, as far as a ball allows, random noise, or worn.
Aim = Literal["near", "ball", "far", "noise", "worn"]


@dataclass(frozen=True)
class Target:
    """The audited verifier, and the provider and software that ran it. Its crops have `height` x `width` pixels."""

    name: str
    model: str
    model_sha256: str
    checkpoint_sha256: str | None
    provider: str
    provider_requested: str
    metric: Metric
    threshold: float
    maximum: float
    height: int
    width: int
    gradients_from: str | None
    onnxruntime: str
    tensorflow: str | None


@dataclass(frozen=True)
class ServiceUse:
    """How a service was audited.

    Attributes:
        address: where it is.
        answers: what it answers.
        requests: the number of different requests that it answered. Calls that were repeated, and canaries, are not
            counted, so that an audit that was interrupted gives the same number.
        sources: names of the local verifiers that transfer probes were crafted on.
    """

    address: str
    answers: Answers
    requests: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class ScenarioResult:
    """The results of one attack x knowledge x profile x goal.

    A pair is eligible if the target decided it correctly before the attack, and did not flag its clean probe
    (`clean_flagged`). `known` is the profile that the probes were crafted against, or the local verifiers if a service
    is attacked by transfer. `asr` counts successful 8-bit probes over eligible pairs; a flagged probe does not count.
    For attacks with a budget, `asr_at_queries` gives the success rate within each number of queries. Probes are
    `presented` once, or more often to a random profile: `hit_at` then gives the success rate within each number of
    tries. Norms are those of successful 8-bit probes; None if there are none.
    """

    attack: str
    knowledge: Knowledge
    known: str
    profile: str
    goal: Goal
    pairs: int
    clean_errors: int
    clean_flagged: int
    eligible: int
    crafted: int
    replayed: int
    asr: Rate
    asr_float: Rate
    asr_at_l2: tuple[tuple[float, Rate], ...]
    asr_float_at_l2: tuple[tuple[float, Rate], ...]
    asr_at_queries: tuple[tuple[int, Rate], ...]
    presented: int
    hit_at: tuple[HitRate, ...]
    mean_l2: float | None
    median_l2: float | None
    median_linf: float | None
    median_rms: float | None
    mean_l2_float: float | None
    median_l2_float: float | None
    mean_l2_defended: float | None
    mean_evaluations: float


@dataclass(frozen=True)
class DeclaredAttack:
    """The declaration of an attack in the run. Ratings use it, so that they do not depend on installed attacks.

    `weakened` names the parameters that may make it weaker than the attack as it comes.
    """

    name: str
    needs: Needs
    traits: Traits
    weakened: tuple[str, ...] = ()

    @property
    def aim(self) -> Aim:
        """Where its probes lie."""
        if self.traits.masked:
            return "worn"
        if self.traits.far:
            return "far"
        if self.traits.epsilon is not None:
            return "ball"
        return "noise" if self.traits.draws else "near"


@dataclass(frozen=True)
class Assessment:
    """All results of an audit, ready for reports. `generated` says whether any of its faces is an embedded one."""

    run: str
    seed: int
    pairs_source: str
    genuine: int
    impostor: int
    left_out: tuple[str, ...]
    target: Target
    parity: Parity | None
    profiles: tuple[tuple[str, str], ...]
    attacks: tuple[tuple[str, tuple[tuple[str, object], ...]], ...]
    declared: tuple[DeclaredAttack, ...]
    clean: tuple[CleanResult, ...]
    scenarios: tuple[ScenarioResult, ...]
    unavailable: tuple[Unavailable, ...]
    checks: tuple[Check, ...]
    worst: str
    caveats: tuple[str, ...]
    complete: bool
    valid: bool
    detection: tuple[DetectionResult, ...]
    group: int | None = None
    suite: str = "standard"
    certification: tuple[CertificationResult, ...] = ()
    generated: bool = False
    optimality: tuple[Optimality, ...] = ()
    subgroups: Subgroups | None = None
    natural: tuple[NaturalResult, ...] = ()
    service: ServiceUse | None = None


def declared_attack(assessment: Assessment, name: str) -> DeclaredAttack:
    """Find the declaration of an attack in a run.

    Raises:
        InputError: it is missing, for instance because somebody edited the report.
    """
    found = next((attack for attack in assessment.declared if attack.name == name), None)
    if found is None:
        raise InputError(f"run {assessment.run}: its report does not declare {name}; give the same audit again")
    return found


def scenario_results(
    scenario: Scenario, replay: Replay, clean: CleanRun, genuine: NDArray[np.bool_]
) -> list[ScenarioResult]:
    """Summarize a scenario for each goal that has pairs.

    Args:
        scenario: the scenario.
        replay: its results on n pairs.
        clean: the clean run of the deployed profile.
        genuine: (n,), whether each pair is of one person.
    """
    return [
        _scenario_result(scenario, goal, replay, clean, of_goal)
        for goal, of_goal in zip(GOALS, (genuine, ~genuine), strict=True)
        if of_goal.any()
    ]


def _scenario_result(
    scenario: Scenario, goal: Goal, replay: Replay, clean: CleanRun, of_goal: NDArray[np.bool_]
) -> ScenarioResult:
    eligible = of_goal & clean.eligible
    success = eligible & replay.success
    in_float = eligible & replay.success_float
    total, presented = int(eligible.sum()), presentations(scenario.profile)
    at_tries = (hit_rate(replay.hits[eligible], presented, tries) for tries in TRIES if tries <= presented > 1)

    def over(values: NDArray[np.float64], summary: str, chosen: NDArray[np.bool_] = success) -> float | None:
        return float(getattr(np, summary)(values[chosen])) if chosen.any() else None

    return ScenarioResult(
        attack=scenario.attack.name,
        knowledge=scenario.knowledge,
        known=scenario.known.name,
        profile=scenario.profile.name,
        goal=goal,
        pairs=int(of_goal.sum()),
        clean_errors=int((of_goal & ~clean.correct).sum()),
        clean_flagged=int((of_goal & clean.correct & ~clean.eligible).sum()),
        eligible=total,
        crafted=int((eligible & replay.crafted).sum()),
        replayed=int((eligible & replay.crafted).sum()),
        asr=Rate(int(success.sum()), total),
        asr_float=Rate(int(in_float.sum()), total),
        asr_at_l2=tuple((b, Rate(int((success & (replay.l2 <= b)).sum()), total)) for b in BUDGETS),
        asr_float_at_l2=tuple((b, Rate(int((in_float & (replay.l2_float <= b)).sum()), total)) for b in BUDGETS),
        asr_at_queries=tuple(
            (q, Rate(int((success & (replay.evaluations <= q)).sum()), total)) for q in _query_counts(scenario.attack)
        ),
        presented=presented,
        hit_at=tuple(rate for rate in at_tries if rate is not None),
        mean_l2=over(replay.l2, "mean"),
        median_l2=over(replay.l2, "median"),
        median_linf=over(replay.linf, "median"),
        median_rms=over(replay.rms, "median"),
        mean_l2_float=over(replay.l2_float, "mean", in_float),
        median_l2_float=over(replay.l2_float, "median", in_float),
        mean_l2_defended=over(replay.l2_defended, "mean"),
        mean_evaluations=float(replay.evaluations[of_goal].mean()),
    )


def _query_counts(attack: Attack) -> list[int]:
    """The numbers of queries to report success at: 10, 30, 100, ... up to the budget. Empty without a budget."""
    budget = attack.traits.budget
    counts = [count * 10**power for power in range(1, 7) for count in (1, 3)]
    return [] if budget is None else [*(count for count in counts if count < budget), budget]


def worst_finding(scenarios: list[ScenarioResult]) -> str:
    """Describe the scenario with the highest success in one sentence. The smallest perturbation breaks ties."""
    if not scenarios:
        return "No attack was run."
    hit = [s for s in scenarios if s.asr.successes]
    if not hit:
        return "No attack succeeded on an eligible pair. The caveats say what this can and cannot show."
    # Adaptive attacks say more about a deployment than attacks that do not know it.
    adaptive = [s for s in hit if s.knowledge in ADAPTIVE and s.profile != "none"]
    worst = max(adaptive or hit, key=lambda s: (s.asr.lower_bound(), -(s.median_rms or 0.0)))
    verb = {"dodging": "dodges", "impersonation": "impersonates", "group": "matches an enrolled person"}[worst.goal]
    return (
        f"{worst.attack} {verb} in {worst.asr.successes} of {worst.asr.trials} eligible pairs "
        f"through {worst.profile} with {worst.knowledge} knowledge, at a median {worst.median_rms:.1f}/255 RMS."
    )


def make_caveats(
    clean: list[CleanResult],
    scenarios: list[ScenarioResult],
    unavailable: tuple[Unavailable, ...],
    left_out: int,
    draws: Mapping[str, int],
    goals: Sequence[Goal] = GOALS,
) -> list[str]:
    """List in words what the numbers cannot show.

    Args:
        clean: clean error rates of each profile.
        scenarios: the results of all scenarios.
        unavailable: attacks that did not run.
        left_out: number of pairs that were left out.
        draws: by random profile, the number of draws that gradients are averaged over.
        goals: the goals that the audit should test.
    """
    caveats = []
    for goal in goals:
        sizes = [s.eligible for s in scenarios if s.goal == goal]
        if not sizes:
            kind = "genuine" if goal == "dodging" else "impostor"
            caveats.append(f"{goal} was not tested, because there are no {kind} pairs")
        elif min(sizes) == 0:
            caveats.append(f"{goal}: a profile has no eligible pairs, so its attack success rate (ASR) is unknown")
        else:
            bound = 100 * Rate(0, min(sizes)).upper_bound()
            caveats.append(
                f"{goal}: with n = {min(sizes)}, even 0 successes show only that the ASR is below {bound:.1f} % "
                "(95 % upper bound)"
            )
    for attack in unavailable:
        caveats.append(f"{attack.attack} was not run: {attack.reason}")
    defended = {s.profile for s in scenarios} - {"none"}
    adaptive = {s.profile for s in scenarios if s.knowledge in ADAPTIVE}
    for profile in sorted(defended - adaptive):
        caveats.append(f"{profile}: no adaptive attack was run, so this run does not show that it is robust")
    for profile, count in draws.items():
        caveats.append(
            f"{profile} is random: ASR counts the first presentation of each probe, on a draw that the attacker did "
            f"not see. Gradients of attackers who know it are averaged over {count} draws. Another seed gives other "
            "decisions"
        )
    if left_out:
        caveats.append(f"{left_out} pairs were left out; the report lists the reasons")
    for result in clean:
        if result.accuracy.value is not None and result.accuracy.value < 0.8:
            caveats.append(
                f"{result.profile}: clean accuracy is only {100 * result.accuracy.value:.1f} %; check the crop, layout "
                "and threshold in the manifest"
            )
    return caveats
