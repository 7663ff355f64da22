"""The risk of a run: findings with a severity, and one verdict.

They are computed once from a finished run, before any report, so that all report formats agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from toolkit.audit.plan import Goal
from toolkit.audit.results.outcomes import Run
from toolkit.risk.certified import Certified
from toolkit.risk.policy import EvidenceClass
from toolkit.statistics.intervals import Rate

# In ascending order. An unknown risk ranks above a low one.
Severity = Literal["note", "low", "unknown", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
# What stands in place of a finding where certificates show what the policy asks for.
CERTIFICATES = "certificates"
Status = Literal["pass", "fail", "error", "insufficient"]
EXIT_STATUS: dict[Status, int] = {"pass": 0, "fail": 1, "error": 2, "insufficient": 3}


@dataclass(frozen=True)
class Term:
    """One factor of a likelihood or an impact: its name, its value, and its source in words."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class Reference:
    """An entry of a public catalog, for instance ("MITRE ATLAS", "AML.T0043.000", "White-Box Optimization")."""

    standard: str
    id: str
    title: str


@dataclass(frozen=True)
class Finding:
    """The risk of one scenario, for one goal.

    Attributes:
        id: depends only on attack, knowledge, known profile, profile and goal, so that it is the same in every run.
        attack, knowledge, known, profile, goal: the scenario, see `ScenarioResult`.
        within: successes within the policy's perturbation budget, over eligible pairs.
        bound: one-sided exact 95 % upper bound of that rate; of the pairs without a certificate, if certificates are
            the evidence.
        likelihood, impact: 0 to 9, as in the OWASP risk rating.
        severity: the rating of likelihood and impact together; `unknown` if there is too little evidence.
        terms: all factors of likelihood and impact.
        evidence: the class of evidence that this finding belongs to.
        no_evidence: why it cannot show that an attack fails within the budget; "" if it can.
        meaning: the finding in one sentence.
        advice: what to do about it.
        references: entries of public catalogs.
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
    evidence: EvidenceClass
    no_evidence: str
    meaning: str
    advice: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Met:
    """Whether one class of attacks has met a profile.

    Attributes:
        evidence: the class.
        finding: the id of the finding that shows it; `CERTIFICATES` if these stand in for it; "" if nothing does.
        why_not: why nothing shows it.
    """

    evidence: EvidenceClass
    finding: str
    why_not: str


@dataclass(frozen=True)
class WorstCase:
    """What fell to any attack on one deployed profile, for one goal.

    Attributes:
        profile, goal: the deployed profile, and the attacker's goal.
        within: distinct pairs that fell to any attack that the policy counts, within its budget, over eligible pairs.
        bound: one-sided exact 95 % upper bound of that rate.
        people: number of people in the eligible pairs; None if a pair does not name them.
        median: median of the smallest perturbation of each fallen pair, in the budget's unit; None if nothing fell.
        by: the findings with successes, and how many pairs each got; most first.
        met: the classes of attacks that the policy requires.
        certified: what the certificates of the profile say; None if it has none as it is deployed.
        severity: at least that of its findings, and at least high if every pair fell.
    """

    profile: str
    goal: Goal
    within: Rate
    bound: float
    people: int | None
    median: float | None
    by: tuple[tuple[str, int], ...]
    met: tuple[Met, ...]
    certified: Certified | None
    severity: Severity

    @property
    def unmet(self) -> tuple[Met, ...]:
        """The classes of attacks that the policy requires and that have not met the profile."""
        return tuple(one for one in self.met if not one.finding)


@dataclass(frozen=True)
class CleanError:
    """One clean error rate of a deployed profile, with its one-sided exact 95 % upper bound and the policy's limit."""

    profile: str
    kind: Literal["fnmr", "fmr"]
    rate: Rate
    bound: float
    limit: float

    @property
    def beyond(self) -> bool:
        """Whether the measured rate is above the limit."""
        return self.rate.value is not None and self.rate.value > self.limit


@dataclass(frozen=True)
class Risk:
    """All findings of a run under one policy.

    Attributes:
        policy: name of the policy.
        policy_sha256: SHA-256 of its file.
        use_case: the use case that the policy names.
        budget: the perturbation budget in words, for instance "RMS <= 2/255".
        severity: severity of the worst deployed profile; `unknown` if none is deployed.
        headline: the worst truth first: clean errors beyond the policy, faults of the pairs, what was not shown, and
            the worst case.
        worst: the worst case of each deployed profile and goal, worst first.
        clean: the clean errors of each deployed profile.
        warnings: what is wrong with the pairs or the embeddings, in words.
        findings: all findings, worst first.
        next_steps: what to do, most useful first.
        profiles: the deployed profiles. Findings on other profiles are shown, but do not count.
        standings: the severity of each profile of the run.
    """

    policy: str
    policy_sha256: str
    use_case: str
    budget: str
    severity: Severity
    headline: str
    worst: tuple[WorstCase, ...]
    clean: tuple[CleanError, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    standings: tuple[tuple[str, Severity], ...] = ()


@dataclass(frozen=True)
class Reason:
    """One reason for a verdict.

    Attributes:
        code: kind of the reason, for instance "risk" or "few-pairs".
        text: the reason in words.
        findings: ids of the findings that the reason is about.
        status: the verdict that this reason alone would give.
    """

    code: str
    text: str
    findings: tuple[str, ...] = ()
    status: Status = "fail"


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate: its status, the reasons that count, and the reasons that a valid waiver removes."""

    status: Status
    reasons: tuple[Reason, ...]
    waived: tuple[Reason, ...]


@dataclass(frozen=True)
class Judgement:
    """A run's risk, and the gate's verdict; the verdict is None if the gate did not run."""

    risk: Risk
    verdict: Verdict | None = None

    @property
    def status(self) -> Status:
        """The status of the verdict; `error` without a verdict."""
        return "error" if self.verdict is None else self.verdict.status

    @property
    def exit_status(self) -> int:
        """The exit status of `sixpixels gate`: 0 for pass, 1 for fail, 2 for error, 3 for insufficient."""
        return EXIT_STATUS[self.status]


@dataclass(frozen=True)
class Picture:
    """A PNG image with its caption. Faces are personal data, so the caller decides whether a report shows them."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """The contents of a report: the run, its risk, the verdict if the gate ran, and pictures of probes."""

    run: Run
    risk: Risk
    verdict: Verdict | None = None
    pictures: tuple[Picture, ...] = ()
