"""Policies: TOML files that weigh harm and the access of attackers, and say what the gate requires."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from toolkit.audit.plan import Goal
from toolkit.errors import UsageError
from toolkit.files import sha256
from toolkit.registry import unknown
from toolkit.risk.findings import SEVERITIES, Severity
from toolkit.tables import Table, read_table

SCHEMA_VERSION = 1
Norm = Literal["rms", "l2", "linf"]
GOALS_WITH_IMPACT: tuple[Goal, ...] = ("dodging", "impersonation", "group")
# Weights by number of queries: the largest number, and the key of the weight.
QUERIES = ((1_000, "queries_1000"), (10_000, "queries_10000"), (float("inf"), "queries_more"))
ACCESS = ("zero", "partial", "perfect", *(key for _, key in QUERIES))
_SHIPPED = Path(__file__).parent / "policies"
_HIGHEST_IMPACT = 9.0


@dataclass(frozen=True)
class Policy:
    """One policy.

    Attributes:
        name: name of the policy.
        sha256: SHA-256 of its file.
        use_case: the use of the verifier, in a word.
        norm, budget: only successes with a perturbation within this budget count; units as in `PairOutcomes`.
        impact: harm of a success, 0 to 9, by the attacker's goal.
        access: weight of the likelihood, 0 to 1, by the access that the attacker needs (`ACCESS`).
        fail_at: findings of at least this severity fail the gate.
        provable_asr: there are too few pairs if even 0 successes could not show an ASR below this.
        adaptive: whether the gate requires adaptive attacks, which know or query the deployed profile.
        attacks: names of the attacks that the gate requires.
        profiles: names of the deployed profiles. Empty: all profiles of a run that have a defense.
        max_fnmr, max_fmr: the largest clean error rates, 0 to 1.
    """

    name: str
    sha256: str
    use_case: str
    norm: Norm
    budget: float
    impact: dict[Goal, float]
    access: dict[str, float]
    fail_at: Severity
    provable_asr: float
    adaptive: bool
    attacks: tuple[str, ...]
    profiles: tuple[str, ...]
    max_fnmr: float
    max_fmr: float

    @property
    def within(self) -> str:
        """The budget in words."""
        return f"RMS <= {self.budget:g}/255" if self.norm == "rms" else f"{self.norm.capitalize()} <= {self.budget:g}"


def shipped_policies() -> dict[str, Path]:
    """The policies that ship with the toolkit, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}


def find_policy(name: str | Policy) -> Policy:
    """Find a shipped policy by its name, or read a .toml file. A policy is returned unchanged.

    Raises:
        UsageError: no shipped policy has that name.
        InputError: the file cannot be read or is not valid.
    """
    if isinstance(name, Policy):
        return name
    if name.endswith(".toml"):
        return read_policy(Path(name))
    shipped = shipped_policies()
    if name not in shipped:
        raise UsageError(unknown("policy", name, shipped))
    return read_policy(shipped[name])


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        InputError: the file cannot be read or is not valid. The message names the file and the key.
    """
    top = read_table(path, SCHEMA_VERSION)
    name, use_case = top.name_text("name"), top.name_text("use_case")
    budget, impact, access, gate = (top.table(key) for key in ("budget", "impact", "access", "gate"))
    policy = Policy(
        name=name,
        sha256=sha256(path),
        use_case=use_case,
        norm=budget.choice("norm", Norm),
        budget=_number(budget, "value", 1e-6, 1e6),
        impact={goal: _number(impact, goal, 0, _HIGHEST_IMPACT) for goal in GOALS_WITH_IMPACT},
        access={key: _number(access, key, 0, 1) for key in ACCESS},
        fail_at=gate.choice("fail_at", Severity),
        provable_asr=_number(gate, "provable_asr", 1e-6, 1),
        adaptive=gate.take("adaptive", bool),
        attacks=_names(gate, "attacks"),
        profiles=_names(gate, "profiles"),
        max_fnmr=_number(gate, "max_fnmr", 0, 1, 1.0),
        max_fmr=_number(gate, "max_fmr", 0, 1, 1.0),
    )
    for table in (budget, impact, access, gate, top):
        table.done()
    return policy


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of policies."""
    names = {"type": "array", "items": {"type": "string", "minLength": 1}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels policy",
        **_object(
            "How to rate risk, and what the gate requires.",
            schema={"const": SCHEMA_VERSION, "description": "Version of this format."},
            name={"type": "string", "description": "Name of the policy in reports."},
            use_case={"type": "string", "description": "The use of the verifier, in a word."},
            budget=_object(
                "Only successes with a perturbation within this budget count.",
                norm={
                    "enum": list(get_args(Norm)),
                    "description": "rms in 1/255; l2 and linf in units of the pixel range.",
                },
                value={"type": "number", "minimum": 1e-6, "maximum": 1e6},
            ),
            impact=_object(
                "Harm of a successful attack, by the attacker's goal.",
                (),
                **{goal: _range(_HIGHEST_IMPACT) for goal in GOALS_WITH_IMPACT},
            ),
            access=_object(
                "Weight of the likelihood, by the access that the attacker needs.",
                (),
                **{key: _range(1) for key in ACCESS},
            ),
            gate=_object(
                "What the gate requires.",
                optional=("attacks", "profiles", "max_fnmr", "max_fmr"),
                fail_at={"enum": list(SEVERITIES), "description": "Findings of at least this severity fail the gate."},
                provable_asr={"type": "number", "minimum": 1e-6, "maximum": 1},
                adaptive={
                    "type": "boolean",
                    "description": "Require adaptive attacks, which know or query the deployed profile.",
                },
                attacks={**names, "description": "Attacks that must have been run."},
                profiles={**names, "description": "The deployed profiles. Empty: every profile with a defense."},
                max_fnmr=_range(1),
                max_fmr=_range(1),
            ),
        ),
    }


def _object(description: str, optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _range(highest: float) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": highest}


def _number(table: Table, key: str, lowest: float, highest: float, default: Any = ...) -> float:
    value: float = table.take(key, float, default)
    if not lowest <= value <= highest:
        raise table.fail(key, f"must be from {lowest:g} to {highest:g}, not {value:g}")
    return value


def _names(table: Table, key: str) -> tuple[str, ...]:
    names = table.take(key, list, [])
    if not all(isinstance(name, str) and name for name in names):
        raise table.fail(key, f"must be a list of names, not {names!r}")
    return tuple(names)
