"""A risk must be what the OWASP rating makes of the exact bound, and never low for want of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.risk.runs import Told, told_run
from toolkit.attacks.base import Traits
from toolkit.audit.plan import Unavailable
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.assessment import DeclaredAttack
from toolkit.errors import InputError
from toolkit.risk.findings import SEVERITIES, Finding, Severity
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import deployed_profiles, enough, missing_adaptive, rate, severity
from toolkit.statistics.intervals import Rate

POLICY = find_policy("access-control")


def one(told: Told, **others: object) -> dict[str, Finding]:
    return {f.goal: f for f in rate(told_run([told], **others), POLICY).findings}


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
    assert dodging.likelihood == pytest.approx(9 * bound * 0.6)
    assert (dodging.impact, dodging.severity) == (4, "low")
    assert (impersonation.likelihood, impersonation.impact) == (pytest.approx(5.4), 9)
    assert impersonation.severity == "high"
    product = 9.0
    for term in dodging.terms[:2]:
        product *= term.value
    assert product == pytest.approx(dodging.likelihood), "every factor is told"


def test_a_watch_list_fears_dodging() -> None:
    run = told_run([Told("deepfool", "perfect", "mean3", dodged=30, impersonated=30)])
    found = {f.goal: f.severity for f in rate(run, find_policy("watchlist")).findings}
    assert found == {"dodging": "high", "impersonation": "medium"}


def test_what_is_beyond_the_budget_does_not_count_unless_it_is_worn() -> None:
    assert one(Told("deepfool", "zero", "mean3", impersonated=30, rms=3.0))["impersonation"].within.successes == 0
    worn = one(Told("glasses", "zero", "mean3", impersonated=30, rms=30.0))["impersonation"]
    assert worn.within.successes == 30
    assert POLICY.within not in worn.meaning + worn.terms[0].source


def test_few_queries_weigh_more_than_many() -> None:
    few = one(Told("square", "query", "mean3", impersonated=30, queries=400))["impersonation"]
    assert few.likelihood == pytest.approx(9 * 0.8), "the budget of 500 queries is the first tier"
    assert few.severity == "critical"


def test_too_little_evidence_is_never_low() -> None:
    for pairs in range(1, 40):
        f = one(Told("deepfool", "perfect", "mean3"), pairs=pairs)["dodging"]
        shown = 1 - 0.05 ** (1 / pairs) <= 0.2
        assert (f.severity == "note") is False
        assert (f.severity == "unknown") is not shown, pairs
    nobody = one(Told("deepfool", "perfect", "mean3", impersonated=30), eligible=0)
    assert nobody["impersonation"].within.trials == 0
    assert SEVERITIES.index(nobody["impersonation"].severity) >= SEVERITIES.index("unknown")


def test_what_was_seen_in_few_pairs_is_not_played_down() -> None:
    assert one(Told("deepfool", "zero", "mean3", impersonated=10), pairs=10)["impersonation"].severity == "critical"


def test_a_failed_check_leaves_nothing_low() -> None:
    failed = Check("gradient", "mean3", False, "vanishes")
    f = one(Told("deepfool", "perfect", "mean3"), pairs=300, checks=[failed])["dodging"]
    assert f.severity == "unknown"
    about_attack = Check("converged", "deepfool on mean3", False, "")
    assert one(Told("deepfool", "perfect", "mean3"), pairs=300, checks=[about_attack])["dodging"].severity == "unknown"
    elsewhere = Check("gradient", "n2c", False, "vanishes")
    assert one(Told("deepfool", "perfect", "mean3"), pairs=300, checks=[elsewhere])["dodging"].severity != "unknown"


def test_the_headline_says_that_nobody_adapted() -> None:
    zero = rate(told_run([Told("deepfool", "zero", "mean3")], pairs=300), POLICY)
    assert "NO ADAPTIVE ATTACK was run on mean3" in zero.headline
    assert SEVERITIES.index(zero.severity) >= SEVERITIES.index("unknown"), "so its risk is not known to be low"
    both = [Told("deepfool", "zero", "mean3"), Told("deepfool", "perfect", "mean3")]
    assert "ADAPTIVE" not in rate(told_run(both, pairs=300), POLICY).headline


def test_the_bare_verifier_counts_only_where_it_is_deployed() -> None:
    run = told_run([Told("deepfool", "perfect", "none", impersonated=30), Told("deepfool", "perfect", "mean3")])
    assert rate(run, POLICY).severity == "medium"
    assert rate(run, POLICY, ["none"]).severity == "high"
    assert rate(run, POLICY, ["red30"]).severity == "unknown"


def test_what_to_do_is_about_what_fell() -> None:
    quiet, loud = Told("fgsm", "perfect", "mean3"), Told("deepfool", "perfect", "mean3", dodged=30, impersonated=30)
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
        ([1000] * 30, 30, 0.8),
        ([1001] * 30, 30, 0.6),
        ([10_000] * 30, 30, 0.6),
        ([10_001] * 30, 30, 0.5),
        # Few queries count for more; here 25 of 30 within 1000 are worse than all within 10 000, and 15 are not.
        ([400] * 25 + [5000] * 5, 25, 0.8),
        ([400] * 15 + [5000] * 15, 30, 0.6),
        ([400] * 2 + [20_000] * 28, 30, 0.5),
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


def test_an_access_that_weighs_nothing_hides_no_success() -> None:
    free = dict.fromkeys(("queries_1000", "queries_10000", "queries_more"), 0.0)
    assert asked([400] * 3 + [20_000] * 9, 50_000, free).within == Rate(12, 30)


def test_a_finding_says_of_which_scenario_it_is_and_how_it_was_rated() -> None:
    f = one(Told("fgsm", "partial", "mean3", dodged=3, known="n2c"))["dodging"]
    assert (f.id, f.attack, f.knowledge) == ("fgsm/knows-n2c/mean3/dodging", "fgsm", "partial")
    assert (f.known, f.profile, f.goal, f.within) == ("n2c", "mean3", "dodging", Rate(3, 30))
    assert [(term.name, term.value) for term in f.terms] == [("bound", f.bound), ("access", 0.7), ("impact", 4)]
    assert f.bound == Rate(3, 30).upper_bound()
    assert all(isinstance(text, str) for text in (f.meaning, f.advice, *(term.source for term in f.terms)))
    for told in ("3 of 30", "fgsm", "n2c", POLICY.within):
        assert told in f.meaning
    assert "3/30" in f.terms[0].source
    assert POLICY.within in f.terms[0].source
    assert POLICY.use_case in f.terms[2].source


def test_every_knowledge_has_its_own_weight_and_words() -> None:
    found = [
        one(Told("fgsm", knowledge, "mean3", dodged=9, known="n2c" if knowledge == "partial" else None))["dodging"]
        for knowledge in ("zero", "partial", "perfect")
    ]
    found.append(one(Told("square", "query", "mean3", dodged=9))["dodging"])
    assert [f.terms[1].value for f in found] == [1.0, 0.7, 0.6, 0.8]
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
    always = ("ML01:2023", "CWE-1039")

    def ids(told: Told, goal: str = "dodging") -> tuple[str, ...]:
        return tuple(reference.id for reference in one(told)[goal].references)

    white = ("AML.T0043.000", "AML.T0044", "white-box evasion")
    query = ("AML.T0043.001", "AML.T0040", "black-box evasion")
    transfer = ("AML.T0043.002", "AML.T0005", "gray-box evasion")
    assert ids(Told("fgsm", "perfect", "mean3")) == (*white, "AML.T0015", *always)
    assert ids(Told("fgsm", "perfect", "mean3"), "impersonation") == (*white, "AML.T0073", *always)
    assert ids(Told("square", "query", "mean3")) == (*query, "AML.T0015", *always)
    assert ids(Told("fgsm", "zero", "mean3")) == (*transfer, "AML.T0015", *always)
    assert ids(Told("fgsm", "partial", "mean3", known="n2c")) == (*transfer, "AML.T0015", *always)
    # Noise is no optimization, whoever adds it; an attack that asks is, though it runs the same model.
    assert ids(Told("gaussian", "zero", "mean3")) == ("AML.T0043.003", *transfer[1:], "AML.T0015", *always)
    assert ids(Told("square", "zero", "mean3")) == (*transfer, "AML.T0015", *always)
    assert ids(Told("glasses", "perfect", "mean3")) == (*white, "AML.T0041", "AML.T0015", *always)


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
            Told("pgd", "perfect", "mean3", dodged=9, impersonated=2),
            Told("fgsm", "perfect", "mean3", dodged=9, impersonated=30),
            Told("deepfool", "zero", "mean3", dodged=30, impersonated=1),
        ]
    )
    found = rate(run, POLICY).findings
    assert [(f.id, f.severity) for f in found] == [
        ("fgsm/perfect/mean3/impersonation", "high"),
        # 9 x 4 after 5.4 x 9.
        ("deepfool/zero/mean3/dodging", "high"),
        # 1 of 30 that needs nothing before 2 of 30 that need the model.
        ("deepfool/zero/mean3/impersonation", "medium"),
        ("pgd/perfect/mean3/impersonation", "medium"),
        # Equal: by name.
        ("fgsm/perfect/mean3/dodging", "low"),
        ("pgd/perfect/mean3/dodging", "low"),
    ]


def test_a_risk_says_under_which_policy_it_was_found() -> None:
    risk = rate(told_run([Told("fgsm", "perfect", "mean3")]), POLICY)
    assert (risk.policy, risk.policy_sha256, risk.use_case) == (POLICY.name, POLICY.sha256, POLICY.use_case)
    assert risk.budget == POLICY.within
    assert risk.profiles == ("mean3",)


def test_each_profile_has_its_own_standing() -> None:
    scenarios = [
        Told("fgsm", "perfect", "none", dodged=30, impersonated=30),
        Told("fgsm", "perfect", "mean3"),
        Told("fgsm", "zero", "red30"),
    ]
    run = told_run(scenarios, profiles=("none", "mean3", "red30", "n2c"))
    risk = rate(run, POLICY)
    assert risk.standings == (("none", "high"), ("mean3", "medium"), ("red30", "medium"), ("n2c", "unknown"))
    # Where little is to be feared: nobody adapted to red30 or attacked n2c, so neither is known to be harmless.
    mild = rate(run, replace(POLICY, impact=dict.fromkeys(POLICY.impact, 1.0)))
    assert dict(mild.standings) == {"none": "low", "mean3": "note", "red30": "unknown", "n2c": "unknown"}
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
    just = replace(POLICY, provable_asr=Rate(0, 30).upper_bound())
    assert enough(30, just)
    assert not enough(29, just)


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
    told = Told("fgsm", "partial", "mean3", known="n2c")
    for about, doubted in (("n2c", True), ("fgsm on n2c", True), ("xn2c", False), ("n2c on red30", False)):
        check = Check("gradient", about, False, "")
        assert (one(told, pairs=300, checks=[check])["dodging"].severity == "unknown") == doubted, about
    passed = Check("gradient", "mean3", True, "")
    assert one(told, pairs=300, checks=[passed])["dodging"].severity != "unknown"


def test_doubt_does_not_hide_what_was_seen() -> None:
    failed = Check("gradient", "mean3", False, "")
    f = one(Told("deepfool", "zero", "mean3", dodged=30, impersonated=12), checks=[failed])
    # The lower bound of 30 of 30 is 0.905, and that of 12 of 30 is 0.249.
    assert f["dodging"].severity == severity(9 * Rate(30, 30).lower_bound(), 4) == "high"
    assert f["impersonation"].severity == severity(9 * Rate(12, 30).lower_bound(), 9) == "medium"
    weighed = one(Told("deepfool", "perfect", "mean3", impersonated=20), checks=[failed])["impersonation"]
    # 9 x 0.500 would be high, and with 0.6 of it it is not.
    assert weighed.severity == severity(9 * Rate(20, 30).lower_bound() * 0.6, 9) == "medium"


def test_the_headline_tells_the_worst_of_what_is_deployed() -> None:
    run = told_run([Told("fgsm", "perfect", "none", impersonated=30), Told("pgd", "perfect", "mean3", impersonated=9)])
    risk = rate(run, POLICY)
    mine = [f for f in risk.findings if f.profile == "mean3"]
    assert mine[0].meaning in risk.headline
    assert "fgsm" not in risk.headline
    assert rate(run, POLICY, ["none"]).findings[0].meaning in rate(run, POLICY, ["none"]).headline


def test_the_headline_says_more_where_less_can_be_trusted() -> None:
    scenarios = [Told("fgsm", "perfect", "mean3")]
    sound = rate(told_run(scenarios), POLICY).headline
    invalid = rate(told_run(scenarios, checks=[Check("parity", "the model", False, "")]), POLICY).headline
    incomplete = rate(told_run(scenarios, unavailable=[Unavailable("apgd", "no gradients")]), POLICY).headline
    unknown = rate(told_run(scenarios, pairs=5), replace(POLICY, impact=dict.fromkeys(POLICY.impact, 1.0))).headline
    worst = rate(told_run(scenarios), POLICY).findings[0].meaning
    assert sound == worst.join(sound.split(worst))
    for headline in (invalid, incomplete):
        assert headline.endswith(sound)
        assert len(headline) > len(sound)
    assert invalid != incomplete
    assert len(unknown) > len(sound)
    assert rate(told_run([]), POLICY).headline


def test_what_to_do_next_is_short_and_about_what_is_deployed() -> None:
    everything = [
        Told("fgsm", "zero", "mean3", dodged=9),
        Told("fgsm", "partial", "mean3", dodged=9, known="n2c"),
        Told("fgsm", "perfect", "mean3", dodged=9, impersonated=9),
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
    oblivious = rate(told_run(everything[:1]), POLICY)
    assert oblivious.next_steps[0] not in {f.advice for f in oblivious.findings}
    assert all(isinstance(step, str) for step in oblivious.next_steps)
    assert oblivious.next_steps[1:] == (oblivious.findings[0].advice,)
    bare = rate(told_run([Told("glasses", "perfect", "none", dodged=30), *everything[2:3]]), POLICY)
    assert bare.next_steps == (next(f.advice for f in bare.findings if f.attack == "fgsm"),)


def test_what_is_harmless_needs_nothing_done() -> None:
    mild = replace(POLICY, impact=dict.fromkeys(POLICY.impact, 1.0))
    found = rate(told_run([Told("fgsm", "perfect", "mean3", dodged=1)], pairs=300), mild)
    assert {f.severity for f in found.findings} == {"note"}
    assert found.next_steps == ()


def test_every_goal_has_its_own_words() -> None:
    run = told_run([Told("fgsm", "perfect", "mean3")])
    searched = replace(run.assessment, group=5, scenarios=(replace(run.assessment.scenarios[1], goal="group"),))
    findings = (*rate(run, POLICY).findings, *rate(replace(run, assessment=searched), POLICY).findings)
    assert {f.goal for f in findings} == {"dodging", "impersonation", "group"}
    assert len({f.meaning for f in findings}) == 3
