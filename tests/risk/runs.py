"""Finished runs whose outcomes are told, for tests of what is made of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.attacks.base import Attack
from toolkit.attacks.settings import weakened
from toolkit.audit.clean.result import CleanResult, clean_result
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.plan import Knowledge, Scenario, Unavailable
from toolkit.audit.replaying.replay import Replay, presentations
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.assessment import Assessment, DeclaredAttack, Target, scenario_results
from toolkit.audit.results.outcomes import CleanOutcomes, PairOutcomes, Run, write_outcomes
from toolkit.audit.results.people import PairFaces
from toolkit.audit.results.subgroups import subgroups_of
from toolkit.documents import to_json
from toolkit.faces.pairs import Pair
from toolkit.profiles.profile import Profile
from toolkit.registry import discover

ATTACKS = discover("attack")
SMALL = 1.0  # RMS in 1/255, within the shipped policies' budget
BUDGET = 2.15 / 255
# Attacks that can speak of the shipped policies' budget, and are as strong as these ask for.
ATTACKS |= {
    "apgd": replace(ATTACKS["apgd"], epsilon=BUDGET),  # type: ignore[type-var]
    "square": replace(ATTACKS["square"], epsilon=BUDGET, budget=1000),  # type: ignore[type-var]
}


@dataclass(frozen=True)
class Told:
    """What is told of one scenario: of each goal's pairs, so many of the first are eligible and fall."""

    attack: str
    knowledge: Knowledge
    profile: str
    dodged: int = 0
    impersonated: int = 0
    rms: float = SMALL
    queries: int = 1
    known: str | None = None


def told(
    scenarios: Sequence[Told],
    pairs: int = 30,
    eligible: int | None = None,
    wrong: Sequence[int] = (),
    unavailable: Sequence[Unavailable] = (),
    checks: Sequence[Check] = (),
    profiles: Sequence[str] = ("none", "mean3"),
    first: int = 0,
    attacks: Mapping[str, Attack] | None = None,
    copies: int = 1,
    people: int | None = None,
    generated: bool = False,
    subgroups: Sequence[str] = (),
) -> tuple[Run, dict[str, Any]]:
    """A run with `pairs` pairs of each kind, numbered from `first`, and what `write` needs to write it.

    Each pair of images occurs `copies` times under other names. The pairs are of `people` people, by default of two
    for each pair; with 0, the pairs do not name them. `subgroups` are the labels of all pairs.
    """
    used = {**ATTACKS, **(attacks or {})}
    genuine = np.repeat([True, False], pairs)
    place = np.tile(np.arange(pairs), 2)
    correct = place < (pairs if eligible is None else eligible)
    correct[list(wrong)] = False
    known = {name: Profile(name, "", (), "0" * 64) for name in {*profiles, *(s.known or "none" for s in scenarios)}}
    clean_run, judged = _clean(tuple(genuine.tolist()), tuple(correct.tolist()))
    clean = {known[name]: clean_run for name in profiles}
    outcomes = []
    for s in scenarios:
        fell = place < np.where(genuine, s.dodged, s.impersonated)
        values: dict[str, Any] = {field.name: np.zeros(2 * pairs) for field in fields(Replay)}
        values |= {"crafted": fell, "passed": fell[:, None], "at_goal": fell, "success_float": fell}
        values |= {"l2": np.full(2 * pairs, s.rms), "rms": np.full(2 * pairs, s.rms)}
        values |= {"evaluations": np.full(2 * pairs, s.queries, np.int64)}
        crafted_on = s.known or (s.profile if s.knowledge in ("perfect", "query") else "none")
        scenario = Scenario(used[s.attack], s.knowledge, known[s.profile], known[crafted_on])
        outcomes.append((scenario, Replay(**values)))
    assessment = Assessment(
        run="told",
        seed=0,
        pairs_source="told",
        genuine=pairs,
        impostor=pairs,
        left_out=(),
        target=Target(
            "m", "m.onnx", "0" * 64, None, "CPU", "auto", "squared-euclidean", 1.0, 4.0, 8, 8, None, "1", None
        ),
        parity=None,
        profiles=tuple((name, "0" * 64) for name in profiles),
        attacks=tuple((name, (("budget", 500),)) for name in dict.fromkeys(s.attack for s in scenarios)),
        declared=tuple(
            DeclaredAttack(name, used[name].needs, used[name].traits, weakened(used[name]))
            for name in dict.fromkeys(s.attack for s in scenarios)
        ),
        clean=tuple(replace(judged, profile=name) for name in profiles),
        scenarios=tuple(r for s, replay in outcomes for r in scenario_results(s, replay, clean_run, genuine)),
        unavailable=tuple(unavailable),
        checks=tuple(checks),
        worst="",
        caveats=(),
        complete=not unavailable,
        valid=all(check.passed for check in checks),
        detection=(),
        generated=generated,
        subgroups=subgroups_of(subgroups, genuine, clean, outcomes, 255 * BUDGET),
    )
    numbers = [first + i for i in range(2 * pairs)]
    names = [Pair(f"p{i}", f"r{i}", bool(g)) for i, g in zip(numbers, genuine, strict=True)]
    who = [[_person(i, side, bool(g), people) for i, g in zip(numbers, genuine, strict=True)] for side in "pr"]
    crops = [[hashlib.sha256(f"{side}{i // copies}".encode()).hexdigest() for i in numbers] for side in "pr"]
    faces = PairFaces(*(tuple(column) for column in (*who, *crops)), subgroups=tuple(subgroups or [""] * (2 * pairs)))
    run = Run(
        Path("told"),
        assessment,
        tuple(pair.id for pair in names),
        genuine,
        faces,
        tuple(CleanOutcomes(name, clean_run.distances, correct) for name in profiles),
        tuple(_pair_outcomes(s, replay, correct) for s, replay in outcomes),
    )
    return run, {"pairs": names, "faces": faces, "outcomes": outcomes, "clean": clean}


