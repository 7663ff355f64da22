"""Runs side by side: models, profiles, quantizations or releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from toolkit.audit.outcomes import Run
from toolkit.errors import UsageError
from toolkit.risk.paired import differences
from toolkit.risk.policy import Policy
from toolkit.risk.rate import rate
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm


@dataclass(frozen=True)
class Cell:
    """One run's rate in one row, beside the first run's.

    Attributes:
        rate: successes within the budget, or clean errors; None where the run has no such scenario.
        p_value: that it is the same as the first run's, by Holm over all that is compared; None for the first run and
            where one of the two is missing.
        paired: whether by exact McNemar on the common pairs, or by Fisher's exact test on different ones.
    """

    rate: Rate | None
    p_value: float | None
    paired: bool


@dataclass(frozen=True)
class Row:
    """One clean error or scenario, by the id of its finding, in every run."""

    id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; `targets` are the verifiers, `models` the hashes of their files."""

    runs: tuple[str, ...]
    targets: tuple[str, ...]
    models: tuple[str, ...]
    budget: str
    rows: tuple[Row, ...]


def compare(runs: Sequence[Run], policy: Policy) -> Comparison:
    """Compare every run with the first one.

    Raises:
        UsageError: there are fewer than two runs.
        InputError: a run's profiles cannot be told apart.
    """
    if len(runs) < 2:
        raise UsageError("give at least two runs to compare")
    rates = [_rates(run, policy) for run in runs]
    ids = list(dict.fromkeys(name for of_run in rates for name in of_run))
    first, columns = rates[0], [{name: Cell(found, None, False) for name, found in rates[0].items()}]
    for run, mine in zip(runs[1:], rates[1:], strict=True):
        paired = {d.id: d.p_value for d in differences(runs[0], run, policy) if d.pairs}
        both = [name for name in ids if name in first and name in mine]
        p_values = [paired[name] if name in paired else _fisher(first[name], mine[name]) for name in both]
        adjusted = dict(zip(both, holm(p_values), strict=True))
        columns.append(
            {n: Cell(r, float(adjusted[n]) if n in adjusted else None, n in paired) for n, r in mine.items()}
        )
    missing = Cell(None, None, False)
    return Comparison(
        runs=tuple(run.assessment.run for run in runs),
        targets=tuple(run.assessment.target.name for run in runs),
        models=tuple(run.assessment.target.model_sha256 for run in runs),
        budget=policy.within,
        rows=tuple(Row(name, tuple(column.get(name, missing) for column in columns)) for name in ids),
    )


def _rates(run: Run, policy: Policy) -> dict[str, Rate]:
    clean = {
        f"clean/{c.profile}/{kind}": error
        for c in run.assessment.clean
        for kind, error in (("fnmr", c.fnmr), ("fmr", c.fmr))
    }
    order = {(s.attack, s.known, s.profile, s.goal): i for i, s in enumerate(run.assessment.scenarios)}
    findings = rate(run, policy).findings
    return clean | {f.id: f.within for f in sorted(findings, key=lambda f: order[f.attack, f.known, f.profile, f.goal])}


def _fisher(first: Rate, second: Rate) -> float:
    table = [[r.successes, r.trials - r.successes] for r in (first, second)]
    return float(np.clip(stats.fisher_exact(table)[1], 0, 1))
