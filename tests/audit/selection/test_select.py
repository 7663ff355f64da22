"""Selection on cases whose answer is known, and the outcomes that it is made from."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from tests.progress import Silent
from toolkit.audit.request import Request
from toolkit.audit.results.outcomes import read_run
from toolkit.audit.run import run_audit
from toolkit.audit.selection.added import Added
from toolkit.audit.selection.candidates import Candidate, candidates_of
from toolkit.audit.selection.latency import read_latency_ratios
from toolkit.audit.selection.select import Limits, Selection, Standing, check_chosen, select
from toolkit.documents import to_json
from toolkit.errors import InputError, InsufficientError
from toolkit.report.selection import print_selection, write_pareto
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import mcnemar

N = 80  # 40 genuine pairs, then 40 impostor pairs
GENUINE = np.arange(N) < N // 2


def flags(*places: range) -> np.ndarray:
    found = np.zeros(N, np.bool_)
    for place in places:
        found[list(place)] = True
    return found


def candidate(name: str, *fallen: range, fnmr: int = 0, fmr: int = 0, latency: float | None = 1.0, **more) -> Candidate:
    """Its pairs in `fallen` fell to the one attack that knows it."""
    values = {
        "eligible": np.ones(N, np.bool_),
        "successes": {"pgd": flags(*fallen)},
        "norms": np.where(flags(*fallen), 1.0, np.inf),
        "queries": np.full(N, np.inf),
        **more,
    }
    return Candidate(name, Rate(fnmr, 40), Rate(fmr, 40), latency_ratio=latency, **values)


def standing(selection: Selection, name: str) -> Standing:
    return next(s for s in selection.standings if s.profile == name)


NONE = candidate("none", range(80))
WEAK = candidate("weak", range(30), range(40, 70), fnmr=1, latency=1.1)
STRONG = candidate("strong", range(2), range(40, 42), fnmr=6, latency=3.0)


def test_the_smallest_upper_bound_wins_and_every_claim_has_its_paired_test() -> None:
    chosen = select([NONE, WEAK, STRONG], GENUINE, Limits())
    assert chosen.chosen == "strong"
    assert standing(chosen, "strong").upper == pytest.approx(stats.beta.ppf(0.95, 3, 38))
    claims = {claim.other: claim for claim in chosen.claims}
    assert (claims["weak"].pairs, claims["weak"].fell, claims["weak"].other_fell) == (80, 0, 56)
    assert (claims["none"].fell, claims["none"].other_fell) == (0, 76)
    # Holm: the smaller of two p values is doubled.
    assert claims["none"].p_adjusted == pytest.approx(2 * mcnemar(0, 76))
    assert claims["weak"].p_adjusted == pytest.approx(mcnemar(0, 56))
    assert {claim.verdict for claim in chosen.claims} == {"better"}
    # Each is the best in something: none costs nothing, weak costs less than strong.
    assert all(s.front for s in chosen.standings)
    check_chosen(chosen)


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        (Limits(max_fnmr=0.15), "strong"),
        (Limits(max_fnmr=0.149), "weak"),
        (Limits(max_latency_ratio=2), "weak"),
        (Limits(max_latency_ratio=1.05), None),
        (Limits(max_fnmr=0.15, max_latency_ratio=3), "strong"),
    ],
)
def test_limits_are_kept(limits: Limits, chosen: str | None) -> None:
    selection = select([NONE, WEAK, STRONG], GENUINE, limits)
    assert selection.chosen == chosen
    if chosen == "weak":
        # What limits rule out is compared with all the same: the operator sees what they give away.
        verdicts = {claim.other: claim.verdict for claim in selection.claims}
        assert verdicts == {"none": "better", "strong": "worse"}


def test_where_nothing_meets_the_limits_the_nearest_is_named_and_nothing_chosen() -> None:
    slow = candidate("slow", range(2), latency=4.0)
    slower = candidate("slower", latency=9.0)
    selection = select([slow, slower], GENUINE, Limits(max_latency_ratio=2))
    assert (selection.chosen, selection.nearest) == (None, "slow")
    with pytest.raises(InsufficientError, match=r"nearest is slow: latency ratio 4 is above 2") as caught:
        check_chosen(selection)
    assert caught.value.exit_status == 3


def test_a_profile_that_nobody_attacked_knowingly_is_never_recommended() -> None:
    untested = candidate("untested", successes={})
    selection = select([NONE, untested], GENUINE, Limits())
    assert (selection.chosen, selection.nearest) == (None, "none")
    assert standing(selection, "untested").unfit == ("the run has no attack that knows it",)
    assert standing(selection, "untested").upper is None
    assert "untested" not in {claim.other for claim in selection.claims}
    with pytest.raises(InsufficientError, match="untested: the run has no attack that knows it"):
        select([untested], GENUINE, Limits())


def test_evidence_that_is_missing_or_broken_makes_unfit() -> None:
    both = {"pgd": flags(range(80)), "fgsm": flags(range(9))}
    cases = {
        "spared": candidate("spared", successes={"fgsm": flags()}),
        "masked": candidate("masked", failed_checks=("gradient",), successes={"pgd": flags(), "fgsm": flags()}),
        "hopeless": candidate("hopeless", eligible=~GENUINE, successes={"pgd": flags(), "fgsm": flags()}),
        "unmeasured": candidate("unmeasured", latency=None, successes={"pgd": flags(), "fgsm": flags()}),
    }
    selection = select(
        [dataclasses.replace(NONE, successes=both), *cases.values()], GENUINE, Limits(max_latency_ratio=2)
    )
    assert (selection.chosen, selection.nearest) == (None, "none")
    why = {name: " ".join(standing(selection, name).unfit) for name in cases}
    assert "pgd with perfect knowledge attacked other profiles" in why["spared"]
    assert "sanity check failed: gradient" in why["masked"]
    assert "0 eligible pairs for dodging" in why["hopeless"]
    assert "latency ratio is unknown" in why["unmeasured"]


@pytest.mark.parametrize(("pairs", "enough"), [(5, False), (6, True)])
def test_pairs_that_could_never_show_a_difference_recommend_nothing(pairs: int, enough: bool) -> None:
    """2 * 0.5 ** 6 is the first two-sided p value below 0.05."""
    few = candidate("few", eligible=flags(range(pairs), range(40, 80)))
    if enough:
        assert select([few], GENUINE, Limits()).chosen == "few"
    else:
        with pytest.raises(
            InsufficientError, match=r"5 eligible pairs for dodging are too few to compare profiles \(at least 6\)"
        ):
            select([few], GENUINE, Limits())
    assert select([few], GENUINE, Limits("impersonation")).chosen == "few", "the other goal has enough"


@pytest.mark.parametrize("what", ["fnmr", "fmr"])
def test_a_limit_that_the_pairs_could_not_show_without_an_error_is_refused(what: str) -> None:
    """1 - 0.05 ** (1 / 40) is 0.0722: what 40 pairs without an error show."""
    with pytest.raises(InsufficientError, match=f"40 pairs are too few to show a clean {what.upper()} of 0.07"):
        select([STRONG, NONE], GENUINE, Limits(**{f"max_{what}": 0.07}))
    assert select([STRONG, NONE], GENUINE, Limits(**{f"max_{what}": 0.2})).chosen == "strong"


def test_what_is_not_shown_better_than_the_bare_verifier_is_not_recommended() -> None:
    """A profile through which every pair fell was once recommended, with exit status 0."""
    useless = candidate("useless", range(80), latency=1.1)
    for candidates, named in (([useless, NONE], "bare verifier"), ([candidate("a-bit", range(2, 80)), NONE], "a-bit")):
        selection = select(candidates, GENUINE, Limits())
        assert selection.chosen is None
        with pytest.raises(InsufficientError, match=rf"{named}.*40 of 40 pairs fell|{named}.*38 of 40 pairs fell"):
            check_chosen(selection)
    better = select([STRONG, NONE], GENUINE, Limits())
    assert (better.chosen, better.refused) == ("strong", "")


def test_an_attacker_tries_every_attack() -> None:
    """Two attacks that succeed on a half of the pairs each, but on other halves, leave nothing standing."""
    halves = {"pgd": flags(range(0, 80, 2)), "fgsm": flags(range(1, 80, 2))}
    even = {"pgd": flags(range(0, 80, 2)), "fgsm": flags(range(0, 80, 2))}
    selection = select([candidate("halves", successes=halves), candidate("even", successes=even)], GENUINE, Limits())
    assert selection.chosen == "even"
    assert dict(standing(selection, "halves").asr) == {"dodging": Rate(40, 40), "impersonation": Rate(40, 40)}


def test_the_goal_decides() -> None:
    hides = candidate("hides", range(40, 80))
    keeps_out = candidate("keeps-out", range(20))
    assert select([hides, keeps_out], GENUINE, Limits("dodging")).chosen == "hides"
    assert select([hides, keeps_out], GENUINE, Limits("impersonation")).chosen == "keeps-out"
    # The worse goal counts: all 40 impostors got in behind the one, 20 of 40 hid behind the other.
    assert select([hides, keeps_out], GENUINE, Limits("any")).chosen == "keeps-out"


def test_a_difference_that_chance_explains_is_no_claim() -> None:
    """Five to none is p = 0.0625; only pairs that are eligible behind both profiles are compared."""
    few, more = candidate("few"), candidate("more", range(5))
    claim = select([few, more], GENUINE, Limits("dodging")).claims[0]
    assert (claim.fell, claim.other_fell, claim.verdict) == (0, 5, "not shown")
    six = candidate("six", range(6))
    assert select([few, six], GENUINE, Limits("dodging")).claims[0].verdict == "better"
    blind = dataclasses.replace(few, eligible=flags(range(1, 80)))
    claim = select([blind, six], GENUINE, Limits("dodging")).claims[0]
    assert (claim.pairs, claim.other_fell, claim.verdict) == (39, 5, "not shown")


def test_the_front_leaves_out_what_another_is_at_least_as_good_in_everywhere() -> None:
    worse = candidate("worse", range(30), range(40, 70), fnmr=2, latency=1.1)
    selection = select([NONE, WEAK, STRONG, worse], GENUINE, Limits())
    assert [s.profile for s in selection.standings if s.front] == ["none", "weak", "strong"]


def test_a_limit_that_few_pairs_cannot_show_is_said_in_words() -> None:
    selection = select([STRONG, NONE], GENUINE, Limits(max_fnmr=0.16))
    assert any("its measured clean FNMR is within the limit, but with 40 pairs" in r for r in selection.reasons)


def test_a_run_keeps_the_outcome_of_every_pair(request_: Request, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assessment = run_audit(request_, folder, Silent())
    (folder / "report.json").write_text(to_json(assessment))
    run = read_run(folder)
    assert run.assessment == assessment
    assert run.genuine.tolist() == [pair.genuine for pair in request_.crops.pairs]
    selection = select(candidates_of(run, {"none": 1.0, "mean3": 1.5}, np.inf), run.genuine, Limits("dodging"))
    for s in selection.standings:
        (reported,) = (
            r.asr for r in assessment.scenarios if (r.profile, r.knowledge, r.goal) == (s.profile, "perfect", "dodging")
        )
        assert dict(s.asr) == {"dodging": reported}, "one attack alone is the worst case"
    within = select(candidates_of(run, {}, 1e-6), run.genuine, Limits("dodging"))
    assert {rate.successes for s in within.standings for _, rate in s.asr} == {0}, "beyond the budget nothing counts"
    assert json.loads(to_json(selection))["kind"] == "selection"
    write_pareto(selection, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")

    only_zero = dataclasses.replace(request_, knowledge=("zero",))
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "report.json").write_text(to_json(run_audit(only_zero, tmp_path / "zero", Silent())))
    zero = read_run(tmp_path / "zero")
    assert standing(select(candidates_of(zero, {}), zero.genuine, Limits()), "mean3").unfit


def test_latencies_of_another_audit_are_refused(request_: Request, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = to_json(run_audit(request_, folder, Silent()))
    (folder / "report.json").write_text(report)
    costs = tmp_path / "costs.json"
    timed = [{"profile": p, "timings": [{"batch": 1, "p50": t}]} for p, t in (("none", 2.0), ("mean3", 3.0))]
    costs.write_text(json.dumps({"schema": 1, "kind": "costs", "model": "linear", "profiles": timed}))
    assert read_latency_ratios(read_run(folder), costs) == {"none": 1.0, "mean3": 1.5}
    costs.write_text(json.dumps({"schema": 1, "kind": "costs", "model": "other", "profiles": timed}))
    with pytest.raises(InputError, match="is of 'other', but the run audited 'linear'"):
        read_latency_ratios(read_run(folder), costs)


def added(selection: Selection, name: str) -> Added:
    return next(a for a in selection.added if a.profile == name)


def test_what_a_profile_adds_to_the_attackers_cost_is_said_where_none_is_recommended() -> None:
    """Every pair still falls within the budget, but needs half as much again."""
    bare, dearer, same = (candidate(name, range(80)) for name in ("none", "dearer", "same"))
    bare_norms = np.linspace(0.5, 1.0, N)
    bare, same = (dataclasses.replace(c, norms=bare_norms) for c in (bare, same))
    selection = select([bare, dataclasses.replace(dearer, norms=1.5 * bare_norms), same], GENUINE, Limits())
    assert selection.chosen is None
    cost = added(selection, "dearer")
    assert (cost.pairs, cost.larger, cost.smaller, cost.verdict) == (80, 80, 0, "better")
    assert cost.p_value == pytest.approx(stats.binomtest(80, 80).pvalue)
    # Holm: the smaller of two p values is doubled.
    assert cost.p_adjusted == pytest.approx(2 * cost.p_value)
    assert (cost.ratio.at_least, cost.ratio.low, cost.ratio.high) == pytest.approx((1.5, 1.5, 1.5))
    assert cost.queries is None
    free = added(selection, "same")
    assert (free.larger, free.smaller, free.p_value, free.verdict) == (0, 0, 1.0, "not shown")
    assert free.ratio.at_least == pytest.approx(1)


def test_pairs_that_no_attack_got_need_more_than_the_budget_and_no_more_is_said_of_them() -> None:
    bare = candidate("none", range(80))
    half = candidate("half", range(30))
    cost = added(select([bare, half], GENUINE, Limits("dodging")), "half")
    assert (cost.larger, cost.smaller) == (10, 0), "thirty pairs fell to the same norm"
    assert (cost.ratio.at_least, cost.ratio.high) == (1, 1)
    none_fell = added(select([bare, candidate("strong")], GENUINE, Limits("dodging")), "strong")
    assert none_fell.ratio.at_least == pytest.approx(2.15), "the budget over the bare verifier's norm of 1"
    assert none_fell.ratio.high is None
    both = added(select([candidate("none"), candidate("strong")], GENUINE, Limits("dodging")), "strong")
    assert (both.ratio.pairs, both.ratio.at_least, both.p_value) == (0, None, 1)


def test_extra_queries_are_paired_differences_of_the_fewest_queries() -> None:
    asked = np.linspace(100, 500, N)
    bare, dear = (candidate(name, range(80), most_queries=1000) for name in ("none", "dear"))
    cheap = dataclasses.replace(bare, queries=asked)
    cost = added(select([cheap, dataclasses.replace(dear, queries=asked + 70)], GENUINE, Limits()), "dear")
    assert cost.queries is not None
    assert (cost.queries.at_least, cost.queries.low, cost.queries.high) == pytest.approx((70, 70, 70))


def test_without_the_bare_verifier_nothing_is_compared_with_it() -> None:
    assert select([WEAK, STRONG], GENUINE, Limits()).added == ()


def test_claims_compare_the_norms_too() -> None:
    """Both fall everywhere, one to larger perturbations: the success rates differ nowhere, the norms everywhere."""
    cheap, dear = (candidate(name, range(80)) for name in ("cheap", "dear"))
    dear = dataclasses.replace(dear, norms=2 * dear.norms, latency_ratio=0.5)
    selection = select([cheap, dear], GENUINE, Limits())
    claim = selection.claims[0]
    assert (selection.nearest, claim.verdict, claim.norms) == ("dear", "not shown", "better")
    assert (claim.larger, claim.smaller) == (80, 0)
    assert any("larger perturbations than with cheap (sign test" in reason for reason in selection.reasons)


def test_the_report_says_the_added_cost_within_80_columns() -> None:
    selection = select([NONE, dataclasses.replace(candidate("a-long-profile-name", range(80)))], GENUINE, Limits())
    out = io.StringIO()
    print_selection(selection, Console(file=out, width=80))
    text = out.getvalue()
    assert "what profiles add to the attacker's cost" in text
    assert "1.00 [1.00, 1.00]" in text
    assert max(map(len, text.splitlines())) <= 80
    out = io.StringIO()
    print_selection(select([WEAK, STRONG], GENUINE, Limits()), Console(file=out, width=80))
    assert "is unknown: no usable results of the bare verifier" in " ".join(out.getvalue().split())


def certificates(radii: np.ndarray, budget: float = 0.5) -> dict[str, np.ndarray]:
    return {"radii": radii, "covered": radii >= budget}


def test_the_longer_average_certificate_breaks_a_tie_and_keeps_a_profile_on_the_front() -> None:
    fallen = (range(20), range(40, 60))
    bare = candidate("none", range(80))
    plain = candidate("plain", *fallen)
    short = candidate("short", *fallen, fnmr=1, **certificates(np.full(N, 0.1)))
    long = candidate("long", *fallen, fnmr=2, **certificates(np.where(GENUINE, 0.4, 0.1)))
    chosen = select([bare, plain, short, long], GENUINE, Limits())
    assert chosen.chosen == "long"
    assert [standing(chosen, name).radius for name in ("none", "short", "long")] == [
        None, pytest.approx(0.1), pytest.approx(0.25),
    ]  # fmt: skip
    assert standing(chosen, "short").front, "it costs less than the longer certificate"
    assert any("L2 distance of 0.25 on average" in reason for reason in chosen.reasons)
    # Of one goal, the certificates of its own pairs count.
    assert standing(select([bare, long], GENUINE, Limits("impersonation")), "long").radius == pytest.approx(0.1)
    assert standing(select([bare, long], GENUINE, Limits("dodging")), "long").radius == pytest.approx(0.4)


def test_certificates_over_the_budget_recommend_a_profile_that_no_attack_met() -> None:
    radii = np.full(N, 0.6)
    radii[[0, 40, 41]] = 0.2
    unmet = {"successes": {}, "norms": np.where(radii < 0.5, radii, np.inf)}
    chosen = select([NONE, candidate("voted", **unmet, **certificates(radii))], GENUINE, Limits())
    assert chosen.chosen == "voted"
    assert standing(chosen, "voted").asr == (("dodging", Rate(1, 40)), ("impersonation", Rate(2, 40)))
    assert standing(chosen, "voted").upper == pytest.approx(Rate(2, 40).upper_bound())
    assert "no certificate covers the budget of 1 of 40 eligible pairs" in chosen.reasons[0]
    # What certificates do not cover counts as fallen, here everything.
    nothing = {"successes": {}, "norms": np.full(N, 0.2)}
    open_to_all = candidate("open", **nothing, **certificates(np.full(N, 0.2)))
    assert select([NONE, open_to_all], GENUINE, Limits()).chosen is None
    with pytest.raises(InsufficientError, match="voted: the run has no attack that knows it"):
        select([candidate("voted", **unmet)], GENUINE, Limits())


def test_the_certified_distance_is_a_column_of_its_own() -> None:
    certified = candidate("certified", range(2), **certificates(np.full(N, 0.25)))
    with_it, without = io.StringIO(), io.StringIO()
    print_selection(select([NONE, certified], GENUINE, Limits()), Console(file=with_it, width=80))
    print_selection(select([NONE, STRONG], GENUINE, Limits()), Console(file=without, width=80))
    assert "L2 held" in with_it.getvalue()
    assert "0.25" in with_it.getvalue()
    assert "L2 held" not in without.getvalue()
