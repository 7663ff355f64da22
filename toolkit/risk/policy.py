"""Policies: what harm weighs, what an attacker needs, and what a gate asks for; all of it in one TOML file."""

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
# Queries up to which a weight holds, and its key.
QUERIES = ((1_000, "queries_1000"), (10_000, "queries_10000"), (float("inf"), "queries_more"))
ACCESS = ("zero", "partial", "perfect", *(key for _, key in QUERIES))
_SHIPPED = Path(__file__).parent / "policies"
_HIGHEST_IMPACT = 9.0


@dataclass(frozen=True)
class Policy:
    """One policy.

    Attributes:
        name: of the policy.
        sha256: of its file.
        use_case: what the verifier is used for, in a word.
        norm, budget: the perturbation within which a success counts; units as in `PairOutcomes`.
        impact: 0 to 9, by goal.
        access: 0 to 1, by what the attacker needs (`ACCESS`).
        fail_at: the severity of a finding that fails the gate.
        provable_asr: pairs are too few where even no success at all could not show an ASR below this.
        adaptive: whether the gate asks for an attack that knows the profile, or asks it.
        attacks: names of attacks that the gate asks for.
        profiles: names of what is deployed; empty for every profile of a run that has a defense.
        max_fnmr, max_fmr: the largest clean error rates.
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
    """The policies that come with the toolkit, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}


def find_policy(name: str) -> Policy:
    """A shipped policy by its name, or a file that ends in .toml.

    Raises:
        UsageError: there is none of that name.
        InputError: the file cannot be used.
    """
    if name.endswith(".toml"):
        return read_policy(Path(name))
    shipped = shipped_policies()
    if name not in shipped:
        raise UsageError(unknown("policy", name, shipped))
    return read_policy(shipped[name])


def read_policy(path: Path) -> Policy:
    """Read a policy; every mistake is named with its place.

    Raises:
        InputError: the file cannot be read, or something in it is not as the schema says.
    """
    top = read_table(path, SCHEMA_VERSION)
    name, use_case = top.take("name", str), top.take("use_case", str)
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
            "What harm weighs, what an attacker needs, and what the gate asks for.",
            schema={"const": SCHEMA_VERSION, "description": "Version of this format."},
            name={"type": "string", "description": "By which reports call the policy."},
            use_case={"type": "string", "description": "What the verifier is used for, in a word."},
            budget=_object(
                "The perturbation within which a success counts.",
                norm={"enum": list(get_args(Norm)), "description": "rms in 1/255; l2 and linf in the pixel range."},
                value={"type": "number", "minimum": 1e-6, "maximum": 1e6},
            ),
            impact=_object(
                "Harm of a success by the attacker's goal.",
                (),
                **{goal: _range(_HIGHEST_IMPACT) for goal in GOALS_WITH_IMPACT},
            ),
            access=_object(
                "What of the likelihood is left, by what the attacker must have.",
                (),
                **{key: _range(1) for key in ACCESS},
            ),
            gate=_object(
                "What the gate asks for.",
                optional=("attacks", "profiles", "max_fnmr", "max_fmr"),
                fail_at={"enum": list(SEVERITIES), "description": "The severity of a finding that fails."},
                provable_asr={"type": "number", "minimum": 1e-6, "maximum": 1},
                adaptive={"type": "boolean", "description": "Each profile was met by an attack that knows or asks it."},
                attacks={**names, "description": "Attacks that must have been run."},
                profiles={**names, "description": "What is deployed; empty for every profile with a defense."},
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
