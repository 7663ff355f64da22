"""The way from pairs to an assessment, on a verifier whose behavior is known."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from tests.models import write_linear
from tests.progress import Silent
from tests.risk.world import write_people, write_verifier
from toolkit import AuditOptions, audit_verifier
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.momentum_l2 import ATTACK as MOMENTUM_L2
from toolkit.attacks.square import Square
from toolkit.audit.clean.result import clean_result
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import Knowledge, Scenario, make_plan
from toolkit.audit.replaying.replay import Replay
from toolkit.audit.request import Request, run_name
from toolkit.audit.results.assessment import Assessment, scenario_results
from toolkit.audit.run import run_audit
from toolkit.defenses.noise import Noise
from toolkit.documents import to_json
from toolkit.errors import UsageError
from toolkit.profiles.profile import Profile, find_profile
from toolkit.registry import discover
from toolkit.report.assessment import print_assessment
from toolkit.report.schemas import report_schema
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.manifest import read_manifest

SIDE = 16


def test_an_audit_runs_repeats_itself_and_validates(request_: Request, tmp_path: Path) -> None:
    progress = Silent()
    first = to_json(run_audit(request_, tmp_path / "one", progress))
    assert progress.done == 2 * len(request_.crops.pairs) + 2 * len(request_.crops.images)
    jsonschema.validate(json.loads(first), report_schema())
    second = to_json(run_audit(request_, tmp_path / "one", Silent()))
    fresh = to_json(run_audit(request_, tmp_path / "two", Silent()))
    assert first == second
    assert first == fresh.replace('"run": "two"', '"run": "one"')


def test_a_damaged_artifact_is_made_anew(request_: Request, tmp_path: Path) -> None:
    first = to_json(run_audit(request_, tmp_path / "run", Silent()))
    artifacts = sorted((tmp_path / "run" / "probes").iterdir())
    assert [path.suffix for path in artifacts].count(".probes") == 2
    for number, path in enumerate(artifacts):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content) if number % 2 else b"")
    assert to_json(run_audit(request_, tmp_path / "run", Silent())) == first


def test_probes_are_named_by_what_they_depend_on(request_: Request, tmp_path: Path) -> None:
    def names(request: Request) -> set[str]:
        folder = tmp_path / run_name(request)
        run_audit(request, folder, Silent())
        return {path.name for path in (folder / "probes").glob("*.probes")}

    base = names(request_)
    assert not base & names(dataclasses.replace(request_, seed=4))
    assert not base & names(dataclasses.replace(request_, attacks=(Gaussian(levels=9, draws=2),)))
    manifest = request_.manifest
    for other in (
        dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, std=(0.5, 0.5, 0.5))),
        dataclasses.replace(manifest, output=dataclasses.replace(manifest.output, normalize=True)),
        dataclasses.replace(manifest, decision=dataclasses.replace(manifest.decision, threshold=0.1)),
    ):
        assert not base & names(dataclasses.replace(request_, manifest=other)), "another reading of the same file"
    only_zero = names(dataclasses.replace(request_, knowledge=("zero",)))
    assert only_zero < base, "probes against the bare verifier are the same, whoever replays them"


def test_knowing_the_defense_helps_and_success_is_judged_on_the_deployed_side(
    request_: Request, tmp_path: Path
) -> None:
    assessment = run_audit(request_, tmp_path / "run", Silent())
    asr = {(s.profile, s.knowledge, s.goal): s.asr for s in assessment.scenarios}
    assert asr["none", "perfect", "dodging"].value == 1
    # A mean filter takes most of the noise away that was enough for the bare verifier.
    assert asr["mean3", "zero", "dodging"].value < 0.5
    assert asr["mean3", "perfect", "dodging"].value > asr["mean3", "zero", "dodging"].value


def test_the_attacker_does_not_see_the_draw_that_judges_the_probe(request_: Request, tmp_path: Path) -> None:
    noisy = Profile("noisy", "", (Noise(0.25),), "")
    asked = dataclasses.replace(request_, profiles=(noisy,), knowledge=("perfect",))
    results = run_audit(asked, tmp_path / "run", Silent()).scenarios
    # Whoever saw it would lose nothing.
    assert 0 < sum(s.asr.successes for s in results) < sum(s.crafted for s in results)


def plan_of(*knowledge: Knowledge, no_gradients: str | None = None):  # type: ignore[no-untyped-def]
    from toolkit.attacks.deepfool import DeepFool

    profiles = [find_profile("none"), find_profile("mean3")]
    return make_plan([Gaussian(), DeepFool()], profiles, knowledge, no_gradients)


def test_plan_crafts_once_what_is_replayed_twice() -> None:
    plan = plan_of("zero", "perfect")
    assert len(plan.scenarios) == 2 * 3
    assert len(plan.crafts) == 2 * 2
    zero = next(s for s in plan.scenarios if s.knowledge == "zero")
    assert zero.known.name == "none"
    assert zero.profile.name == "mean3"


def test_partial_knowledge_is_of_every_other_defended_profile() -> None:
    profiles = [find_profile(name) for name in ("none", "mean3", "bits4", "median3")]
    plan = make_plan([Gaussian()], profiles, ["partial", "perfect"], None)
    partial = {(s.profile.name, s.known.name) for s in plan.scenarios if s.knowledge == "partial"}
    assert partial == {(a, b) for a in ("mean3", "bits4", "median3") for b in ("mean3", "bits4", "median3") if a != b}
    assert len(plan.crafts) == 4, "what perfect knowledge crafts is replayed"
    with pytest.raises(UsageError, match="at least two profiles with a defense"):
        make_plan([Gaussian()], profiles[:2], ["partial"], None)


def test_an_attack_for_those_who_do_not_know_the_profile_attacks_none_that_it_knows() -> None:
    profiles = [find_profile(name) for name in ("none", "mean3", "median3")]
    plan = make_plan([MOMENTUM_L2], profiles, ["zero", "partial", "perfect"], None)
    found = {(s.knowledge, s.known.name, s.profile.name) for s in plan.scenarios}
    assert found == {
        ("perfect", "none", "none"), ("zero", "none", "mean3"), ("zero", "none", "median3"),
        ("partial", "mean3", "median3"), ("partial", "median3", "mean3"),
    }  # fmt: skip


def test_asking_within_a_budget_is_called_query_and_has_a_curve(request_: Request, tmp_path: Path) -> None:
    attack = Square(budget=120)
    asked = dataclasses.replace(request_, attacks=(attack,))
    assessment = run_audit(asked, tmp_path / "run", Silent())
    assert {(s.profile, s.knowledge) for s in assessment.scenarios} == {
        ("none", "query"), ("mean3", "zero"), ("mean3", "query")
    }  # fmt: skip
    for s in assessment.scenarios:
        counts, rates = zip(*s.asr_at_queries, strict=True)
        assert counts == (10, 30, 100, 120)
        assert [r.successes for r in rates] == sorted(r.successes for r in rates)
        assert rates[-1] == s.asr
    jsonschema.validate(json.loads(to_json(assessment)), report_schema())
    console = Console(width=80, record=True, file=io.StringIO())
    print_assessment(assessment, console, [])
    text = console.export_text()
    assert "within this many queries" in text
    assert "…" not in text, "nothing is cut off at 80 columns"


def test_plan_says_what_cannot_be_run() -> None:
    plan = plan_of("zero", no_gradients="no checkpoint")
    assert {s.attack.name for s in plan.scenarios} == {"gaussian"}
    assert [(u.attack, u.reason) for u in plan.unavailable] == [("deepfool", "no checkpoint")]
    from toolkit.attacks.deepfool import DeepFool

    with pytest.raises(UsageError, match="nothing to run"):
        make_plan([DeepFool()], [find_profile("none")], ["zero"], "no checkpoint")
    mean3 = find_profile("mean3")
    with pytest.raises(UsageError, match="two profiles are called mean3"):
        make_plan([DeepFool()], [mean3, dataclasses.replace(mean3, sha256="other")], ["zero"], None)


def clean_run(distances: np.ndarray, correct: list[bool]) -> CleanRun:
    """Without a detector."""
    judged = np.array(correct)
    return CleanRun(np.zeros((0, 1), np.float32), distances, judged, np.zeros(0), np.inf, judged)


def scenario_of(correct: list[bool], success: list[bool], crafted: list[bool], l2: list[float]):  # type: ignore[no-untyped-def]
    n = len(correct)
    zeros = np.zeros(n)
    replay = Replay(
        crafted=np.array(crafted), passed=np.array(success)[:, None], at_goal=np.array(success), scores=zeros,
        success_float=np.array(success), l2=np.array(l2), linf=zeros, rms=zeros, l2_float=zeros, l2_defended=zeros,
        evaluations=np.ones(n, np.int64),
    )  # fmt: skip
    clean = clean_run(zeros, correct)
    scenario = Scenario(Gaussian(), "perfect", Profile("none", "", (), ""), Profile("none", "", (), ""))
    return scenario_results(scenario, replay, clean, np.ones(n, np.bool_))


def test_clean_errors_never_count_as_successes_and_failed_crafting_does_count_as_failure() -> None:
    (result,) = scenario_of(
        correct=[True, True, True, False],
        success=[True, False, False, True],
        crafted=[True, True, False, True],
        l2=[0.5, 0.1, 0.0, 0.2],
    )
    assert (result.pairs, result.clean_errors, result.eligible) == (4, 1, 3)
    assert (result.crafted, result.replayed) == (2, 2)
    assert result.asr == Rate(1, 3)
    assert result.median_l2 == 0.5


def test_budgets_and_norms_are_of_successes_only() -> None:
    (result,) = scenario_of([True] * 3, [True, True, False], [True] * 3, [0.5, 3.0, 0.01])
    assert dict(result.asr_at_l2) == {5.0: Rate(2, 3), 1.0: Rate(1, 3)}
    assert result.median_l2 == 1.75
    (nothing,) = scenario_of([True] * 2, [False] * 2, [False] * 2, [0.0, 0.0])
    assert nothing.median_l2 is None, "no success is not a success of norm zero"
    assert nothing.asr == Rate(0, 2)


def test_clean_errors_are_split_by_kind() -> None:
    clean = clean_run(np.array([0.1, 0.9, 0.2, 0.8]), [True, False, False, True])
    result = clean_result("none", clean, np.array([True, True, False, False]))
    assert (result.fnmr, result.fmr, result.accuracy) == (Rate(1, 2), Rate(1, 2), Rate(2, 4))


def test_small_numbers_and_missing_attacks_are_said_in_words(request_: Request, tmp_path: Path) -> None:
    import dataclasses

    from toolkit.attacks.fgsm import Fgsm

    weights = np.ones((SIDE * SIDE * 3, 2), np.float32) / (SIDE * SIDE * 3)
    opaque = write_linear(tmp_path, weights=weights, side=SIDE, threshold=0.12, name="opaque", opaque=True)
    request = dataclasses.replace(
        request_,
        manifest=read_manifest(opaque),
        attacks=(Gaussian(levels=3, draws=1), Fgsm()),
        knowledge=("zero",),
    )
    assessment: Assessment = run_audit(request, tmp_path / "run", Silent())
    text = " | ".join(assessment.caveats)
    assert not assessment.complete
    assert "even 0 successes show only that the ASR is below" in text
    assert "fgsm was not run" in text
    assert "mean3: no adaptive attack was run" in text


def test_every_attack_that_is_shipped_can_be_audited(tmp_path: Path) -> None:
    """Attacks are tested alone by their own tests; here they meet all that an audit does with an attack."""
    attacks = discover("attack")
    budgets = {name: attack.traits.budget for name, attack in attacks.items() if attack.traits.budget is not None}
    options = AuditOptions(
        model=str(write_verifier(tmp_path, broken=True)), pairs=str(write_people(tmp_path / "people", broken=True)),
        limit=4, attacks=tuple(attacks), profiles=("none",), run=str(tmp_path / "run"), provider="cpu",
        settings=("carlini-wagner.steps=5", "sparse-rs.pixels=20", *(f"{name}.budget=100" for name in budgets)),
    )  # fmt: skip
    run = audit_verifier(options)
    ran = {s.attack for s in run.assessment.scenarios}
    assert ran == set(attacks) - {"glasses"}, "its frame needs landmarks"
    assert {u.attack for u in run.assessment.unavailable} == {"glasses on none"}
    assert not [c for c in run.assessment.checks if c.name == "bounds" and not c.passed]
