from __future__ import annotations

from dataclasses import replace

import pytest

from tests.risk.runs import SMALL, Told, told_run
from toolkit.audit.outcomes import Run
from toolkit.errors import InputError
from toolkit.risk.policy import find_policy
from toolkit.risk.sweep import sweep

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
    with pytest.raises(InputError, match="other pairs"):
        sweep([told_run(found), told_run(found, first=5)], POLICY)
