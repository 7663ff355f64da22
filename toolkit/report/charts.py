"""Charts of the HTML report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from toolkit.audit.plan import ADAPTIVE
from toolkit.audit.results.outcomes import PairOutcomes, Run
from toolkit.pixels import Bools
from toolkit.report.svg import Axis, Line, Values, axis, chart
from toolkit.risk.worst import goal_pairs
from toolkit.statistics.intervals import Rate

_PERCENT = axis("success, %", 100.0)
_POINTS = 60
# Error rates with a tick on the axes of a DET.
_RATES = (0.001, 0.01, 0.05, 0.2, 0.5)
_SMALLEST_RATE, _LARGEST_RATE = 1e-4, 0.6


def success_against(run: Run, goal: str, profile: str, norm: str, label: str) -> str | None:
    """Chart success against the size of the perturbation, for attacks that know or query a profile.

    None without a success.
    """
    pairs = goal_pairs(run, goal)
    chosen = [o for o in run.outcomes if o.profile == profile and o.knowledge in ADAPTIVE]
    sizes = [getattr(o, norm)[o.success & pairs] for o in chosen]
    found = np.concatenate([np.zeros(0), *sizes])
    if not len(found):
        return None
    # Noise is much larger than gradient perturbations, so only a logarithmic axis shows both.
    low, high = max(float(found.min()) / 2, 1e-3), float(found.max())
    steps = np.geomspace(low, max(high, 2 * low), _POINTS)
    lines = [_rising(o, pairs & o.eligible, getattr(o, norm), steps, np.log10(steps)) for o in chosen]
    return chart(lines, _decades(label, low, steps[-1]), _PERCENT, f"{goal} through {profile}: success against {label}")


def success_against_queries(run: Run, goal: str, profile: str) -> str | None:
    """Chart success against the number of queries, for attacks that query a profile; None without such attacks."""
    pairs = goal_pairs(run, goal)
    chosen = [o for o in run.outcomes if o.profile == profile and o.knowledge == "query"]
    most = max((int(o.queries.max(initial=0)) for o in chosen), default=0)
    if not most:
        return None
    steps = np.linspace(0, most, _POINTS)
    lines = [_rising(o, pairs & o.eligible, o.queries.astype(np.float64), steps, steps) for o in chosen]
    return chart(lines, axis("queries", float(most)), _PERCENT, f"{goal} through {profile}: success against queries")


def norms(run: Run, goal: str) -> str | None:
    """Chart the distributions of L2 norms of successful probes by adaptive attacks (figure 5 of the paper)."""
    lines = []
    for o in run.outcomes:
        found = np.sort(o.l2[o.success & goal_pairs(run, goal)])
        if o.knowledge in ADAPTIVE and len(found):
            share = np.arange(1, len(found) + 1) * 100 / len(found)
            lines.append(
                Line(f"{o.attack} through {o.profile} (n {len(found)})", np.log10(np.maximum(found, 1e-3)), share)
            )
    if not lines:
        return None
    low, high = (float(10 ** f([f(line.x) for line in lines])) for f in (np.min, np.max))
    return chart(
        lines, _decades("L2 norm", low, max(high, 2 * low)), axis("share of successes, %", 100.0), f"norms, {goal}"
    )


def det(run: Run) -> str | None:
    """Chart the detection error tradeoff of the clean pairs on normal-deviate axes; None if there are too few pairs."""
    lines = [
        Line(name, stats.norm.ppf(fmr), *(stats.norm.ppf(np.clip(rates, _SMALLEST_RATE, None)) for rates in fnmr_band))
        for name, fmr, *fnmr_band in _bands(run)
    ]
    return chart(lines, _deviates("FMR, %"), _deviates("FNMR, %"), "DET of the clean pairs") if lines else None


def roc(run: Run) -> str | None:
    """Chart the ROC of the clean pairs: accepted genuine pairs against FMR on a logarithmic axis."""
    bands = _bands(run)
    lines = [
        Line(name, np.log10(100 * fmr), *(100 * (1 - rates) for rates in (fnmr, high, low)))
        for name, fmr, fnmr, low, high in bands
    ]
    if not lines:
        return None
    across = _decades("FMR, %", 100 * min(float(fmr[0]) for _, fmr, *_ in bands), 50.0)
    return chart(lines, across, axis("accepted genuine pairs, %", 100.0), "ROC of the clean pairs")


def _bands(run: Run) -> list[tuple[str, Values, Values, Values, Values]]:
    """For each profile: name, FMR, FNMR, and the low and high ends of its band."""
    dets = [(c.profile, c.det) for c in run.assessment.clean if c.det is not None]
    return [(name, np.array(d.fmr), np.array(d.fnmr), np.array(d.low), np.array(d.high)) for name, d in dets]


def pareto(run: Run, profiles: Sequence[tuple[str, float]]) -> str:
    """Chart each profile's clean FNMR against the upper bound of the strongest attack that knows or queries it."""
    fnmr = {c.profile: c.fnmr.value or 0.0 for c in run.assessment.clean}
    lines = [Line(name, np.array([100 * fnmr[name]]), np.array([100 * bound])) for name, bound in profiles]
    most = max((100 * fnmr[name] for name, _ in profiles), default=0.0)
    return chart(lines, axis("clean FNMR, %", max(1.2 * most, 5.0)), _PERCENT, "profiles: cost and robustness")


def _rising(o: PairOutcomes, of: Bools, sizes: Values, steps: Values, x: Values) -> Line:
    success, total = o.success & of, int(of.sum())
    rates = [Rate(int((success & (sizes <= step)).sum()), total) for step in steps]
    intervals = np.array([rate.wilson() for rate in rates]) * 100
    y = np.array([100 * (rate.value or 0.0) for rate in rates])
    return Line(f"{o.attack} ({o.knowledge}, n {total})", x, y, intervals[:, 0], intervals[:, 1])


def _decades(label: str, low: float, high: float) -> Axis:
    start, end = np.log10(low), np.log10(high)
    marks = [m * 10.0**p for p in range(int(np.floor(start)), int(np.ceil(end)) + 1) for m in (1, 2, 5)]
    inside = [m for m in marks if low <= m <= high]
    return Axis(label, float(start), float(end), tuple((float(np.log10(m)), f"{m:g}") for m in inside))


def _deviates(label: str) -> Axis:
    ticks = tuple((float(stats.norm.ppf(rate)), f"{100 * rate:g}") for rate in _RATES)
    return Axis(label, ticks[0][0], float(stats.norm.ppf(_LARGEST_RATE)), ticks)
