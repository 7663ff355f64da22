"""What a run means for an operator: findings with a risk, and one verdict.

Both are computed once from a finished run, before anything is rendered; every format shows the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from toolkit.audit.outcomes import Run
from toolkit.audit.plan import Goal
from toolkit.statistics.intervals import Rate

# From the least to the worst; what is unknown is never low.
Severity = Literal["note", "low", "unknown", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
Status = Literal["pass", "fail", "error", "insufficient"]
EXIT_STATUS: dict[Status, int] = {"pass": 0, "fail": 1, "error": 2, "insufficient": 3}


@dataclass(frozen=True)
class Term:
    """One factor of a likelihood or an impact: its name, its value, and where it comes from in words."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class Reference:
    """A place in a public catalogue, for instance ("MITRE ATLAS", "AML.T0043.000", "White-Box Optimization")."""

    standard: str
    id: str
    title: str


@dataclass(frozen=True)
class Finding:
    """The risk of one scenario in one goal.

    Attributes:
        id: stable over runs: the same attack, knowledge, known profile, profile and goal always give the same.
        attack, knowledge, known, profile, goal: of the scenario, as in `ScenarioResult`.
        within: successes within the policy's perturbation budget over eligible pairs.
        bound: one-sided exact 95 % upper bound of that rate.
        likelihood, impact: 0 to 9, as in the OWASP risk rating.
        severity: of both together; `unknown` where the evidence is too little, which is never low.
        terms: every factor of the two.
        meaning: one sentence.
        advice: what to do about it.
        references: its places in public catalogues.
    """

    id: str
    attack: str
    knowledge: str
    known: str
    profile: str
    goal: Goal
    within: Rate
    bound: float
    likelihood: float
    impact: float
    severity: Severity
    terms: tuple[Term, ...]
    meaning: str
    advice: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Risk:
    """All findings of a run under one policy, worst first.

    Attributes:
        policy: its name, or the file's.
        policy_sha256: of its text.
        use_case: as in the policy.
        budget: the perturbation budget in words, for instance "RMS <= 2/255".
        severity: of the worst finding; `unknown` where there is none.
        headline: one sentence, which says too when no adaptive attack was run, a check failed or something is missing.
        findings: worst first.
        next_steps: what to do, most useful first.
        profiles: those that count as deployed; findings of others are shown, and decide nothing.
        standings: the severity of each profile of the run.
    """

    policy: str
    policy_sha256: str
    use_case: str
    budget: str
    severity: Severity
    headline: str
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    standings: tuple[tuple[str, Severity], ...] = ()


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is.

    `finding` is the id of the finding it is about, if any; `status` is what the verdict would be for this reason alone.
    """

    code: str
    text: str
    finding: str | None = None
    status: Status = "fail"


@dataclass(frozen=True)
class Verdict:
    """What the gate says: `waived` are reasons that a waiver in force takes away."""

    status: Status
    reasons: tuple[Reason, ...]
    waived: tuple[Reason, ...]


@dataclass(frozen=True)
class Judgement:
    """What `sixpixels gate` prints."""

    risk: Risk
    verdict: Verdict | None


@dataclass(frozen=True)
class Picture:
    """A PNG image with its caption; faces are personal data, and whoever makes a report says whether they go in."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """Everything that is rendered: the run, its risk, the verdict if a gate was asked for, and pictures of probes."""

    run: Run
    risk: Risk
    verdict: Verdict | None = None
    pictures: tuple[Picture, ...] = ()
