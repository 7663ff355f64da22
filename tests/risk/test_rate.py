"""A risk must be what the OWASP rating makes of the exact bound, and never low for want of evidence."""

from __future__ import annotations

import pytest
from scipy import stats

from tests.risk.runs import Told, told_run
from toolkit.audit.sanity import Check
from toolkit.risk.findings import SEVERITIES, Finding, Severity
from toolkit.risk.policy import find_policy
from toolkit.risk.rate import rate, severity

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
    assert one(Told("glasses", "zero", "mean3", impersonated=30, rms=30.0))["impersonation"].within.successes == 30


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
    assert "NO ADAPTIVE ATTACK met mean3" in zero.headline
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
    assert any("Nothing succeeded" in step for step in rate(told_run([quiet]), POLICY).next_steps)
    assert not any("Nothing succeeded" in step for step in rate(told_run([quiet, loud]), POLICY).next_steps)


def test_ids_do_not_depend_on_the_run() -> None:
    first = told_run([Told("fgsm", "zero", "mean3"), Told("fgsm", "partial", "mean3", known="n2c")])
    second = told_run([Told("fgsm", "partial", "mean3", dodged=9, known="n2c"), Told("fgsm", "zero", "mean3")], pairs=9)
    ids = [{f.id for f in rate(run, POLICY).findings} for run in (first, second)]
    assert ids[0] == ids[1]
    assert "fgsm/knows-n2c/mean3/dodging" in ids[0]
