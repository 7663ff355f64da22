from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.risk.runs import SMALL, Told, told_run
from toolkit.audit.options import AuditOptions
from toolkit.audit.results.outcomes import Run
from toolkit.errors import InputError, UsageError
from toolkit.risk import sweep as sweeping
from toolkit.risk.policy import find_policy, shipped_policies
from toolkit.risk.sweep import Strongest, SweepRow, sweep, sweep_thresholds
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import find_manifest

POLICY = find_policy("access-control")


def at(threshold: float, run: Run) -> Run:
    target = replace(run.assessment.target, threshold=threshold)
    return replace(run, assessment=replace(run.assessment, target=target))


def test_of_each_goal_the_strongest_attack_that_knows_the_profile() -> None:
    found = [
        Told("deepfool", "perfect", "mean3", dodged=20, impersonated=3),
        Told("pgd", "perfect", "mean3", dodged=5, impersonated=9),
        Told("fgsm", "zero", "mean3", dodged=30, impersonated=30),
        Told("gaussian", "perfect", "mean3", dodged=30, impersonated=30, rms=90 * SMALL),
    ]
    runs = [at(0.8, told_run(found[:1])), at(1.0, told_run(found))]
    rows = [row for row in sweep(runs, POLICY).rows if row.profile == "mean3"]
    assert [row.threshold for row in rows] == [1.0, 0.8], "from the loosest to the strictest"
    loosest = {s.goal: (s.attack, s.within.successes) for s in rows[0].strongest}
    # Not fgsm, which does not know the profile, and not noise that anybody would notice.
    assert loosest == {"dodging": ("deepfool", 20), "impersonation": ("pgd", 9)}
    assert {s.goal: s.attack for s in rows[1].strongest} == {"dodging": "deepfool", "impersonation": "deepfool"}
    assert all(not row.strongest for row in sweep(runs, POLICY).rows if row.profile == "none")


def test_runs_of_other_pairs_are_no_sweep() -> None:
    found = [Told("deepfool", "perfect", "mean3")]
    with pytest.raises(InputError):
        sweep([told_run(found), told_run(found, first=5)], POLICY)


def test_a_sweep_says_of_each_profile_and_threshold_what_it_costs_and_what_it_stops() -> None:
    scenario = Told("deepfool", "perfect", "mean3", dodged=20, impersonated=3, rms=SMALL)
    loose, strict = at(1.0, told_run([scenario])), at(0.5, told_run([scenario], wrong=[0, 1, 31]))
    found = sweep([strict, loose], POLICY)
    first = loose.assessment
    assert (found.model, found.metric) == (first.target.name, first.target.metric)
    assert (found.budget, found.pairs_source) == (POLICY.within, first.pairs_source)
    assert [(row.profile, row.threshold) for row in found.rows] == [
        ("none", 1.0), ("none", 0.5), ("mean3", 1.0), ("mean3", 0.5),
    ]  # fmt: skip
    assert found.rows[3] == SweepRow(
        0.5,
        "told",
        "mean3",
        Rate(2, 30),
        Rate(1, 30),
        (
            Strongest("dodging", "deepfool", Rate(18, 28), Rate(18, 28), SMALL),
            Strongest("impersonation", "deepfool", Rate(2, 29), Rate(2, 29), SMALL),
        ),
    )


def test_of_attacks_that_are_equal_within_the_budget_the_one_that_gets_further() -> None:
    found = [
        Told("deepfool", "perfect", "mean3"),
        Told("pgd", "perfect", "mean3", dodged=9, rms=90 * SMALL),
        Told("fgsm", "perfect", "mean3", dodged=5, rms=90 * SMALL),
    ]
    for order in (found, found[::-1]):
        strongest = {s.goal: s for s in sweep([told_run(order)], POLICY).rows[1].strongest}
        assert (strongest["dodging"].attack, strongest["dodging"].asr) == ("pgd", Rate(9, 30))
        assert strongest["dodging"].within == Rate(0, 30)
        assert strongest["impersonation"].median_rms is None
        # Where nothing succeeds all are equal, in whatever order they were run.
        assert strongest["impersonation"].attack == "deepfool"


def test_who_asks_the_deployed_verifier_adapts_too() -> None:
    run = told_run([Told("square", "query", "mean3", dodged=5), Told("deepfool", "zero", "mean3", dodged=9)])
    assert [s.attack for s in sweep([run], POLICY).rows[1].strongest] == ["square", "square"]


def test_another_verifier_is_no_sweep() -> None:
    run = told_run([Told("deepfool", "perfect", "mean3")])
    target = replace(run.assessment.target, model_sha256="1" * 64)
    with pytest.raises(InputError):
        sweep([run, replace(run, assessment=replace(run.assessment, target=target))], POLICY)


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What audits at thresholds are asked for; instead of attacking anything they find the same everywhere."""
    asked = []

    def audits(options: AuditOptions, thresholds: list[float], progress: object) -> list[Run]:
        asked.append((options, thresholds, progress))
        return [at(threshold, told_run([Told("deepfool", "perfect", "mean3", dodged=9)])) for threshold in thresholds]

    monkeypatch.setattr(sweeping, "audit_at_thresholds", audits)
    return asked


def test_every_threshold_is_audited_once(audited: list[tuple]) -> None:
    options, progress = AuditOptions(model="facenet-mini", policy="watchlist"), object()
    found = sweep_thresholds(options, [0.5, 0.7, 0.5], progress)  # type: ignore[arg-type]
    assert audited == [(options, [0.5, 0.7], progress)]
    assert [row.threshold for row in found.rows] == [0.7, 0.5, 0.7, 0.5]
    assert found.budget == find_policy("watchlist").within


def test_a_sweep_goes_from_the_manifest_s_threshold_to_60_percent_of_it(audited: list[tuple]) -> None:
    threshold = find_manifest("facenet-mini").decision.threshold
    sweep_thresholds(AuditOptions(model="facenet-mini"))
    assert audited[0][1] == pytest.approx([threshold * share for share in (1, 0.9, 0.8, 0.7, 0.6)])


def test_wrong_thresholds_are_refused_before_anything_is_attacked(audited: list[tuple]) -> None:
    with pytest.raises(UsageError):
        sweep_thresholds(AuditOptions(model="facenet-mini", threshold=0.5), [0.5])
    with pytest.raises(UsageError):
        sweep_thresholds(AuditOptions(model="facenet-mini"), [0.5, -1.0])
    assert not audited


def test_the_budget_is_that_of_the_options_policy(audited: list[tuple], tmp_path: Path) -> None:
    text = shipped_policies()["access-control"].read_text()
    path = tmp_path / "policy.toml"
    path.write_text(text.replace("value = 2.15", "value = 0.25"))
    found = sweep_thresholds(AuditOptions(model="facenet-mini", policy=str(path)), [0.5])
    assert found.budget == replace(POLICY, budget=0.25).within
    assert {s.within.successes for row in found.rows for s in row.strongest} == {0}
