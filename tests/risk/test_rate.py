"""A risk must be what the OWASP rating makes of the exact bound, and never low for want of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.risk.policies import drawn
from tests.risk.runs import Told, told_run
from tests.risk.test_gate import GOOD, fell, with_attack
from toolkit.attacks.base import Traits
from toolkit.audit.plan import Knowledge, Unavailable
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.assessment import DeclaredAttack
from toolkit.audit.results.outcomes import Run
from toolkit.errors import InputError
from toolkit.risk.findings import SEVERITIES, Finding, Risk, Severity
from toolkit.risk.headline import missing_adaptive
from toolkit.risk.policy import ACCESS, LEAST_ACCESS, Policy, Required, find_policy
from toolkit.risk.rate import deployed_profiles, rate
from toolkit.risk.scale import enough, rated, severity
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")
# Policies are files, and a file that is drawn again replaces the last one.
DRAWN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HARMLESS = replace(POLICY, goals={goal: replace(required, impact=1.0) for goal, required in POLICY.goals.items()})


def one(told: Told, policy: Policy = POLICY, **others: object) -> dict[str, Finding]:
    return {f.goal: f for f in rate(told_run([told], **others), policy).findings}


def order(of: Severity) -> int:
    return SEVERITIES.index(of)


def all_severities(risk: Risk) -> list[int]:
    """Of every finding, of every worst case and of the whole, in an order that does not depend on what fell."""
    found = [(f.id, f.severity) for f in risk.findings] + [(f"{c.profile}/{c.goal}", c.severity) for c in risk.worst]
    return [order(severity) for _, severity in sorted(found)] + [order(risk.severity)]


@pytest.mark.parametrize(
    ("likelihood", "impact", "expected"),
    [
        (2.9, 2.9, "note"), (2.9, 3, "low"), (2.9, 6, "medium"),
        (3, 2, "low"), (5.9, 5.9, "medium"), (3, 9, "high"),
        (6, 0, "medium"), (9, 4, "high"), (9, 9, "critical"),
    ],
)  # fmt: skip
def test_severities_are_those_of_the_owasp_matrix(likelihood: float, impact: float, expected: Severity) -> None:
    assert severity(likelihood, impact) == expected


def test_a_likelihood_is_the_exact_bound_times_the_access() -> None:
    found = one(Told("deepfool", "perfect", "mean3", dodged=3, impersonated=30))
    # Clopper and Pearson: the one-sided 95 % upper bound of 3 in 30.
    bound = stats.beta.ppf(0.95, 4, 27)
    dodging, impersonation = found["dodging"], found["impersonation"]
    assert dodging.bound == pytest.approx(bound)
    assert dodging.likelihood == pytest.approx(9 * bound * 0.8)
    assert (dodging.impact, dodging.severity) == (4, "low")
    assert (impersonation.likelihood, impersonation.impact) == (pytest.approx(7.2), 9)
    assert impersonation.severity == "critical"
    product = 9.0
    for term in dodging.terms[:2]:
        product *= term.value
    assert product == pytest.approx(dodging.likelihood), "every factor is told"


def test_a_watch_list_fears_dodging() -> None:
    run = told_run([Told("deepfool", "perfect", "mean3", dodged=30, impersonated=30)])
    found = {f.goal: f.severity for f in rate(run, find_policy("watchlist")).findings}
    assert found == {"dodging": "critical", "impersonation": "high"}


def test_what_is_beyond_the_budget_does_not_count_unless_it_is_worn() -> None:
    assert one(Told("deepfool", "zero", "mean3", impersonated=30, rms=3.0))["impersonation"].within.successes == 0
    worn = one(Told("glasses", "zero", "mean3", impersonated=30, rms=30.0))["impersonation"]
    assert worn.within.successes == 30
    assert POLICY.within not in worn.meaning + worn.terms[0].source


def test_few_queries_weigh_more_than_many() -> None:
    few = one(Told("square", "query", "mean3", impersonated=30, queries=400))["impersonation"]
    assert few.likelihood == pytest.approx(9 * 0.9), "the budget of 1000 queries is the first tier"
    assert few.severity == "critical"


def test_too_little_evidence_is_never_low() -> None:
    for pairs in range(1, 40):
        f = one(Told("deepfool", "perfect", "mean3"), pairs=pairs)["dodging"]
        shown = 1 - 0.05 ** (1 / pairs) <= POLICY.goals["dodging"].max_asr
        assert f.severity == ("low" if shown else "unknown"), pairs
    nobody = one(Told("deepfool", "perfect", "mean3", impersonated=30), eligible=0)
    assert nobody["impersonation"].within == Rate(0, 0)
    assert nobody["impersonation"].severity == nobody["dodging"].severity == "unknown"


def test_advice_names_what_the_evidence_lacks_and_nothing_else() -> None:
    deepfool = Told("deepfool", "perfect", "mean3")
    assert "Audit with more pairs" in one(deepfool, pairs=5)["dodging"].advice
    failed = [Check("parity", "deepfool on mean3", passed=False, detail="")]
    assert "failed sanity check" in one(deepfool, checks=failed)["dodging"].advice
    weak = one(Told("fgsm", "perfect", "mean3"))["dodging"].advice
    assert "--suite strong" in weak
    assert "sanity check" not in weak
    assert "more pairs" not in weak


@pytest.mark.parametrize(
    ("told", "attacks"),
    [
        (Told("deepfool", "zero", "mean3"), {}),
        (Told("deepfool", "partial", "mean3", known="n2c"), {}),
        (Told("fgsm", "perfect", "mean3"), {}),
        (Told("apgd", "perfect", "mean3"), with_attack("apgd", epsilon=8 / 255)),
        (Told("square", "query", "mean3"), with_attack("square", budget=999)),
        (Told("gaussian", "query", "mean3"), {}),
    ],
    ids=lambda value: getattr(value, "attack", None),
)
def test_a_failure_that_shows_nothing_is_unknown_and_a_success_counts(told: Told, attacks: dict) -> None:  # type: ignore[type-arg]
    found = one(told, pairs=300, attacks=attacks)
    assert [f.severity for f in found.values()] == ["unknown", "unknown"]
    assert all(f.no_evidence for f in found.values())
    loud = one(replace(told, dodged=300, impersonated=300), pairs=300, attacks=attacks)
    assert (loud["dodging"].severity, loud["impersonation"].severity) == ("high", "critical")
    half = one(replace(told, dodged=150), pairs=300, attacks=attacks)["dodging"]
    assert half.severity == severity(9 * Rate(150, 300).lower_bound() * half.terms[1].value, 4) == "medium"


def test_the_attacks_of_a_good_run_show_something() -> None:
    risk = rate(told_run(GOOD, pairs=100), POLICY)
    assert {f.no_evidence for f in risk.findings} == {""}
    assert {(f.attack, f.knowledge): f.evidence for f in risk.findings} == {
        ("deepfool", "perfect"): "minimal",
        ("apgd", "perfect"): "budgeted",
        ("square", "query"): "query",
        ("apgd", "zero"): "transfer",
    }
    assert {f.goal: f.severity for f in risk.findings} == {"dodging": "low", "impersonation": "medium"}
    assert risk.severity == "medium"


def test_what_was_seen_in_few_pairs_is_not_played_down() -> None:
    assert one(Told("deepfool", "zero", "mean3", impersonated=10), pairs=10)["impersonation"].severity == "critical"


def test_a_failed_check_leaves_nothing_low() -> None:
    def dodging(about: str) -> Finding:
        failed = Check("gradient", about, False, "vanishes")
        return one(Told("deepfool", "perfect", "mean3"), pairs=300, checks=[failed])["dodging"]

    for about in ("mean3", "deepfool on mean3"):
        assert (dodging(about).severity, dodging(about).no_evidence) == ("unknown", "a sanity check failed")
    assert (dodging("n2c").severity, dodging("n2c").no_evidence) == ("low", "")


def test_the_headline_says_that_nobody_adapted() -> None:
    zero = rate(told_run([Told("apgd", "zero", "mean3")], pairs=300), POLICY)
    assert "NO ADAPTIVE ATTACK was run on mean3" in zero.headline
    assert order(zero.severity) >= order("unknown"), "so its risk is not known to be low"
    assert "ADAPTIVE" not in rate(told_run(GOOD, pairs=300), POLICY).headline


def test_the_bare_verifier_counts_only_where_it_is_deployed() -> None:
    bare = Told("deepfool", "perfect", "none", impersonated=100)
    run = told_run([bare, *GOOD], pairs=100)
    assert rate(run, POLICY).severity == "medium"
    assert rate(run, POLICY, ["none"]).severity == "critical"
    assert rate(run, POLICY, ["red30"]).severity == "unknown"
    assert {case.profile for case in rate(run, POLICY).worst} == {"mean3"}


def test_what_to_do_is_about_what_fell() -> None:
    quiet, loud = Told("apgd", "perfect", "mean3"), Told("deepfool", "perfect", "mean3", dodged=30, impersonated=30)
    assert any("No attack succeeded" in step for step in rate(told_run([quiet]), POLICY).next_steps)
    assert not any("No attack succeeded" in step for step in rate(told_run([quiet, loud]), POLICY).next_steps)


def test_ids_do_not_depend_on_the_run() -> None:
    first = told_run([Told("fgsm", "zero", "mean3"), Told("fgsm", "partial", "mean3", known="n2c")])
    second = told_run([Told("fgsm", "partial", "mean3", dodged=9, known="n2c"), Told("fgsm", "zero", "mean3")], pairs=9)
    ids = [{f.id for f in rate(run, POLICY).findings} for run in (first, second)]
    assert ids[0] == ids[1]
    assert "fgsm/knows-n2c/mean3/dodging" in ids[0]


def asked(queries: Sequence[int], budget: int | None, access: dict[str, float] | None = None) -> Finding:
    """Impersonation in 30 pairs, each done after so many queries, by an attack that has a budget."""
    run = told_run([Told("square", "query", "mean3", impersonated=len(queries))])
    spent = np.zeros(60, np.int64)
    spent[30 : 30 + len(queries)] = queries
    run = replace(
        run,
        assessment=replace(run.assessment, declared=(DeclaredAttack("square", "runtime", Traits(budget=budget)),)),
        outcomes=(replace(run.outcomes[0], queries=spent),),
    )
    policy = replace(POLICY, access=POLICY.access | (access or {}))
    return next(f for f in rate(run, policy).findings if f.goal == "impersonation")


@pytest.mark.parametrize(
    ("queries", "successes", "weight"),
    [
        ([1000] * 30, 30, 0.9),
        ([1001] * 30, 30, 0.8),
        ([10_000] * 30, 30, 0.8),
        ([10_001] * 30, 30, 0.7),
        # Few queries count for more; here 25 of 30 within 1000 are worse than all within 10 000, and 15 are not.
        ([400] * 25 + [5000] * 5, 25, 0.9),
        ([400] * 15 + [5000] * 15, 30, 0.8),
        ([400] * 2 + [20_000] * 28, 30, 0.7),
    ],
)
def test_the_number_of_queries_that_does_most_harm_counts(queries: list[int], successes: int, weight: float) -> None:
    found = asked(queries, 50_000)
    assert found.within == Rate(successes, 30)
    assert found.likelihood == pytest.approx(9 * Rate(successes, 30).upper_bound() * weight)
    assert (found.terms[1].name, found.terms[1].value) == ("access", weight)


def test_an_attack_is_not_weighed_by_queries_that_its_budget_does_not_allow() -> None:
    # A policy that fears many queries more than few.
    access = {"queries_1000": 0.1, "queries_10000": 0.2, "queries_more": 0.3}
    for budget, weight in ((500, 0.1), (1000, 0.1), (1001, 0.2), (10_000, 0.2), (10_001, 0.3), (None, 0.3)):
        assert asked([400] * 30, budget, access).terms[1].value == weight, budget


def test_the_weight_says_for_how_many_queries_it_is() -> None:
    for budget, told in ((500, "500"), (20_000, "1,000"), (None, "1,000")):
        assert told in asked([400] * 30, budget).terms[1].source
    assert "20,000" in asked([15_000] * 30, 20_000).terms[1].source
    assert "inf" not in asked([15_000] * 30, None).terms[1].source


def test_a_finding_says_of_which_scenario_it_is_and_how_it_was_rated() -> None:
    f = one(Told("fgsm", "partial", "mean3", dodged=3, known="n2c"))["dodging"]
    assert (f.id, f.attack, f.knowledge) == ("fgsm/knows-n2c/mean3/dodging", "fgsm", "partial")
    assert (f.known, f.profile, f.goal, f.within) == ("n2c", "mean3", "dodging", Rate(3, 30))
    assert [(term.name, term.value) for term in f.terms] == [("bound", f.bound), ("access", 0.9), ("impact", 4)]
    assert f.evidence == "transfer"
    assert "0 steps" in f.no_evidence
    assert f.bound == Rate(3, 30).upper_bound()
    assert all(isinstance(text, str) for text in (f.meaning, f.advice, *(term.source for term in f.terms)))
    for told in ("3 of 30", "fgsm", "n2c", POLICY.within):
        assert told in f.meaning
    assert "3/30" in f.terms[0].source
    assert POLICY.within in f.terms[0].source
    assert POLICY.use_case in f.terms[2].source


def test_every_knowledge_has_its_own_weight_and_words() -> None:
    found = [
        one(Told("apgd", knowledge, "mean3", dodged=9, known="n2c" if knowledge == "partial" else None))["dodging"]
        for knowledge in ("zero", "partial", "perfect")
    ]
    found.append(one(Told("square", "query", "mean3", dodged=9))["dodging"])
    assert [f.terms[1].value for f in found] == [1.0, 0.9, 0.8, 0.9]
    for texts in ([f.meaning for f in found], [f.terms[1].source for f in found], [f.advice for f in found]):
        assert len(set(texts)) == 4


def test_what_to_do_depends_on_what_happened() -> None:
    fell = one(Told("deepfool", "perfect", "mean3", dodged=9, impersonated=9))
    quiet = one(Told("deepfool", "perfect", "mean3"))
    few = one(Told("deepfool", "perfect", "mean3", dodged=1), pairs=5)
    worn = one(Told("glasses", "perfect", "mean3", dodged=9))
    assert len({f["dodging"].advice for f in (fell, quiet, few, worn)}) == 4
    assert fell["dodging"].advice == fell["impersonation"].advice
    # Glasses that did nothing are as quiet as anything else.
    assert worn["impersonation"].advice == quiet["dodging"].advice
    # What cannot be trusted is not praised.
    assert one(Told("deepfool", "perfect", "mean3"), pairs=5)["dodging"].advice == few["dodging"].advice


def test_a_budget_that_is_just_kept_counts_in_the_norm_of_the_policy() -> None:
    just = Told("deepfool", "perfect", "mean3", dodged=9, rms=2.0)  # of L2 2 as well
    run = told_run([just])
    outcomes = replace(run.outcomes[0], linf=np.full(60, 7.0))
    run = replace(run, outcomes=(outcomes,))

    def within(norm: str, budget: float) -> int:
        policy = replace(POLICY, norm=norm, budget=budget)
        return next(f for f in rate(run, policy).findings if f.goal == "dodging").within.successes

    assert (within("rms", 2.0), within("rms", 1.9)) == (9, 0)
    assert (within("l2", 2.0), within("l2", 1.9)) == (9, 0)
    assert (within("linf", 7.0), within("linf", 6.9)) == (9, 0)


def test_only_eligible_pairs_of_the_goal_are_counted() -> None:
    found = one(Told("deepfool", "perfect", "mean3", dodged=9, impersonated=4), wrong=[0, 1, 40])
    assert (found["dodging"].within, found["impersonation"].within) == (Rate(7, 28), Rate(4, 29))


def test_catalogues_are_by_what_the_attacker_has() -> None:
    always = ("AITG-MOD-01", "ML01:2023", "CWE-1039")

    def ids(told: Told, goal: str = "dodging") -> tuple[str, ...]:
        found = [reference.id for reference in one(told)[goal].references]
        assert found[-3:] == list(always)
        return tuple(found[:-3])

    white = ("AML.T0043.000", "AML.T0044", "white-box evasion")
    query = ("AML.T0043.001", "AML.T0040", "black-box evasion")
    transfer = ("AML.T0043.002", "AML.T0005", "gray-box evasion")
    hardening, restoration = ("AML.M0003", "AML.M0015"), ("AML.M0010", "AML.M0015")
    assert ids(Told("fgsm", "perfect", "mean3")) == (*white, "AML.T0015", *hardening)
    # ATLAS's impersonation is social engineering; to be taken for somebody else evades the model, too.
    assert ids(Told("fgsm", "perfect", "mean3"), "impersonation") == (*white, "AML.T0015", *hardening)
    assert ids(Told("square", "query", "mean3")) == (*query, "AML.T0015", "AML.M0004", "AML.M0002")
    assert ids(Told("fgsm", "zero", "mean3")) == (*transfer, "AML.T0015", *restoration)
    partial = ids(Told("fgsm", "partial", "mean3", known="n2c"))
    assert partial == (*transfer, "AML.T0015", "AML.M0006", "AML.M0015")
    # Noise is no optimization, whoever adds it; an attack that asks is, though it runs the same model.
    assert ids(Told("gaussian", "zero", "mean3")) == ("AML.T0043.003", *transfer[1:], "AML.T0015", *restoration)
    assert ids(Told("square", "zero", "mean3")) == (*transfer, "AML.T0015", *restoration)
    assert ids(Told("glasses", "perfect", "mean3")) == (*white, "AML.T0041", "AML.M0009", "AML.T0015", *hardening)


def test_an_attack_is_judged_by_what_its_run_declares() -> None:
    """Whatever attacks are installed, and however they are called."""
    run = told_run([Told("fgsm", "perfect", "mean3", dodged=9, rms=90.0)])
    scenarios = tuple(replace(s, attack="gone") for s in run.assessment.scenarios)

    def dodging(declared: DeclaredAttack) -> Finding:
        assessment = replace(run.assessment, scenarios=scenarios, declared=(declared,))
        gone = replace(run, assessment=assessment, outcomes=(replace(run.outcomes[0], attack="gone"),))
        return {f.goal: f for f in rate(gone, POLICY).findings}["dodging"]

    plain, worn = (DeclaredAttack("gone", "gradient", Traits(masked=masked)) for masked in (False, True))
    assert (dodging(plain).id, dodging(plain).within) == ("gone/perfect/mean3/dodging", Rate(0, 30))
    assert dodging(worn).within == Rate(9, 30)
    with pytest.raises(InputError):
        dodging(replace(plain, name="fgsm"))


def test_findings_are_worst_first() -> None:
    run = told_run(
        [
            Told("apgd", "perfect", "mean3", dodged=8, impersonated=2),
            Told("fmn", "perfect", "mean3", dodged=8, impersonated=30),
            Told("deepfool", "zero", "mean3", dodged=30, impersonated=1),
            Told("pgd", "perfect", "mean3"),
        ]
    )
    found = rate(run, POLICY).findings
    assert [(f.id, f.severity) for f in found] == [
        ("fmn/perfect/mean3/impersonation", "critical"),
        ("deepfool/zero/mean3/dodging", "high"),
        # What is shown counts, not how little is known: 8 of 30 times 4 before 2 of 30 times 9. Equal: by name.
        ("apgd/perfect/mean3/dodging", "medium"),
        ("fmn/perfect/mean3/dodging", "medium"),
        ("apgd/perfect/mean3/impersonation", "medium"),
        ("deepfool/zero/mean3/impersonation", "medium"),
        # 0 of 30 shows nothing to fear: by harm.
        ("pgd/perfect/mean3/impersonation", "unknown"),
        ("pgd/perfect/mean3/dodging", "unknown"),
    ]
    by_id = {f.id: f.likelihood * f.impact for f in found}
    assert by_id["apgd/perfect/mean3/dodging"] < by_id["apgd/perfect/mean3/impersonation"]


def test_what_was_shown_of_all_that_counts_is_as_severe_as_the_worst_of_it() -> None:
    alone = replace(POLICY, goals={"dodging": POLICY.goals["dodging"]})
    assert rate(told_run(GOOD, pairs=100), alone).severity == "low"
    assert rate(told_run(GOOD, pairs=100), POLICY).severity == "medium"


def test_harm_breaks_the_tie_between_findings_of_one_severity() -> None:
    """6 of 30 times 9 is more than 8 of 30 times 4."""
    found = rate(told_run([Told("apgd", "perfect", "mean3", dodged=8, impersonated=6)]), POLICY).findings
    assert [(f.goal, f.severity) for f in found] == [("impersonation", "medium"), ("dodging", "medium")]


def test_a_finding_says_how_many_tries_it_took() -> None:
    run = told_run([Told("apgd", "perfect", "mean3", dodged=8)])
    for presented, tries, said in (
        (1, 3, ""), (2, 3, ", in at most 3 tries"), (10, 3, ", in at most 3 tries"), (10, 1, ", at the first try"),
        (10, 2, ", in at most 2 tries"),
    ):  # fmt: skip
        scenarios = tuple(replace(s, presented=presented) for s in run.assessment.scenarios)
        told = replace(run, assessment=replace(run.assessment, scenarios=scenarios))
        policy = replace(POLICY, tries=tries)
        finding = next(f for f in rate(told, policy).findings if f.goal == "dodging")
        assert finding.terms[0].source.endswith(f"of 8/30 within {policy.within}{said}")


def test_a_risk_says_under_which_policy_it_was_found() -> None:
    risk = rate(told_run(GOOD), POLICY)
    assert (risk.policy, risk.policy_sha256, risk.use_case) == (POLICY.name, POLICY.sha256, POLICY.use_case)
    assert risk.budget == POLICY.within
    assert risk.profiles == ("mean3",)


def test_each_profile_has_its_own_standing() -> None:
    scenarios = [
        Told("fgsm", "perfect", "none", dodged=30, impersonated=30),
        Told("deepfool", "perfect", "mean3"),
        Told("apgd", "zero", "red30"),
    ]
    run = told_run(scenarios, profiles=("none", "mean3", "red30", "n2c"))
    risk = rate(run, POLICY)
    assert risk.standings == (("none", "critical"), ("mean3", "medium"), ("red30", "medium"), ("n2c", "unknown"))
    # Where little is to be feared: nobody adapted to red30 or attacked n2c, so neither is known to be harmless.
    assert dict(rate(run, HARMLESS).standings) == {
        "none": "high",
        "mean3": "note",
        "red30": "unknown",
        "n2c": "unknown",
    }
    assert rate(told_run([]), POLICY).severity == "unknown"
    assert rate(told_run([], profiles=()), POLICY).severity == "unknown"


def test_two_profiles_of_one_name_are_refused() -> None:
    run = told_run([Told("fgsm", "perfect", "mean3")])
    twice = replace(run.assessment, profiles=(*run.assessment.profiles, ("mean3", "1" * 64)))
    with pytest.raises(InputError):
        rate(replace(run, assessment=twice), POLICY)


def test_what_is_deployed_is_chosen_or_named_or_defended() -> None:
    assessment = told_run([]).assessment
    assert deployed_profiles(assessment, POLICY) == ("mean3",)
    assert deployed_profiles(assessment, POLICY, ["n2c"]) == ("n2c",)
    named = replace(POLICY, profiles=("red30",))
    assert deployed_profiles(assessment, named) == ("red30",)
    assert deployed_profiles(assessment, named, ["n2c"]) == ("n2c",)
    assert deployed_profiles(told_run([], profiles=("none",)).assessment, POLICY) == ("none",)


def test_pairs_are_enough_where_no_success_would_show_the_asr() -> None:
    just = Required(9, Rate(0, 30).upper_bound(), 1, 1, ("minimal",))
    assert enough(Rate(0, 30), just)
    assert enough(Rate(30, 30), just), "it is about the number of pairs"
    assert not enough(Rate(0, 29), just)
    assert not enough(Rate(0, 0), just)


def test_each_goal_must_be_met_by_somebody_who_adapts() -> None:
    scenarios = [Told("fgsm", "zero", "mean3"), Told("fgsm", "perfect", "none"), Told("square", "query", "n2c")]
    run = told_run(scenarios, profiles=("none", "mean3", "n2c"))
    a = run.assessment
    assert missing_adaptive(a, "mean3") == ["dodging", "impersonation"]
    assert missing_adaptive(a, "none") == missing_adaptive(a, "n2c") == []
    one_goal = replace(a, scenarios=tuple(s for s in a.scenarios if s.goal == "dodging"))
    assert missing_adaptive(one_goal, "none") == ["impersonation"]
    # A group is searched for one goal alone.
    assert missing_adaptive(replace(a, group=5), "none") == ["group"]
    searched = tuple(replace(s, goal="group") for s in a.scenarios)
    assert missing_adaptive(replace(a, group=5, scenarios=searched), "none") == []


def test_a_failed_check_of_what_the_attacker_knows_is_one_of_the_finding() -> None:
    told = Told("apgd", "partial", "mean3", known="n2c")
    for about, doubted in (("n2c", True), ("fgsm on n2c", True), ("xn2c", False), ("n2c on red30", False)):
        check = Check("gradient", about, False, "")
        assert (one(told, pairs=300, checks=[check])["dodging"].severity == "unknown") == doubted, about
    passed = Check("gradient", "mean3", True, "")
    assert one(told, pairs=300, checks=[passed])["dodging"].severity != "unknown"


def test_doubt_does_not_hide_what_was_seen() -> None:
    failed = Check("gradient", "mean3", False, "")
    f = one(Told("deepfool", "zero", "mean3", dodged=30, impersonated=12), checks=[failed])
    # The upper bound of 12 of 30 is 0.566.
    assert f["dodging"].severity == "high"
    assert f["impersonation"].severity == severity(9 * Rate(12, 30).upper_bound(), 9) == "high"
    weighed = one(Told("deepfool", "perfect", "mean3", impersonated=16), checks=[failed])["impersonation"]
    # 9 x 0.69 would be critical, and with 0.8 of it it is not.
    assert weighed.severity == severity(9 * Rate(16, 30).upper_bound() * 0.8, 9) == "high"
    assert severity(9 * Rate(16, 30).upper_bound(), 9) == "critical"
    # Too few pairs show no more than their lower bound.
    few = one(Told("deepfool", "perfect", "mean3", impersonated=8), pairs=20, checks=[failed])["impersonation"]
    assert few.severity == severity(9 * Rate(8, 20).lower_bound() * 0.8, 9) == "medium"
    assert severity(9 * Rate(8, 20).upper_bound() * 0.8, 9) == "high"


def test_the_headline_tells_the_worst_of_what_is_deployed() -> None:
    run = told_run([Told("fgsm", "perfect", "none", impersonated=30), *fell(GOOD[1], impersonated=9)])
    told = rate(run, POLICY).headline
    assert "Worst: through mean3, 9 of 30 pairs are taken for somebody else within RMS <= 2.15/255" in told
    assert "apgd/perfect 9" in told
    assert "fgsm" not in told
    assert "Worst: through none, 30 of 30" in rate(run, POLICY, ["none"]).headline


def test_the_headline_names_the_union_of_attacks_and_at_most_three_of_them() -> None:
    attacks = ("fmn", "carlini-wagner", "deepfool", "apgd", "pgd")
    scenarios = [Told(name, "perfect", "mean3", dodged=9 - i) for i, name in enumerate(attacks)]
    told = rate(told_run([*scenarios, *GOOD[2:]]), POLICY).headline
    names = "fmn/perfect 9, carlini-wagner/perfect 8, deepfool/perfect 7, and 2 more."
    assert f"9 of 30 pairs evade recognition within {POLICY.within} (upper bound 46.5 %): {names}" in told

    three = rate(told_run([*scenarios[:3], *GOOD[2:]]), POLICY).headline
    assert "fmn/perfect 9, carlini-wagner/perfect 8, deepfool/perfect 7." in three, "and nothing more"


EVERYTHING_WRONG = (
    "mean3 ACCEPTS STRANGERS without any attack: 100 of 100 impostor pairs (the policy allows 5 %).",
    "mean3 REFUSES ITS PEOPLE without any attack: 60 of 100 genuine pairs (the policy allows 20 %).",
    "the labels may be swapped",
    "100 of 200 pairs repeat the two images of another pair",
    "The faces are generated",
    "INVALID",
    "INCOMPLETE",
    "NO ADAPTIVE ATTACK was run on mean3",
)


def wrong_run(dodged: int) -> Run:
    """A run with every fault: 40 genuine pairs are eligible, and no impostor pair."""
    return told_run(
        [Told("deepfool", "zero", "mean3", dodged=dodged)],
        pairs=100,
        wrong=[*range(40, 100), *range(100, 200)],
        copies=2,
        generated=True,
        checks=[Check("gradient", "mean3", False, "vanishes")],
        unavailable=[Unavailable("apgd", "no gradients")],
    )


@pytest.mark.parametrize(
    ("dodged", "found"),
    [(9, "Worst: through mean3, 5 of 20 pairs"), (0, "Nothing fell within the budget: through mean3, 0 of 20 pairs")],
)
def test_the_headline_tells_the_worst_truth_first(dodged: int, found: str) -> None:
    """Errors without any attack, what is wrong with the data, what is missing, and then what the attacks did."""
    told = rate(wrong_run(dodged), POLICY).headline
    parts = (
        *EVERYTHING_WRONG,
        found,
        "Not tested: through mean3, no eligible pair was attacked for impersonation.",
        "NOT SHOWN, for lack of strong attacks within the budget: mean3 minimal, mean3 budgeted,",
    )
    places = [told.index(part) for part in parts]
    assert places == sorted(places)
    assert places[0] == 0


def test_the_headline_says_more_where_less_can_be_trusted() -> None:
    sound = rate(told_run(GOOD, pairs=100), POLICY).headline
    assert sound.startswith("Nothing fell within the budget: through mean3, 0 of 100 pairs")
    assert not any(word in sound for word in ("NOT SHOWN", "Not tested", "too little evidence"))
    for fault, words in (
        ({"checks": [Check("parity", "the model", False, "")]}, "INVALID"),
        ({"unavailable": [Unavailable("apgd", "no gradients")]}, "INCOMPLETE"),
        ({"generated": True}, "The faces are generated"),
    ):
        told = rate(told_run(GOOD, pairs=100, **fault), POLICY).headline  # type: ignore[arg-type]
        assert told.startswith(words)
        assert told.endswith(f" {sound}")
    known = replace(POLICY, generated_faces=True)
    assert rate(told_run(GOOD, pairs=100, generated=True), known).headline == sound
    few = rate(told_run(GOOD, pairs=5), POLICY)
    assert few.severity == "unknown"
    assert few.headline.endswith("There is too little evidence to call the risk low.")
    assert rate(told_run([]), POLICY).headline


@pytest.mark.parametrize("policy", ["access-control", "watchlist"])
@pytest.mark.parametrize(
    ("wrong", "first"),
    [
        (range(100, 200), "mean3 ACCEPTS STRANGERS without any attack: 100 of 100 impostor pairs"),
        (range(100), "mean3 REFUSES ITS PEOPLE without any attack: 100 of 100 genuine pairs"),
    ],
    ids=["accepts", "refuses"],
)
def test_a_verifier_that_does_not_verify_is_at_least_high_and_this_is_said_first(
    policy: str, wrong: range, first: str
) -> None:
    """Its attacks have nothing to do, and once it was rated medium: nothing succeeded."""
    risk = rate(told_run(GOOD, pairs=100, wrong=wrong), find_policy(policy))
    assert risk.severity in ("high", "critical")
    assert risk.headline.startswith(first)
    assert "Nothing succeeded" not in risk.headline
    assert "Nothing fell within the budget: through mean3, 0 of 100 pairs" in risk.headline, "of the other goal"
    assert risk.next_steps[0].startswith("Fix the clean errors first")


def test_clean_errors_are_those_of_what_is_deployed_with_their_limits_and_bounds() -> None:
    risk = rate(told_run(GOOD, pairs=100, wrong=[0, 1, 2, 150]), POLICY)
    assert [(e.profile, e.kind, e.rate, e.limit) for e in risk.clean] == [
        ("mean3", "fmr", Rate(1, 100), POLICY.max_fmr),
        ("mean3", "fnmr", Rate(3, 100), POLICY.max_fnmr),
    ]
    assert [e.bound for e in risk.clean] == [e.rate.upper_bound() for e in risk.clean]
    assert not any(e.beyond for e in risk.clean)
    assert risk.headline.startswith("Nothing fell"), "an error that the policy allows is no headline"
    for count, beyond in ((5, False), (6, True)):
        (fmr, _) = rate(told_run(GOOD, pairs=100, wrong=range(100, 100 + count)), POLICY).clean
        assert fmr.beyond == beyond, "5 of 100 are allowed"


def test_only_a_group_has_no_false_non_matches_to_tell() -> None:
    run = told_run(GOOD, pairs=100)
    clean = tuple(replace(c, fnmr=Rate(0, 0)) for c in run.assessment.clean)
    for group, kinds in ((None, ["fmr", "fnmr"]), (3, ["fmr"])):
        assessment = replace(run.assessment, clean=clean, group=group)
        assert [e.kind for e in rate(replace(run, assessment=assessment), POLICY).clean] == kinds


def test_a_clean_error_a_little_beyond_its_limit_is_high_and_not_critical() -> None:
    assert rate(told_run(GOOD, pairs=100, wrong=range(100, 106)), POLICY).severity == "high"


def test_what_to_do_next_is_short_and_about_what_is_deployed() -> None:
    everything = [
        Told("apgd", "zero", "mean3", dodged=9),
        Told("deepfool", "partial", "mean3", dodged=9, known="n2c"),
        Told("deepfool", "perfect", "mean3", dodged=9, impersonated=9),
        Told("square", "query", "mean3", dodged=9),
        Told("glasses", "perfect", "mean3", dodged=30, impersonated=30),
    ]
    risk = rate(told_run(everything), POLICY)
    assert len(risk.next_steps) == len(set(risk.next_steps)) == 3
    assert risk.next_steps[0] == risk.findings[0].advice
    # First of all, what makes the run worth reading.
    invalid = rate(told_run(everything, checks=[Check("parity", "the model", False, "")]), POLICY)
    assert invalid.next_steps[1:] == risk.next_steps[:2]
    assert invalid.next_steps[0] not in {f.advice for f in invalid.findings}
    assert all(isinstance(step, str) for step in invalid.next_steps)
    # Last of all, the attacks that are missing.
    oblivious = rate(told_run(everything[:1]), POLICY)
    assert oblivious.next_steps[0] not in {f.advice for f in oblivious.findings}
    assert oblivious.next_steps[1] == oblivious.findings[0].advice
    assert oblivious.next_steps[2].startswith("Audit with --suite strong")
    assert "minimal, budgeted, query attacks are missing" in oblivious.next_steps[2]
    bare = rate(told_run([Told("glasses", "perfect", "none", dodged=30), *everything[2:3]]), POLICY)
    assert bare.next_steps[:1] == (next(f.advice for f in bare.findings if f.attack == "deepfool"),)
    assert len(bare.next_steps) == 2
    larger = rate(told_run(fell(GOOD[0], dodged=9), attacks=with_attack("apgd", epsilon=8 / 255)), POLICY)
    assert "budgeted, transfer attacks are missing" in larger.next_steps[1]


def test_what_is_harmless_needs_nothing_done() -> None:
    found = rate(told_run(fell(GOOD[0], dodged=1), pairs=300), HARMLESS)
    assert {f.severity for f in found.findings} == {"note"}
    assert found.next_steps == ()


def test_every_goal_has_its_own_words() -> None:
    run = told_run([Told("fgsm", "perfect", "mean3")])
    searched = replace(run.assessment, group=5, scenarios=(replace(run.assessment.scenarios[1], goal="group"),))
    findings = (*rate(run, POLICY).findings, *rate(replace(run, assessment=searched), POLICY).findings)
    assert {f.goal for f in findings} == {"dodging", "impersonation", "group"}
    assert len({f.meaning for f in findings}) == 3


@settings(max_examples=300)
@given(
    pairs=st.integers(0, 200),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    weights=st.tuples(st.floats(LEAST_ACCESS, 1), st.floats(LEAST_ACCESS, 1)).map(sorted),
    impact=st.floats(3, 9),
    max_asr=st.floats(1e-6, 1),
    evidence=st.booleans(),
)
def test_the_scale_never_falls_with_more_successes_or_easier_access(
    pairs: int, shares: list[float], weights: list[float], impact: float, max_asr: float, evidence: bool
) -> None:
    required = Required(impact, max_asr, 1, 1, ("minimal",))
    few, many = (Rate(round(share * pairs), pairs) for share in shares)
    found = [
        order(rated(rate, weight, required, evidence=evidence))
        for rate, weight in ((few, weights[0]), (many, weights[0]), (many, weights[1]))
    ]
    assert found == sorted(found)
    whole = rated(Rate(pairs, pairs), LEAST_ACCESS, required, evidence=evidence)
    assert order(whole) >= order("high") if pairs else whole == "unknown"
    assert rated(Rate(0, pairs), weights[0], required, evidence=False) == "unknown"


ATTACKERS: list[tuple[str, Knowledge]] = [
    ("apgd", "zero"), ("apgd", "partial"), ("apgd", "perfect"), ("deepfool", "zero"), ("deepfool", "perfect"),
    ("fgsm", "perfect"), ("gaussian", "zero"), ("glasses", "zero"), ("square", "query"), ("boundary", "query"),
]  # fmt: skip
SIZES = st.sampled_from([1, 5, 30, 100])


def told_of(attacker: tuple[str, Knowledge], count: int, **others: int) -> Told:
    known = "n2c" if attacker[1] == "partial" else None
    return Told(*attacker, "mean3", dodged=count, impersonated=count, known=known, **others)


@DRAWN
@given(data=st.data(), pairs=SIZES, attacker=st.sampled_from(ATTACKERS), queries=st.integers(1, 50_000))
def test_all_pairs_fallen_is_at_least_high_under_every_policy(
    data: st.DataObject, tmp_path: Path, pairs: int, attacker: tuple[str, Knowledge], queries: int
) -> None:
    policy = drawn(data.draw, tmp_path)
    long = {**with_attack("square", budget=50_000), **with_attack("boundary", budget=50_000)}
    risk = rate(told_run([told_of(attacker, pairs, queries=queries)], pairs=pairs, attacks=long), policy)
    assert min(all_severities(risk)) >= order("high")
    assert "Worst: through mean3" in risk.headline


@DRAWN
@given(
    data=st.data(),
    pairs=SIZES,
    attacker=st.sampled_from(ATTACKERS),
    counts=st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted),
    copies=st.sampled_from([1, 50]),
)
def test_more_successes_are_never_less_severe(
    data: st.DataObject, tmp_path: Path, pairs: int, attacker: tuple[str, Knowledge], counts: list[int], copies: int
) -> None:
    policy = drawn(data.draw, tmp_path)
    others = GOOD if data.draw(st.booleans()) else []
    few, many = (
        all_severities(rate(told_run([told_of(attacker, count), *others], pairs=pairs, copies=copies), policy))
        for count in counts
    )
    assert all(a <= b for a, b in zip(few, many, strict=True))


def of_access(knowledge: Knowledge, attack: str, count: int, pairs: int, policy: Policy) -> list[int]:
    risk = rate(told_run([told_of((attack, knowledge), count)], pairs=pairs), policy)
    return [*(order(f.severity) for f in sorted(risk.findings, key=lambda f: f.goal)), order(risk.severity)]


def is_never_less_severe_with_less_access(attack: str, count: int, pairs: int, policy: Policy) -> bool:
    levels: list[Knowledge] = ["zero", "partial", "perfect"]
    zero, partial, perfect = (of_access(known, attack, count, pairs, policy) for known in levels)
    return all(a >= b >= c for a, b, c in zip(zero, partial, perfect, strict=True))


@DRAWN
@given(
    data=st.data(),
    pairs=SIZES,
    count=st.integers(0, 100),
    attack=st.sampled_from(["apgd", "fgsm", "glasses", "deepfool"]),
)
def test_the_same_successes_with_less_access_are_never_less_severe(
    data: st.DataObject, tmp_path: Path, pairs: int, count: int, attack: str
) -> None:
    # Where these fail at zero knowledge, this shows nothing. Where they succeed, they needed less than to know.
    least = 1 if attack in ("deepfool", "glasses") else 0
    assert is_never_less_severe_with_less_access(attack, max(count, least), pairs, drawn(data.draw, tmp_path))


@pytest.mark.parametrize("count", [34, 45, 77, 81])
def test_an_attack_that_is_no_evidence_succeeds_with_less_access_all_the_same(count: int) -> None:
    """Its successes once weighed less than those of who knows the profile."""
    assert is_never_less_severe_with_less_access("deepfool", count, 100, POLICY)


@DRAWN
@given(
    data=st.data(),
    pairs=SIZES,
    spent=st.lists(st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)).map(sorted), max_size=100),
)
def test_fewer_queries_are_never_less_severe(
    data: st.DataObject, tmp_path: Path, pairs: int, spent: list[list[int]]
) -> None:
    policy = drawn(data.draw, tmp_path)
    spent = spent[:pairs]
    run = told_run(
        [told_of(("square", "query"), len(spent))], pairs=pairs, attacks=with_attack("square", budget=20_000)
    )
    found = []
    for side in (0, 1):
        queries = np.zeros((2, pairs), np.int64)
        queries[:, : len(spent)] = [both[side] for both in spent]
        outcomes = replace(run.outcomes[0], queries=queries.ravel())
        found.append(all_severities(rate(replace(run, outcomes=(outcomes,)), policy)))
    assert all(few >= many for few, many in zip(*found, strict=True))
    if len(spent) == pairs:
        assert min(found[1]) >= order("high")


def test_slow_successes_are_not_hidden_by_fast_ones() -> None:
    """8 of 10 pairs within 1000 queries have the larger bound; within 10,000 all of them fell."""
    run = told_run(
        [Told("square", "query", "mean3", dodged=10)], pairs=10, attacks=with_attack("square", budget=10_000)
    )
    spent = np.array([400] * 8 + [5000] * 2 + [0] * 10)
    found = rate(replace(run, outcomes=(replace(run.outcomes[0], queries=spent),)), POLICY).findings
    (dodging,) = (f for f in found if f.goal == "dodging")
    assert (dodging.within, dodging.severity) == (Rate(10, 10), "high")


def test_what_fell_to_many_queries_is_named_however_few_the_pairs_are() -> None:
    """The bound of 0 of 2 pairs with few queries is larger than that of 1 of 2 with many."""
    told = Told("square", "query", "mean3", dodged=1, queries=20_000)
    risk = rate(told_run([told], pairs=2, attacks=with_attack("square", budget=20_000)), POLICY)
    (case,) = (case for case in risk.worst if case.goal == "dodging")
    assert case.within == Rate(1, 2)
    assert case.by == (("square/query/mean3/dodging", 1),)


def test_the_shipped_weights_are_from_the_easiest_access_to_the_hardest() -> None:
    weights = {"zero": 1.0, "partial": 0.9, "perfect": 0.8}
    weights |= {"queries_1000": 0.9, "queries_10000": 0.8, "queries_more": 0.7}
    for name in ("access-control", "watchlist"):
        assert find_policy(name).access == weights
    assert set(weights) == set(ACCESS)


def test_the_headline_says_that_nothing_fell_only_where_this_was_tested() -> None:
    nothing = "Nothing fell within the budget"
    sound = rate(told_run(GOOD, pairs=100), POLICY).headline
    assert f"0 of 100 pairs evade recognition within {POLICY.within} (upper bound 3.0 %)" in sound
    assert nothing not in rate(told_run(fell(GOOD[0], dodged=1), pairs=100), POLICY).headline
    assert nothing not in rate(told_run(GOOD, eligible=0), POLICY).headline


def test_attackers_who_adapt_are_asked_for_where_there_are_none() -> None:
    adapt = "Audit with --knowledge zero,perfect."
    assert adapt in rate(told_run([Told("apgd", "zero", "mean3")]), POLICY).next_steps
    assert adapt not in rate(told_run(GOOD), POLICY).next_steps


@pytest.mark.parametrize(
    ("policy", "wrong"), [("access-control", range(100, 200)), ("watchlist", range(100))], ids=["accepts", "refuses"]
)
def test_errors_without_any_attack_are_as_severe_as_the_goal_that_they_reach(policy: str, wrong: range) -> None:
    assert rate(told_run(GOOD, pairs=100, wrong=wrong), find_policy(policy)).severity == "critical"