def told_run(scenarios: Sequence[Told], **others: Any) -> Run:
    """The run alone."""
    return told(scenarios, **others)[0]


def write(folder: Path, scenarios: Sequence[Told], **others: Any) -> Path:
    """The run as an audit leaves it."""
    run, parts = told(scenarios, **others)
    folder.mkdir(parents=True, exist_ok=True)
    write_outcomes(folder, parts["pairs"], parts["faces"], parts["outcomes"], parts["clean"])
    (folder / "report.json").write_text(to_json(run.assessment))
    return folder


def without(run: Run, scenario: int) -> Run:
    """The run as if one scenario had not been run."""
    gone = run.outcomes[scenario]
    left = [
        s for s in run.assessment.scenarios if (s.attack, s.known, s.profile) != (gone.attack, gone.known, gone.profile)
    ]
    outcomes = tuple(o for o in run.outcomes if o is not gone)
    return replace(run, assessment=replace(run.assessment, scenarios=tuple(left)), outcomes=outcomes)


def _person(pair: int, side: str, genuine: bool, people: int | None) -> str:
    if people == 0:
        return ""
    name = f"{pair}" if genuine else f"{pair}{side}"
    return name if people is None else f"{int(hashlib.sha256(name.encode()).hexdigest(), 16) % people}"


@functools.cache
def _clean(genuine: tuple[bool, ...], correct: tuple[bool, ...]) -> tuple[CleanRun, CleanResult]:
    """Every profile decides alike; the bootstrap of it is worth keeping."""
    labels, right = np.array(genuine, bool), np.array(correct, bool)
    run = CleanRun(np.zeros((1, 2), np.float32), np.where(labels, 0.5, 2.0), right, np.zeros(1), np.inf, right)
    return run, clean_result("", run, labels)


def falls(outcomes: PairOutcomes, success: np.ndarray) -> PairOutcomes:
    """The outcomes, where these pairs fall alone, at the first presentation."""
    once = success.astype(np.int64)
    return replace(outcomes, success=success, hits=once, first_hit=once)


def _pair_outcomes(s: Scenario, replay: Replay, eligible: np.ndarray) -> PairOutcomes:
    values: dict[str, Any] = {f.name: getattr(replay, f.name, None) for f in fields(PairOutcomes)}
    values |= {"attack": s.attack.name, "knowledge": s.knowledge, "known": s.known.name, "profile": s.profile.name}
    values |= {"presented": presentations(s.profile), "eligible": eligible, "queries": replay.evaluations}
    return PairOutcomes(
        **{**values, **{name: getattr(replay, name) * eligible for name in ("success", "hits", "first_hit")}}
    )
