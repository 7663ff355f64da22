"""A run is worse than its baseline if the exact paired test says so; too few pairs to say so are not enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.risk.runs import Told, falls, told_run, without
from tests.risk.test_gate import BUDGETED, GOOD, MINIMAL, TRANSFER, fell
from toolkit.audit.results.outcomes import Run
from toolkit.risk.findings import Reason
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.risk.regressions import regressions
from toolkit.statistics.tests import LEVEL, mcnemar_power

POLICY = find_policy("access-control")
PAIRS = 100
# Two goals of one profile, and its two clean errors.
CHANGES = 4


def run_of(scenarios: Sequence[Told] = GOOD, **others: object) -> Run:
    return told_run(scenarios, **{"pairs": PAIRS, **others})


def found(baseline: Run, run: Run, policy: Policy = POLICY, chosen: Sequence[str] = ()) -> list[Reason]:
    return regressions(baseline, run, rate(run, policy, chosen), policy)


def one_sided(worse: int, better: int) -> float:
    both = worse + better
    return float(stats.binomtest(worse, both, alternative="greater").pvalue) if both else 1.0


@pytest.mark.parametrize(("worse", "better"), [(7, 0), (6, 0), (12, 3), (9, 3), (20, 9), (20, 8), (0, 30)])
def test_a_change_is_told_by_the_exact_one_sided_test_with_holm(worse: int, better: int) -> None:
    """The first pairs fell before and fall no more; the pairs after them are those that fall now."""
    before, after = run_of(fell(MINIMAL, dodged=better)), run_of(fell(MINIMAL, dodged=better + worse))
    success = after.outcomes[0].success.copy()
    success[:better] = False
    after = replace(after, outcomes=(falls(after.outcomes[0], success), *after.outcomes[1:]))
    reasons = found(before, after)
    p_value = one_sided(worse, better) * CHANGES
    assert [reason.code for reason in reasons] == (["regression"] if p_value < 0.05 else [])
    for reason in reasons:
        assert reason.status == "fail"
        told = f"mean3/dodging: {worse} of 100 pairs became worse than in the baseline, and {better} became better"
        assert reason.text == f"{told} (p = {p_value:.2g})"


def test_holm_orders_the_changes() -> None:
    """5 of 100 alone are not significant among four changes; beside three that are, they would be."""
    alone = found(run_of(), run_of(fell(MINIMAL, dodged=6)))
    assert alone == []
    many = found(run_of(), run_of(fell(MINIMAL, dodged=6, impersonated=60), wrong=[*range(80, 99), *range(180, 199)]))
    assert [reason.text.split(":")[0] for reason in many] == [
        "mean3/dodging", "mean3/impersonation", "clean/mean3/fnmr", "clean/mean3/fmr",
    ]  # fmt: skip
    assert f"(p = {one_sided(6, 0):.2g})" in many[0].text, "the last of four is not corrected"


def power(pairs: int, share: float, changes: int) -> float:
    """The probability that enough pairs become worse, summed over how many do."""
    counts = [k for k in range(pairs + 1) if one_sided(k, 0) * changes < 0.05]
    return float(sum(stats.binom.pmf(k, pairs, share) for k in counts))


@pytest.mark.parametrize("pairs", [15, 60, 85, 90, 93, 94, 100])
def test_too_few_pairs_for_the_smallest_regression_are_not_enough(pairs: int) -> None:
    run = run_of(pairs=pairs)
    reasons = found(run, run)
    expected = power(pairs, 0.1, CHANGES)
    assert len(reasons) == (CHANGES if expected < 0.8 else 0)
    for reason in reasons:
        assert (reason.code, reason.status) == ("baseline", "insufficient")
        told = f"{pairs} pairs in common with the baseline would show a regression of 10 % with a probability of only "
        assert f"{told}{100 * expected:.0f} % (the policy asks for 80 %); 0 became worse" in reason.text


def test_the_power_is_that_of_simulated_regressions() -> None:
    """So often the gate finds a tenth of pairs that newly fall, among pairs as many as the policy needs."""
    rng, before, detected = np.random.default_rng(0), run_of(), 0
    for _ in range(100):
        success = np.zeros(2 * PAIRS, np.bool_)
        success[:PAIRS] = rng.random(PAIRS) < 0.1
        after = replace(before, outcomes=(falls(before.outcomes[0], success), *before.outcomes[1:]))
        detected += any(reason.code == "regression" for reason in found(before, after))
    assert power(PAIRS, 0.1, CHANGES) == pytest.approx(detected / 100, abs=0.1)


def test_a_policy_says_what_must_be_shown() -> None:
    few = run_of(pairs=15)
    assert found(few, few)
    assert not found(few, few, replace(POLICY, regression=0.7))
    run = run_of(pairs=90)
    assert power(90, 0.1, CHANGES) == pytest.approx(0.806, abs=0.02)
    assert bool(found(run, run, replace(POLICY, power=0.95)))
    assert not found(run, run, replace(POLICY, power=0.6))


def test_the_worst_case_counts_and_not_each_attack() -> None:
    """A pair that falls to another attack than before is no worse."""
    assert found(run_of(fell(MINIMAL, dodged=30)), run_of(fell(BUDGETED, dodged=30))) == []
    assert [r.code for r in found(run_of(fell(MINIMAL, dodged=30)), run_of(fell(BUDGETED, dodged=45)))] == [
        "regression"
    ]


def test_only_pairs_that_are_eligible_in_both_runs_are_compared() -> None:
    """What was wrong without any attack cannot fall; that it is wrong is a change of its own."""
    before, after = run_of(wrong=range(10)), run_of(fell(MINIMAL, dodged=10))
    assert found(before, after) == []
    (clean,) = (r for r in found(after, before) if r.code == "regression")
    assert clean.text.startswith("clean/mean3/fnmr: 10 of 100 pairs became worse")
    (reason,) = found(run_of(), run_of(fell(MINIMAL, dodged=30), wrong=[40, 41]))
    assert reason.text.startswith("mean3/dodging: 30 of 98 pairs became worse")


def test_pairs_are_found_by_their_names() -> None:
    after = run_of(fell(MINIMAL, dodged=100), first=50)
    (reason,) = (r for r in found(run_of(), after) if r.code == "regression")
    assert reason.text.startswith("mean3/dodging: 50 of 50 pairs became worse")


def test_what_is_missing_or_was_another_attack_is_not_compared() -> None:
    gone = found(run_of(), without(run_of(), 3))
    assert [(r.code, r.findings) for r in gone] == [
        ("baseline", ("apgd/zero/mean3/dodging",)),
        ("baseline", ("apgd/zero/mean3/impersonation",)),
    ]
    assert all("is in the baseline, but not in this run" in r.text for r in gone)
    assert found(without(run_of(), 3), run_of()) == [], "more attacks than before are welcome"
    loud = run_of(fell(MINIMAL, dodged=50))
    attacks = tuple((name, (("budget", 3),) if name == "deepfool" else p) for name, p in loud.assessment.attacks)
    other = found(run_of(), replace(loud, assessment=replace(loud.assessment, attacks=attacks)))
    assert [r.findings for r in other] == [
        ("deepfool/perfect/mean3/dodging",),
        ("deepfool/perfect/mean3/impersonation",),
    ]
    assert all("other parameters" in r.text for r in other)


def test_only_what_is_deployed_is_compared() -> None:
    bare = [replace(told, profile="none") for told in GOOD]
    before, after = run_of([*GOOD, *bare]), run_of([*GOOD, *(replace(told, dodged=90) for told in bare)])
    assert found(before, after) == []
    (reason,) = found(before, after, chosen=["none"])
    assert reason.text.startswith("none/dodging: 90 of 100")


def test_profiles_whose_names_end_alike_are_not_mixed() -> None:
    other = [replace(told, profile="n-mean3") for told in fell(MINIMAL, dodged=90)]
    names = ("n-mean3", "mean3")
    before, after = (
        run_of([*GOOD, *(replace(told, profile="n-mean3") for told in GOOD)], profiles=names),
        run_of([*GOOD, *other], profiles=names),
    )
    assert found(before, after, chosen=["mean3"]) == []


@pytest.mark.parametrize(
    "baseline",
    [
        run_of([], profiles=("none",)),
        run_of([replace(told, profile="none") for told in GOOD], profiles=("none",)),
        run_of([], profiles=("none", "mean3")),
        run_of([replace(told, profile="none") for told in GOOD]),
    ],
    ids=["nothing", "another profile", "no attack", "no attack on this profile"],
)
def test_a_baseline_that_never_attacked_the_profile_shows_nothing(baseline: Run) -> None:
    """Silence would say that nothing became worse."""
    reasons = found(baseline, run_of(fell(MINIMAL, dodged=9)))
    assert [r.status for r in reasons if "mean3" in r.text] != []
    assert {r.status for r in reasons} == {"insufficient"}


def test_worn_and_louder_perturbations_count_as_in_the_worst_case() -> None:
    loud = Told("glasses", "perfect", "mean3", rms=90.0)
    assert [r.code for r in found(run_of([*GOOD, loud]), run_of([*GOOD, replace(loud, dodged=20)]))] == ["regression"]
    beyond = fell(MINIMAL, dodged=20, rms=90.0)  # type: ignore[arg-type]
    assert found(run_of(), run_of(beyond)) == []


def test_only_findings_of_both_runs_are_compared() -> None:
    """What one attack got in one run alone is no change, and hides none."""
    more = run_of(fell(TRANSFER, dodged=50))
    assert found(without(run_of(), 3), more) == []
    worse = found(more, without(run_of(fell(MINIMAL, dodged=20)), 3))
    assert [r.text.split(" pairs")[0] for r in worse if r.code == "regression"] == ["mean3/dodging: 20 of 100"]


def test_clean_errors_are_compared_pair_by_pair_wherever_the_pairs_are() -> None:
    """Pairs 50 to 99 are the last of the one run and the first of the other. Each got its first ten wrong."""
    before, after = run_of(wrong=range(10)), run_of(first=50, wrong=range(10))
    worse = [r.text for r in found(before, after) if r.code == "regression"]
    assert [text.split(" (p")[0] for text in worse] == [
        "clean/mean3/fnmr: 10 of 50 pairs became worse than in the baseline, and 0 became better"
    ]


def test_a_power_just_as_large_as_asked_for_is_enough() -> None:
    run, shown = run_of(), mcnemar_power(PAIRS, POLICY.regression, LEVEL / CHANGES)
    assert found(run, run, replace(POLICY, power=shown)) == []
    assert len(found(run, run, replace(POLICY, power=shown + 1e-9))) == CHANGES
