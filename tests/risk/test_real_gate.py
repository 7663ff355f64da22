"""Real audits under the shipped policy: a verifier that holds passes, and a broken one does not, however it is audited.

`python -m tests.risk.ways` tries every way; here are those that take a second or two.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.risk.ways import AT_BUDGET, PAGE, STRONG, WAYS, tried
from tests.risk.world import write_people, write_verifier
from toolkit import AuditOptions, audit_verifier, judge_run

# Of these the gate once said pass.
FAST = (
    "gaussian alone, as it comes",
    "momentum alone, as it comes",
    "one step of DeepFool",
    "one pair of each kind, 80 times",
    "labels swapped",
    "a threshold that accepts everybody",
)


def test_a_verifier_that_holds_passes(tmp_path: Path) -> None:
    """The policy is not merely out of reach."""
    options = AuditOptions(
        model=str(write_verifier(tmp_path, broken=False)), pairs=str(write_people(tmp_path / "people", broken=False)),
        limit=124, attacks=STRONG, settings=AT_BUDGET, profiles=("mean3",), knowledge=("zero", "perfect"),
        run=str(tmp_path / "run"), provider="cpu",
    )  # fmt: skip
    found = judge_run(audit_verifier(options))
    assert found.verdict is not None
    assert (found.status, found.verdict.reasons) == ("pass", ())
    assert found.risk.headline.startswith("Nothing fell within the budget")


@pytest.mark.parametrize("name", FAST)
def test_a_broken_one_does_not(tmp_path: Path, name: str) -> None:
    found = tried(next(way for way in WAYS if way.name == name), tmp_path)
    assert found.status in ("fail", "insufficient")
    assert found.risk.severity in ("unknown", "medium", "high", "critical")


def test_the_page_names_every_way_and_none_passes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    told = {row[0].removeprefix("| "): row[1] for row in rows if len(row) > 2}
    assert {told.get(way.name) for way in WAYS} <= {"fail", "insufficient"}
