"""The assessment: everything a report says, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack
from toolkit.audit.certify import CertificationResult
from toolkit.audit.clean import CleanResult
from toolkit.audit.detection import DetectionResult
from toolkit.audit.plan import ADAPTIVE, GOALS, Goal, Scenario, Unavailable
from toolkit.audit.replay import CleanRun, Replay
from toolkit.audit.sanity import Check
from toolkit.export.parity import Parity
from toolkit.statistics.intervals import Rate

# L2 budgets of the paper's table 1, besides no limit.
BUDGETS = (5.0, 1.0)


@dataclass(frozen=True)
class Target:
    """What was audited, and how it was really run."""

    name: str
    model: str
    model_sha256: str
    checkpoint_sha256: str | None
    provider: str
    provider_requested: str
    metric: str
    threshold: float
    maximum: float
    gradients_from: str | None
    onnxruntime: str
    tensorflow: str | None


@dataclass(frozen=True)
class ScenarioResult:
    """One attack x knowledge x profile x goal.

    `asr` counts 8-bit successes over eligible pairs: those that the target decided correctly before the attack, and
    whose clean probe its detector does not flag (`clean_flagged`). A probe that is flagged is no success.
    Norms are of successful 8-bit probes, None where there is none. `known` is the profile that the probes were crafted
    against; `asr_at_queries` counts pairs that were done within so many queries, for attacks with a budget.
    """

    attack: str
    knowledge: str
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
    mean_l2: float | None
    median_l2: float | None
    median_linf: float | None
    median_rms: float | None
    mean_l2_float: float | None
    median_l2_float: float | None
    mean_l2_defended: float | None
    mean_evaluations: float


@dataclass(frozen=True)
class Assessment:
    """A whole audit, ready to be rendered."""

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


def scenario_results(
    scenario: Scenario, replay: Replay, clean: CleanRun, genuine: NDArray[np.bool_]
) -> list[ScenarioResult]:
    """The two goals of a scenario; a goal without pairs is left out."""
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
    total = int(eligible.sum())

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
    """Where the curve of success against queries is read: 10, 30, 100, ... up to the budget; none without one."""
    budget = getattr(attack, "budget", 0)
    counts = [count * 10**power for power in range(1, 7) for count in (1, 3)]
    return [*(count for count in counts if count < budget), budget] if budget else []


def worst_finding(scenarios: list[ScenarioResult]) -> str:
    """One sentence on the scenario with the highest success, the smallest perturbation deciding between equals."""
    hit = [s for s in scenarios if s.asr.successes]
    if not hit:
        return (
            "No attack that was run succeeded on an eligible pair; see the caveats for what that can and cannot show."
        )
    # Adaptive results say more about a deployment than those of an attacker who does not know it.
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
    """What the numbers cannot show, in words; `draws` says of each random profile over how many gradients are means."""
    caveats = []
    for goal in goals:
        sizes = [s.eligible for s in scenarios if s.goal == goal]
        if not sizes:
            kind = "genuine" if goal == "dodging" else "impostor"
            caveats.append(f"no {kind} pairs: {goal} was not tested")
        elif min(sizes) == 0:
            caveats.append(f"{goal}: a profile has no eligible pair, so its attack success is unknown")
        else:
            bound = 100 * Rate(0, min(sizes)).upper_bound()
            caveats.append(
                f"{goal}: with n = {min(sizes)}, even 0 successes only shows an ASR below {bound:.1f} % (95 %)"
            )
    for attack in unavailable:
        caveats.append(f"{attack.attack} was not run: {attack.reason}")
    defended = {s.profile for s in scenarios} - {"none"}
    adaptive = {s.profile for s in scenarios if s.knowledge in ADAPTIVE}
    for profile in sorted(defended - adaptive):
        caveats.append(f"{profile}: no adaptive attack was run, so nothing here shows that it is robust")
    for profile, count in draws.items():
        caveats.append(
            f"{profile} is random: every probe was judged on one draw, which the attacker did not see; gradients that "
            f"know it are means over {count} draws. Another seed gives other decisions"
        )
    if left_out:
        caveats.append(f"{left_out} pairs were left out; the report lists why")
    for result in clean:
        if result.accuracy.value is not None and result.accuracy.value < 0.8:
            caveats.append(
                f"{result.profile}: clean accuracy is only {100 * result.accuracy.value:.1f} %; is this the verifier's "
                "crop, layout and threshold?"
            )
    return caveats
