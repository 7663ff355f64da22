"""Comparison of runs: models, profiles, quantizations or releases side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from toolkit.audit.results.outcomes import Run
from toolkit.errors import UsageError
from toolkit.risk.paired import differences
from toolkit.risk.policy import Policy, find_policy
from toolkit.risk.rate import rate
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm


@dataclass(frozen=True)
class Cell:
    """One run's rate in one row, compared with the first run.

    Attributes:
        rate: successes within the budget, or clean errors; None if the run does not have the scenario.
        p_value: p value of the difference from the first run, with Holm's correction over all rows. None for the first
            run, and if either rate is missing.
        paired: True for the exact McNemar test on common pairs, False for Fisher's exact test on different pairs.
    """

    rate: Rate | None
    p_value: float | None
    paired: bool


@dataclass(frozen=True)
class Row:
    """One clean error rate or scenario in all runs. `id` is the finding's id, or ``clean/PROFILE/fnmr`` or ``fmr``."""

    id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: their names, verifiers, SHA-256 of the model files, budget in words, and rows."""

    runs: tuple[str, ...]
    targets: tuple[str, ...]
    models: tuple[str, ...]
    budget: str
    rows: tuple[Row, ...]


def compare_runs(runs: Sequence[Run], policy: Policy | str = "access-control") -> Comparison:
    """Compare every run with the first one.

    Args:
        runs: at least two runs.
        policy: a shipped policy's name, a .toml file, or a policy. Only successes within its budget count.

    Raises:
        UsageError: there are fewer than two runs.
        InputError: two profiles of a run have the same name.
    """
    policy = find_policy(policy)
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
