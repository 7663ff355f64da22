"""Ways to make the gate pass a verifier that is broken, each a real audit. None of them does.

`python -m tests.risk.ways` tries them all and writes their table into docs/gate.md.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.risk.world import write_people, write_verifier
from toolkit import AuditOptions, audit_verifier, judge_run
from toolkit.audit.results.outcomes import Run
from toolkit.faces.pairs import load_pairs
from toolkit.registry import discover
from toolkit.risk.findings import Judgement
from toolkit.risk.gate import judge
from toolkit.risk.policy import find_policy
from toolkit.risk.waivers import Waiver

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gate.md"
_START, _END = "<!-- ways -->\n", "<!-- /ways -->"
BUDGET = "2.15/255"
STRONG = ("deepfool", "apgd", "square")
AT_BUDGET = (f"apgd.epsilon={BUDGET}", f"square.epsilon={BUDGET}", "square.budget=1000")
TODAY = dt.date(2030, 5, 17)


@dataclass(frozen=True)
class Way:
    """One way: what is tried, the audit's options, and what else is done to the pairs, the run or the gate."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    pairs: Callable[[Path], Path] | None = None
    baseline: dict[str, Any] | None = None
    waivers: Callable[[Run], Sequence[Waiver]] | None = None
    deployed: tuple[str, ...] = ()


def alone(attack: str, *settings: str, **others: Any) -> dict[str, Any]:
    return {"attacks": (attack,), "settings": settings, **others}


def listed(rows: Callable[[list[tuple[str, str, bool]]], list[tuple[str, str, bool]]]) -> Callable[[Path], Path]:
    """The people's pairs as a CSV file, changed by `rows`."""

    def write(people: Path) -> Path:
        pairs = [(p.probe, p.reference, p.genuine) for p in load_pairs(people).pairs]
        lines = [f"{a},{b},{'same' if genuine else 'different'}" for a, b, genuine in rows(pairs)]
        (people / "pairs.csv").write_text("\n".join(lines) + "\n")
        return people / "pairs.csv"

    return write


def copied(people: Path) -> Path:
    """One pair of each kind, again and again under other names."""
    pairs, rows = load_pairs(people).pairs, []
    for genuine in (True, False):
        pair = next(p for p in pairs if p.genuine is genuine)
        for i in range(80):
            names = [f"copy-{genuine}-{i}-{k}.png" for k in (0, 1)]
            for name, source in zip(names, (pair.probe, pair.reference), strict=True):
                shutil.copy(people / source, people / name)
            rows.append(f"{names[0]},{names[1]},{'same' if genuine else 'different'}")
    (people / "pairs.csv").write_text("\n".join(rows) + "\n")
    return people / "pairs.csv"


def few_people(people: Path) -> Path:
    for folder in sorted(people.iterdir())[4:]:
        shutil.rmtree(folder)
    return people


def everything(run: Run) -> list[Waiver]:
    names = [f.id for f in judge_run(run).risk.findings]
    return [Waiver(name, "me", "accepted", TODAY + dt.timedelta(days=30)) for name in names]


def forever(run: Run) -> list[Waiver]:
    return [replace(waiver, expires=dt.date(2999, 1, 1)) for waiver in everything(run)[:2]]


WAYS = (
    Way("an honest strong audit"),
    *(Way(f"{name} alone, as it comes", alone(name)) for name in sorted(discover("attack"))),
    Way("noise of one level", alone("gaussian", "gaussian.levels=1")),
    Way("one step of PGD", alone("pgd", "pgd.steps=1", f"pgd.epsilon={BUDGET}")),
    Way("PGD with steps of a millionth", alone("pgd", "pgd.step=1e-6", f"pgd.epsilon={BUDGET}")),
    Way("one step of APGD", alone("apgd", "apgd.steps=1", f"apgd.epsilon={BUDGET}")),
    Way("one step of DeepFool", alone("deepfool", "deepfool.steps=1", "deepfool.overshoot=0")),
    Way("FMN with steps of a millionth", alone("fmn", "fmn.step=1e-6")),
    Way("Carlini-Wagner with a reach of a millionth", alone("carlini-wagner", "carlini-wagner.reach=1e-6")),
    Way("ten queries of Square", alone("square", "square.budget=10", f"square.epsilon={BUDGET}")),
    Way("balls of a tenth of the budget", {"settings": ("apgd.epsilon=0.2/255", "square.epsilon=0.2/255",
                                                        "square.budget=1000", "deepfool.steps=1")}),
    Way("balls beyond the budget", {"attacks": ("apgd", "square"), "settings": ("square.budget=1000",)}),
    Way("attackers who do not know the profile, alone", {"knowledge": ("zero",)}),
    Way("one pair of each kind, 80 times", alone("gaussian"), pairs=copied),
    Way("labels swapped", alone("gaussian"), pairs=listed(lambda rows: [(a, b, not same) for a, b, same in rows])),
    Way("genuine pairs alone", alone("gaussian"), pairs=listed(lambda rows: [row for row in rows if row[2]])),
    Way("pairs of four people", alone("gaussian"), pairs=few_people),
    Way("ten pairs", alone("gaussian", limit=10)),
    Way("a group instead of pairs", alone("gaussian", group=3)),
    Way("a threshold that refuses everybody", alone("gaussian", threshold=1e-6)),
    Way("a threshold that accepts everybody", alone("gaussian", threshold=0.059)),
    Way("a profile that was not audited", alone("gaussian"), deployed=("median3",)),
    Way("an attack of the baseline left out", alone("gaussian"), baseline=alone("uniform")),
    Way("a weaker attack than in the baseline", alone("gaussian", "gaussian.levels=1"), baseline=alone("gaussian")),
    Way("a waiver for everything", waivers=everything),
    Way("waivers until the year 2999", waivers=forever),
)  # fmt: skip


def tried(way: Way, folder: Path) -> Judgement:
    """Audit the broken verifier in this way, and judge the run.

    Args:
        way: the way.
        folder: an empty folder.
    """
    model = write_verifier(folder, broken=True)
    people = write_people(folder / "people", broken=True)
    pairs = people if way.pairs is None else way.pairs(people)

    def audited(options: dict[str, Any], name: str) -> Run:
        strong = {"attacks": STRONG, "settings": AT_BUDGET, "knowledge": ("zero", "perfect"), "limit": 160}
        return audit_verifier(
            AuditOptions(
                **{"model": str(model), "pairs": str(pairs), "profiles": ("mean3",), "provider": "cpu"} | strong
                | options | {"run": str(folder / name)}
            )
        )  # fmt: skip

    run = audited(way.options, "run")
    baseline = None if way.baseline is None else audited(way.baseline, "baseline")
    risk = judge_run(run, deployed=way.deployed).risk
    waivers = () if way.waivers is None else way.waivers(run)
    return Judgement(risk, judge(run, risk, find_policy("access-control"), TODAY, waivers, baseline))


def _row(way: Way) -> str:
    with tempfile.TemporaryDirectory() as folder:
        found = tried(way, Path(folder))
    assert found.verdict is not None
    codes = ", ".join(dict.fromkeys(reason.code for reason in found.verdict.reasons))
    return f"| {way.name} | {found.status} | {found.risk.severity} | {codes} |"


def main() -> None:
    lines = ["| way | verdict | risk | reasons |", "| --- | --- | --- | --- |"]
    for way in WAYS:
        lines.append(_row(way))
        sys.stdout.write(lines[-1] + "\n")
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(_START)
    PAGE.write_text(head + _START + "\n".join(lines) + "\n" + rest[rest.index(_END) :], encoding="utf-8")


if __name__ == "__main__":
    main()
