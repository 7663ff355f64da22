"""A certificate that covers the budget stands in for attacks that are weak or missing, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.risk.runs import Told
from tests.risk.test_gate import GOOD, PAIRS, codes, run_of, verdict
from toolkit.audit.replaying.certificates import PairCertificates, certification_results
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.outcomes import Run
from toolkit.report.formats.html import render as render_html
from toolkit.report.formats.markdown import render as render_markdown
from toolkit.risk.certified import Certified, certified, covering_radius
from toolkit.risk.findings import CERTIFICATES, Report, WorstCase
from toolkit.risk.headline import certified_in_words
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import rate
from toolkit.risk.worst import distinct_pairs, goal_pairs
from toolkit.statistics.intervals import Rate

# A budget that certificates can reach.
POLICY = replace(find_policy("access-control"), norm="l2", budget=0.5)
# Too weak to be evidence: its smallest perturbations are sought in another norm.
WEAK = [Told("fgsm", "perfect", "mean3")]


def with_certificates(
    run: Run, radius: float | Sequence[float], *, wrong: Sequence[int] = (), deployed: bool = True
) -> Run:
    """The run, whose `mean3` is certified with these radii, and decides the pairs `wrong` wrongly."""
    same = run.genuine.astype(np.int64)
    same[list(wrong)] = 1 - same[list(wrong)]
    found = PairCertificates("mean3", 0.5, 64, 0.999, same, np.broadcast_to(radius, len(same)).astype(np.float64))
    results = tuple(certification_results(found, run.genuine, ("mean3",) if deployed else ()))
    return replace(run, certificates=(found,), assessment=replace(run.assessment, certification=results))


def cases(run: Run) -> dict[str, WorstCase]:
    return {case.goal: case for case in rate(run, POLICY).worst}


def test_the_budget_is_covered_by_a_ball_around_it() -> None:
    target = replace(run_of(GOOD).assessment.target, height=10, width=12)
    assert covering_radius(POLICY, target) == 0.5
    # The longest change within a budget is the corner of its box, or the sphere of its RMS.
    assert covering_radius(replace(POLICY, norm="linf", budget=0.1), target) == pytest.approx(
        np.linalg.norm(np.full((10, 12, 3), 0.1))
    )
    assert covering_radius(replace(POLICY, norm="rms", budget=2.0), target) == pytest.approx(
        np.linalg.norm(np.full((10, 12, 3), 2 / 255))
    )


def test_certificates_over_the_budget_are_the_evidence_that_weak_attacks_are_not() -> None:
    weak = run_of(WEAK)
    assert rate(weak, POLICY).severity == "unknown"
    assert {met.finding for met in cases(weak)["dodging"].met} == {""}
    run = with_certificates(weak, 0.6)
    assert verdict(run, POLICY).status == "pass"
    case = cases(run)["impersonation"]
    assert {met.finding for met in case.met} == {CERTIFICATES, "fgsm/perfect/mean3/impersonation"}
    assert case.certified is not None
    assert case.certified.within == Rate(PAIRS, PAIRS)
    assert case.severity != "unknown"
    assert all(f.no_evidence == "" for f in rate(run, POLICY).findings)


@pytest.mark.parametrize("radius", [0.49, 0.0])
def test_a_shorter_certificate_shows_nothing(radius: float) -> None:
    run = with_certificates(run_of(WEAK), radius)
    assert verdict(run, POLICY).status == "insufficient"
    assert "no-evidence" in codes(verdict(run, POLICY))
    assert cases(run)["dodging"].certified.within == Rate(0, PAIRS)  # type: ignore[union-attr]


def test_the_budget_itself_is_covered() -> None:
    assert cases(with_certificates(run_of(WEAK), 0.5))["dodging"].certified.within.value == 1  # type: ignore[union-attr]


def test_certificates_of_what_is_not_deployed_show_nothing() -> None:
    run = with_certificates(run_of(WEAK), 0.6, deployed=False)
    assert cases(run)["dodging"].certified is None
    assert verdict(run, POLICY).status == "insufficient"


def test_wrong_decisions_and_pairs_that_are_not_eligible_are_not_certified() -> None:
    run = with_certificates(run_of(WEAK, eligible=80), 0.6, wrong=range(10))
    found = cases(run)["dodging"].certified
    assert found is not None
    assert (found.within, found.uncertified) == (Rate(70, 80), Rate(10, 80))
    assert not found.shows(POLICY.required("dodging")), "10 of 80 may fall"


def test_the_rating_is_that_of_the_pairs_without_a_certificate() -> None:
    radius = np.full(2 * PAIRS, 0.6)
    radius[:4] = 0.1
    run = with_certificates(run_of(WEAK), radius.tolist())
    finding = next(f for f in rate(run, POLICY).findings if f.goal == "dodging")
    assert finding.within == Rate(0, PAIRS)
    assert finding.bound == Rate(4, PAIRS).upper_bound()
    assert finding.terms[0].source.startswith("95 % upper bound of 4/100 without a certificate")
    assert finding.likelihood == pytest.approx(9 * np.prod([term.value for term in finding.terms[:2]]))
    # An attack that is evidence by itself is rated by what it got.
    strong = with_certificates(run_of(GOOD), radius.tolist())
    evident = replace(POLICY, norm="rms", budget=2.15)
    assert {f.bound for f in rate(strong, evident).findings} == {Rate(0, PAIRS).upper_bound()}


def test_copies_of_a_pair_are_one_pair_and_certified_only_together() -> None:
    run = run_of(WEAK, copies=2)
    radius = np.full(len(run.pairs), 0.6)
    radius[0] = 0.1
    run = with_certificates(run, radius.tolist())
    found = certified(run, POLICY, "mean3", goal_pairs(run, "dodging"), distinct_pairs(run))
    assert found is not None
    assert found.within == Rate(found.within.trials - 1, found.within.trials)
    assert found.within.trials < int(run.genuine.sum())


def test_successes_within_the_budget_still_count() -> None:
    run = with_certificates(run_of([Told("fgsm", "perfect", "mean3", dodged=PAIRS, rms=0.4)]), 0.6)
    assert verdict(run, POLICY).status == "fail"


def test_what_is_worn_is_not_covered() -> None:
    run = with_certificates(run_of([*WEAK, Told("glasses", "perfect", "mean3")]), 0.6)
    goals = {goal: replace(required, evidence=("worn", "query")) for goal, required in POLICY.goals.items()}
    strict = replace(POLICY, goals=goals, strength=replace(POLICY.strength, steps=10**6))
    risk = rate(run, strict)
    assert {f.attack: bool(f.no_evidence) for f in risk.findings} == {"fgsm": False, "glasses": True}
    assert {met.evidence: met.finding for met in risk.worst[0].met} == {"worn": "", "query": CERTIFICATES}


def test_a_failed_check_is_still_told() -> None:
    check = Check("parity", "fgsm on mean3", passed=False, detail="differs")
    found = verdict(with_certificates(run_of(WEAK, checks=[check]), 0.6), POLICY)
    assert (found.status, codes(found)) == ("insufficient", {"invalid"})


def test_reports_say_what_the_certificates_cover() -> None:
    covered = with_certificates(run_of(WEAK), 0.6)
    short = with_certificates(run_of(WEAK), 0.25)
    for run, words in (
        (covered, "mean3, dodging: 100 of 100 pairs cannot fall to any attack within {}"),
        (short, "mean3, dodging: no certificate covers {} (certificates reach L2 0.25, the budget L2 0.5)"),
    ):
        risk = rate(run, POLICY)
        assert words.format("L2 &lt;= 0.5") in render_html(Report(run, risk))
        assert words.format("L2 &#60;= 0.5") in render_markdown(Report(run, risk))
        assert ("Certified: mean3, dodging" in risk.headline) == (run is covered)


def test_certificates_of_a_profile_that_nothing_attacked_are_all_its_evidence() -> None:
    elsewhere = run_of([Told("fgsm", "perfect", "none")])
    assert {case.severity for case in rate(elsewhere, POLICY).worst} == {"unknown"}
    for uncertified in (0, 4):
        radius = np.full(2 * PAIRS, 0.6)
        radius[PAIRS : PAIRS + uncertified] = 0.1
        case = cases(with_certificates(elsewhere, radius.tolist()))["impersonation"]
        assert case.certified is not None
        assert case.certified.uncertified == Rate(uncertified, PAIRS)
        assert {met.finding for met in case.met} == {CERTIFICATES}
        assert case.severity == "medium", "that of the bound of what is not certified"


def test_certificates_too_short_change_nothing_where_attacks_are_evidence() -> None:
    evident = replace(POLICY, norm="rms", budget=2.15)
    without, short = (rate(run, evident) for run in (run_of(GOOD), with_certificates(run_of(GOOD), 0.01)))
    assert {case.goal: case.severity for case in short.worst} == {case.goal: case.severity for case in without.worst}
    assert all(met.finding != CERTIFICATES for case in short.worst for met in case.met)


def test_what_is_certified_completely_is_counted_by_attacks() -> None:
    risk = rate(with_certificates(run_of(WEAK), 0.6), POLICY)
    for finding in risk.findings:
        assert finding.terms[0].source == "95 % upper bound of 0/100 within L2 <= 0.5"
    assert {met.why_not for case in risk.worst for met in case.met} == {""}


@pytest.mark.parametrize(
    ("within", "max_asr", "shown"),
    [(Rate(0, 0), 1.0, False), (Rate(1, 1), 1.0, True), (Rate(90, 100), Rate(10, 100).upper_bound(), True),
     (Rate(90, 100), Rate(10, 100).upper_bound() - 1e-9, False)],
)  # fmt: skip
def test_certificates_show_a_bound_that_is_at_most_that_of_the_policy(
    within: Rate, max_asr: float, *, shown: bool
) -> None:
    assert Certified(within, 0.5, 0.6).shows(replace(POLICY.required("dodging"), max_asr=max_asr)) is shown


def test_without_an_eligible_pair_certificates_reach_nowhere() -> None:
    run = with_certificates(run_of(WEAK, eligible=0), 0.6)
    found = certified(run, POLICY, "mean3", goal_pairs(run, "dodging"), distinct_pairs(run))
    assert found == Certified(Rate(0, 0), 0.5, 0.0)


def test_profiles_without_certificates_do_not_hide_those_with_them() -> None:
    risk = rate(with_certificates(run_of(WEAK), 0.6), POLICY)
    case = risk.worst[0]
    words = certified_in_words((replace(case, certified=None), case), "L2 <= 0.5")
    assert len(words) == 1
    assert f"Certified: {words[0]}." in risk.headline
