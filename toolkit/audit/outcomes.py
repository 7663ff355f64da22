"""Outcomes: what came of every pair in every scenario, kept beside `report.json` for paired comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.attacks.base import Bools
from toolkit.audit.plan import GOALS
from toolkit.audit.replay import CleanRun
from toolkit.audit.sanity import Outcome
from toolkit.errors import InputError
from toolkit.faces.pairs import Pair
from toolkit.files import write_bytes
from toolkit.profiles.profile import Profile

FILE = "outcomes.json"
_VERSION = 1
_LARGEST_FILE = 1 << 28


@dataclass(frozen=True)
class PairOutcomes:
    """One scenario, over all n pairs of the run; `success` (n,) is False wherever `eligible` (n,) is."""

    attack: str
    knowledge: str
    known: str
    profile: str
    eligible: Bools
    success: Bools


@dataclass(frozen=True)
class Run:
    """A finished audit: its report as parsed JSON, which pairs are `genuine` (n,), and the outcomes of every pair."""

    report: dict[str, Any]
    genuine: Bools
    outcomes: tuple[PairOutcomes, ...]

    @property
    def target(self) -> str:
        """Name of the verifier that was audited."""
        return str(self.report["target"]["name"])


def write_outcomes(
    folder: Path, pairs: Sequence[Pair], outcomes: Iterable[Outcome], clean: dict[Profile, CleanRun]
) -> None:
    """Write `outcomes.json`: the pairs, and for each scenario two texts of a 0 or 1 for every pair, in their order."""
    scenarios = []
    for s, replay in outcomes:
        eligible = clean[s.profile].eligible
        names = {"attack": s.attack.name, "knowledge": s.knowledge, "known": s.known.name}
        names["profile"] = s.profile.name
        scenarios.append({**names, "eligible": _text(eligible), "success": _text(eligible & replay.success)})
    genuine = _text(np.array([pair.genuine for pair in pairs]))
    head = {"schema": _VERSION, "kind": "outcomes"}
    content = {**head, "pairs": [pair.id for pair in pairs], "genuine": genuine, "scenarios": scenarios}
    write_bytes(folder / FILE, (json.dumps(content, indent=1) + "\n").encode())


def read_run(folder: Path) -> Run:
    """Read a finished audit's `report.json` and `outcomes.json`.

    Raises:
        InputError: one of them is missing, damaged or of another version, or they are not of the same audit.
    """
    report = read_json(folder / "report.json", "assessment")
    content = read_json(folder / FILE, "outcomes")
    try:
        count = len(content["pairs"])
        genuine = _flags(content["genuine"], count)
        outcomes = tuple(
            PairOutcomes(
                str(s["attack"]),
                str(s["knowledge"]),
                str(s["known"]),
                str(s["profile"]),
                _flags(s["eligible"], count),
                _flags(s["success"], count),
            )
            for s in content["scenarios"]
        )
        group = report["group"] is not None
        goals = ("group", "group") if group else GOALS
        counted = {
            (o.attack, o.known, o.profile, goal): [int((o.success & kind).sum()), int((o.eligible & kind).sum())]
            for o in outcomes
            for goal, kind in zip(goals, (genuine, ~genuine), strict=True)
            if kind.any()
        }
        reported = {
            (s["attack"], s["known"], s["profile"], s["goal"]): [s["asr"]["successes"], s["asr"]["trials"]]
            for s in report["scenarios"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: its report is not as this version writes it ({error!r})") from error
    if counted != reported:
        raise InputError(f"{folder}: {FILE} does not count what report.json says; give the same audit again")
    return Run(report, genuine, outcomes)


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a document that the toolkit wrote, of one kind.

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
    if not isinstance(content, dict) or (content.get("schema"), content.get("kind")) != (_VERSION, kind):
        raise InputError(f"{path}: is no {kind} of version {_VERSION}")
    return content


def _text(flags: Bools) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _flags(text: str, count: int) -> Bools:
    if len(text) != count or set(text) - {"0", "1"}:
        raise ValueError(f"{count} digits 0 or 1 are expected")
    return np.array([digit == "1" for digit in text], np.bool_)
