"""Policies: TOML files that say what a verdict must show, and how harm and access are rated."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from toolkit.audit.options import AuditOptions
from toolkit.audit.plan import Goal, Knowledge
from toolkit.audit.replaying.replay import PRESENTATIONS
from toolkit.errors import UsageError
from toolkit.files import sha256
from toolkit.registry import unknown
from toolkit.tables import Table, read_table

SCHEMA_VERSION = 2
Norm = Literal["rms", "l2", "linf"]
# The kinds of evidence: see `toolkit.risk.evidence`.
EvidenceClass = Literal["minimal", "budgeted", "query", "noise", "transfer", "worn"]
GOALS_OF_POLICY: tuple[Goal, ...] = get_args(Goal)
# Weights by number of queries: the largest number, and the key of the weight.
QUERIES = ((1_000, "queries_1000"), (10_000, "queries_10000"), (float("inf"), "queries_more"))
ACCESS = ("zero", "partial", "perfect", *(key for _, key in QUERIES))
# The levels of access from the easiest to the hardest. A harder access never weighs more.
_CHAINS = (("zero", "partial", "perfect"), tuple(key for _, key in QUERIES))
# With at least this weight and this harm, an attack that succeeds on every pair is rated at least high.
LEAST_ACCESS, LEAST_IMPACT, HIGHEST_IMPACT = 2 / 3, 3.0, 9.0
_LARGEST_COUNT, _MOST_DAYS, _MOST_WAIVERS = 10**9, 3660, 1000
_SHIPPED = Path(__file__).parent / "policies"


@dataclass(frozen=True)
class Required:
    """What a verdict must show for one goal of the attacker.

    Attributes:
        impact: harm of a success, 3 to 9.
        max_asr: the largest upper bound of the share of pairs that fall to any attack within the budget.
        pairs: the fewest distinct eligible pairs.
        people: the fewest people in these pairs.
        evidence: the classes of attacks that must have met each deployed profile.
    """

    impact: float
    max_asr: float
    pairs: int
    people: int
    evidence: tuple[EvidenceClass, ...]


@dataclass(frozen=True)
class Strength:
    """The weakest attacks that are evidence.

    Attributes:
        steps: iterations of an attack by gradients.
        restarts: its starts, if it has a ball.
        queries: queries of an attack by queries.
        draws: noisy images.
        fill: the share of the budget that the ball of an attack must fill.
    """

    steps: int
    restarts: int
    queries: int
    draws: int
    fill: float


@dataclass(frozen=True)
class Policy:
    """One policy.

    Attributes:
        name: name of the policy.
        sha256: SHA-256 of its file.
        use_case: the use of the verifier, in a word.
        norm, budget: only successes with a perturbation within this budget count; units as in `PairOutcomes`.
        goals: what must be shown, by the goals that count.
        access: weight of the likelihood, 2/3 to 1, by the access that the attacker needs (`ACCESS`).
        strength: the weakest attacks that are evidence.
        knowledge: the levels of knowledge whose successes count.
        tries: how often an attacker may present the same probe to a random profile.
        attacks: names of the attacks that the gate requires.
        profiles: names of the deployed profiles. Empty: all profiles of a run that have a defense.
        max_fnmr, max_fmr: the largest upper bounds of the clean error rates, 0 to 1.
        generated_faces: whether the embedded faces, which are not real people, are enough.
        waiver_days: the longest time that a waiver holds.
        waivers: the most waivers that hold at once.
        regression: the smallest share of newly fallen pairs that a comparison with a baseline must be able to show.
        power: the probability with which it must show it.
    """

    name: str
    sha256: str
    use_case: str
    norm: Norm
    budget: float
    goals: dict[Goal, Required]
    access: dict[str, float]
    strength: Strength
    knowledge: tuple[Knowledge, ...]
    tries: int
    attacks: tuple[str, ...]
    profiles: tuple[str, ...]
    max_fnmr: float
    max_fmr: float
    generated_faces: bool
    waiver_days: int
    waivers: int
    regression: float
    power: float

    @property
    def within(self) -> str:
        """The budget in words."""
        return f"RMS <= {self.budget:g}/255" if self.norm == "rms" else f"{self.norm.capitalize()} <= {self.budget:g}"

    def required(self, goal: Goal) -> Required:
        """What must be shown for a goal. A goal that does not count has the smallest harm."""
        return self.goals.get(goal, Required(LEAST_IMPACT, 0.1, 1, 1, ()))


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
    keys = ("budget", "goals", "access", "strength", "gate", "waivers", "regression")
    budget, goals, access, strength, gate, waivers, regression = tables = [top.table(key) for key in keys]
    policy = Policy(
        name=name,
        sha256=sha256(path),
        use_case=use_case,
        norm=budget.choice("norm", Norm),
        budget=_number(budget, "value", 1e-6, 1e6),
        goals={goal: _required(goals.table(goal), goal) for goal in GOALS_OF_POLICY if goal in goals.rest},
        access=_access(access),
        strength=Strength(
            steps=_count(strength, "steps"),
            restarts=_count(strength, "restarts"),
            queries=_count(strength, "queries"),
            draws=_count(strength, "draws"),
            fill=_number(strength, "fill", 0.5, 1),
        ),
        knowledge=_choices(gate, "knowledge", get_args(Knowledge)),
        tries=_count(gate, "tries", PRESENTATIONS) if "tries" in gate.rest else PRESENTATIONS,
        attacks=_names(gate, "attacks"),
        profiles=_names(gate, "profiles"),
        max_fnmr=_number(gate, "max_fnmr", 0, 1),
        max_fmr=_number(gate, "max_fmr", 0, 1),
        generated_faces=gate.take("generated_faces", bool, False),
        waiver_days=_count(waivers, "days", _MOST_DAYS),
        waivers=_count(waivers, "most", _MOST_WAIVERS, lowest=0),
        regression=_number(regression, "smallest", 1e-6, 1),
        power=_number(regression, "power", 0.5, 0.999),
    )
    if not policy.goals:
        raise top.fail("goals", f"must have a table for at least one of {', '.join(GOALS_OF_POLICY)}")
    for table in (*tables, top):
        table.done()
    return policy


def _required(table: Table, goal: str) -> Required:
    table.name = f"goals.{goal}"
    required = Required(
        impact=_number(table, "impact", LEAST_IMPACT, HIGHEST_IMPACT),
        max_asr=_number(table, "max_asr", 1e-6, 1),
        pairs=_count(table, "pairs"),
        people=_count(table, "people"),
        evidence=_choices(table, "evidence", get_args(EvidenceClass)),
    )
    table.done()
    return required


def _access(table: Table) -> dict[str, float]:
    weights = {key: _number(table, key, LEAST_ACCESS, 1) for key in ACCESS}
    for chain in _CHAINS:
        for easier, harder in itertools.pairwise(chain):
            if weights[harder] > weights[easier]:
                raise table.fail(harder, f"must not weigh more than {easier}, because it is harder to have")
    return weights


def at_budget(options: AuditOptions, policy: Policy) -> AuditOptions:
    """Give the suite's attacks the policy's budget, unless the options name one or it is no RMS."""
    return replace(options, budget=policy.budget) if options.budget is None and policy.norm == "rms" else options


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of policies."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sixpixels policy",
        **_object(
            "What a verdict must show, and how harm and access are rated.",
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
            goals=_object(
                "What a verdict must show, by the attacker's goal. A goal without a table does not count.",
                GOALS_OF_POLICY,
                **{goal: _required_schema() for goal in GOALS_OF_POLICY},
            )
            | {"minProperties": 1},
            access=_object(
                "Weight of the likelihood, by the access that the attacker needs.",
                (),
                **{key: _range(1, LEAST_ACCESS) for key in ACCESS},
            ),
            strength=_object(
                "The weakest attacks that are evidence.",
                steps=_whole("Iterations of an attack by gradients."),
                restarts=_whole("Starts of an attack by gradients in a ball."),
                queries=_whole("Queries per pair."),
                draws=_whole("Noisy images per pair."),
                fill=_range(1, 0.5, "The share of the budget that the ball of an attack must fill."),
            ),
            gate=_gate_schema(),
            waivers=_object(
                "Findings that somebody accepts.",
                days=_whole("The longest time that a waiver holds.", _MOST_DAYS),
                most=_whole("The most waivers that hold at once.", _MOST_WAIVERS, 0),
            ),
            regression=_object(
                "The comparison with a baseline.",
                smallest=_range(1, 1e-6, "The smallest share of newly fallen pairs that it must be able to show."),
                power=_range(0.999, 0.5, "The probability with which it must show it."),
            ),
        ),
    }


def _gate_schema() -> dict[str, Any]:
    return _object(
        "What the gate requires.",
        optional=("tries", "attacks", "profiles", "generated_faces"),
        knowledge=_list(get_args(Knowledge), "Levels of knowledge whose successes count."),
        tries=_whole(
            "How often an attacker may present the same probe to a random profile before the account locks. "
            f"Default: {PRESENTATIONS}.",
            PRESENTATIONS,
        ),
        attacks=_list(None, "Attacks that must have been run."),
        profiles=_list(None, "The deployed profiles. Empty: every profile with a defense."),
        max_fnmr=_range(1, 0, "The largest upper bound of the clean FNMR."),
        max_fmr=_range(1, 0, "The largest upper bound of the clean FMR."),
        generated_faces={
            "type": "boolean",
            "description": "Whether the embedded faces, which are not real people, are enough.",
        },
    )


def _required_schema() -> dict[str, Any]:
    return _object(
        "What a verdict must show for this goal.",
        impact=_range(HIGHEST_IMPACT, LEAST_IMPACT, "Harm of a success."),
        max_asr=_range(1, 1e-6, "The largest upper bound of the share of pairs that fall to any attack."),
        pairs=_whole("The fewest distinct eligible pairs."),
        people=_whole("The fewest people in these pairs."),
        evidence=_list(get_args(EvidenceClass), "Classes of attacks that must have met each deployed profile."),
    )


def _object(description: str, optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _range(highest: float, lowest: float, description: str = "") -> dict[str, Any]:
    return {"type": "number", "minimum": lowest, "maximum": highest, "description": description}


def _whole(description: str, highest: int = _LARGEST_COUNT, lowest: int = 1) -> dict[str, Any]:
    return {"type": "integer", "minimum": lowest, "maximum": highest, "description": description}


def _list(allowed: tuple[str, ...] | None, description: str) -> dict[str, Any]:
    if allowed is None:
        return {"type": "array", "items": {"type": "string", "minLength": 1}, "description": description}
    return {"type": "array", "items": {"enum": list(allowed)}, "minItems": 1, "description": description}


def _number(table: Table, key: str, lowest: float, highest: float) -> float:
    value: float = table.take(key, float)
    if not lowest <= value <= highest:
        raise table.fail(key, f"must be from {lowest:g} to {highest:g}, not {value:g}")
    return value


def _count(table: Table, key: str, highest: int = _LARGEST_COUNT, lowest: int = 1) -> int:
    value: int = table.take(key, int)
    if not lowest <= value <= highest:
        raise table.fail(key, f"must be from {lowest} to {highest}, not {value}")
    return value


def _names(table: Table, key: str) -> tuple[str, ...]:
    names = table.take(key, list, [])
    if not all(isinstance(name, str) and name for name in names):
        raise table.fail(key, f"must be a list of names, not {names!r}")
    return tuple(names)


def _choices(table: Table, key: str, allowed: tuple[str, ...]) -> Any:
    names = table.take(key, list)
    if not names or any(name not in allowed for name in names):
        raise table.fail(key, f"must be a list of {', '.join(allowed)}, not {names!r}")
    return tuple(dict.fromkeys(names))
