"""Outcomes: what came of every pair in every scenario, kept beside `report.json` for paired comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools
from toolkit.audit.assessment import Assessment
from toolkit.audit.plan import GOALS, Goal
from toolkit.audit.reading import from_plain
from toolkit.audit.replay import CleanRun, Float
from toolkit.audit.sanity import Outcome
from toolkit.errors import InputError
from toolkit.faces.pairs import Pair
from toolkit.files import write_bytes
from toolkit.profiles.profile import Profile

FILE = "outcomes.json"
_VERSION = 2
_NORMS = ("l2", "linf", "rms")
_LARGEST_FILE = 1 << 28


@dataclass(frozen=True)
class PairOutcomes:
    """One scenario, over all n pairs of the run.

    Attributes:
        attack, knowledge, known, profile: as in `ScenarioResult`.
        eligible: (n,), see `CleanRun`.
        success: (n,), see `Replay`; False where not eligible.
        l2, linf, rms: (n,), norms of the 8-bit perturbation, to 6 digits; units as in `Replay`.
        queries: (n,), model evaluations that crafting took.
    """

    attack: str
    knowledge: str
    known: str
    profile: str
    eligible: Bools
    success: Bools
    l2: Float
    linf: Float
    rms: Float
    queries: NDArray[np.int64]


@dataclass(frozen=True)
class CleanOutcomes:
    """Distances (n,) of the pairs as they are, behind one profile, to 6 digits, and which were decided correctly."""

    profile: str
    distances: Float
    correct: Bools


@dataclass(frozen=True)
class Run:
    """A finished audit: its assessment, the ids of its n pairs, which are `genuine` (n,), and what came of each."""

    assessment: Assessment
    pairs: tuple[str, ...]
    genuine: Bools
    clean: tuple[CleanOutcomes, ...]
    outcomes: tuple[PairOutcomes, ...]


def write_outcomes(
    folder: Path, pairs: Sequence[Pair], outcomes: Iterable[Outcome], clean: dict[Profile, CleanRun]
) -> None:
    """Write `outcomes.json`: the pairs, and for each scenario what came of every pair, in their order."""
    scenarios = []
    for s, replay in outcomes:
        eligible = clean[s.profile].eligible
        scenarios.append(
            {
                "attack": s.attack.name,
                "knowledge": s.knowledge,
                "known": s.known.name,
                "profile": s.profile.name,
                "eligible": _text(eligible),
                "success": _text(eligible & replay.success),
                **{name: _digits(getattr(replay, name)) for name in _NORMS},
                "queries": replay.evaluations.tolist(),
            }
        )
    content = {
        "schema": _VERSION,
        "kind": "outcomes",
        "pairs": [pair.id for pair in pairs],
        "genuine": _text(np.array([pair.genuine for pair in pairs])),
        "clean": [
            {"profile": p.name, "distances": _digits(run.distances), "correct": _text(run.correct)}
            for p, run in clean.items()
        ],
        "scenarios": scenarios,
    }
    write_bytes(folder / FILE, (json.dumps(content) + "\n").encode())


def read_run(folder: Path) -> Run:
    """Read a finished audit's `report.json` and `outcomes.json`.

    Raises:
        InputError: one of them is missing, damaged or of another version, or they are not of the same audit.
    """
    path = folder / "report.json"
    report, content = read_json(path, "assessment"), read_json(folder / FILE, "outcomes", _VERSION)
    try:
        assessment = from_plain(Assessment, report, "report")
        count = len(content["pairs"])
        genuine = _flags(content["genuine"], count)
        clean = tuple(
            CleanOutcomes(str(c["profile"]), _numbers(c["distances"], count), _flags(c["correct"], count))
            for c in content["clean"]
        )
        outcomes = tuple(_read_scenario(s, count) for s in content["scenarios"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its report is not as this version writes it ({error!r})") from error
    run = Run(assessment, tuple(map(str, content["pairs"])), genuine, clean, outcomes)
    if _counts(run) != {
        (s.attack, s.known, s.profile, s.goal): (s.asr.successes, s.asr.trials) for s in assessment.scenarios
    }:
        raise InputError(f"{folder}: {FILE} does not count what report.json says; give the same audit again")
    return run


def _read_scenario(s: dict[str, Any], count: int) -> PairOutcomes:
    return PairOutcomes(
        attack=str(s["attack"]),
        knowledge=str(s["knowledge"]),
        known=str(s["known"]),
        profile=str(s["profile"]),
        eligible=_flags(s["eligible"], count),
        success=_flags(s["success"], count),
        l2=_numbers(s["l2"], count),
        linf=_numbers(s["linf"], count),
        rms=_numbers(s["rms"], count),
        queries=_numbers(s["queries"], count).astype(np.int64),
    )


def _counts(run: Run) -> dict[tuple[str, str, str, Goal], tuple[int, int]]:
    """Successes and eligible pairs by attack, known profile, profile and goal."""
    goals: tuple[Goal, ...] = GOALS if run.assessment.group is None else ("group", "group")
    return {
        (o.attack, o.known, o.profile, goal): (int((o.success & kind).sum()), int((o.eligible & kind).sum()))
        for o in run.outcomes
        for goal, kind in zip(goals, (run.genuine, ~run.genuine), strict=True)
        if kind.any()
    }


def read_json(path: Path, kind: str, version: int = 1) -> dict[str, Any]:
    """Read a document that the toolkit wrote, of one kind and version.

    Raises:
        InputError: it cannot be read, is too large, or is something else.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: larger than {_LARGEST_FILE} bytes")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict) or (content.get("schema"), content.get("kind")) != (version, kind):
        raise InputError(f"{path}: is no {kind} of version {version}")
    return content


def _text(flags: Bools) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _flags(text: str, count: int) -> Bools:
    if len(text) != count or set(text) - {"0", "1"}:
        raise ValueError(f"{count} digits 0 or 1 are expected")
    return np.array([digit == "1" for digit in text], np.bool_)


def _digits(values: Float) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _numbers(values: list[float], count: int) -> Float:
    numbers = np.array(values, np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{count} finite numbers are expected")
    return numbers
