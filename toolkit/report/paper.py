"""Tables 1 and 2 of the paper, "Six Pixels to Kevin Bacon", next to the results of an audit."""

from __future__ import annotations

from rich.console import Console

from toolkit.audit.plan import Goal
from toolkit.audit.results.assessment import Assessment, ScenarioResult
from toolkit.audit.suites import which_pairs
from toolkit.report.terminal import new_table, whole_percent
from toolkit.statistics.intervals import Rate

# The paper's eligible pairs, genuine and impostor.
_PAIRS = {"dodging": 26, "impersonation": 24}
_GOALS = ("dodging", "impersonation")
# Table 1: successes in percent, for any L2 norm, below 5 and below 1; and the mean L2 norm.
_UNDEFENDED: dict[tuple[str, Goal], tuple[tuple[float, float, float], float | None]] = {
    ("fgsm", "dodging"): ((100, 100, 50), 1.23),
    ("fgsm", "impersonation"): ((79.17, 75, 16.67), 2.41),
    ("deepfool", "dodging"): ((100, 100, 92.31), 0.50),
    ("deepfool", "impersonation"): ((100, 100, 70.83), 0.90),
    ("uniform", "dodging"): ((100, 7.69, 3.84), 33.29),
    ("uniform", "impersonation"): ((0, 0, 0), None),
    ("gaussian", "dodging"): ((100, 7.69, 3.84), 32.79),
    ("gaussian", "impersonation"): ((4.17, 0, 0), 12.91),
}
# Table 2: successes in percent and the mean L2 norm, by profile and knowledge. With zero knowledge, the norm is that of
# the defended probe. The numbers for Noise2Clean are not in the paper, but in a later table by its authors.
_DEFENDED: dict[tuple[str, str], dict[tuple[str, Goal], tuple[float, float | None]]] = {
    ("mean3", "zero"): {
        ("fgsm", "dodging"): (7.69, 2.20), ("fgsm", "impersonation"): (0, 2.38),
        ("deepfool", "dodging"): (7.69, 2.05), ("deepfool", "impersonation"): (0, 1.88),
        ("uniform", "dodging"): (7.69, 11.50), ("uniform", "impersonation"): (0, None),
        ("gaussian", "dodging"): (11.53, 11.34), ("gaussian", "impersonation"): (0, 4.38),
    },
    ("mean3", "perfect"): {
        ("fgsm", "dodging"): (100, 1.40), ("fgsm", "impersonation"): (79.17, 2.48),
        ("deepfool", "dodging"): (100, 0.58), ("deepfool", "impersonation"): (100, 1.05),
        ("uniform", "dodging"): (100, 41.45), ("uniform", "impersonation"): (0, None),
        ("gaussian", "dodging"): (100, 41.58), ("gaussian", "impersonation"): (4.17, 52.52),
    },
    ("n2c", "zero"): {
        ("fgsm", "dodging"): (69.2, None), ("fgsm", "impersonation"): (37.5, None),
        ("deepfool", "dodging"): (34.6, None), ("deepfool", "impersonation"): (20.8, None),
        ("uniform", "dodging"): (3.8, None), ("uniform", "impersonation"): (0, None),
        ("gaussian", "dodging"): (11.5, None), ("gaussian", "impersonation"): (0, None),
    },
}  # fmt: skip
LEGEND = (
    "Ours: successes over eligible pairs in %, with the 95 % Wilson interval. They are those of float probes, because "
    "the paper did not round to 8 bits. Paper: 26 genuine and 24 impostor pairs on another verifier (FaceNet "
    "20180402-114759). It counted clean errors as successes. We computed its intervals. L2: mean norm of successes. L2 "
    "after: the same after the defense. 8 bits: our successes after rounding. Noise is added as in Foolbox 1 and 2: "
    "its standard deviation is epsilon squared."
)


def print_paper_tables(assessment: Assessment, console: Console) -> None:
    """Print both tables, and say whether the audit used the paper's pairs."""
    console.print()
    for title, head, rows in paper_tables(assessment):
        table = new_table(title, console)
        for i, column in enumerate(head):
            table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    a = assessment
    console.print(which_pairs(a.pairs_source, a.genuine + a.impostor + len(a.left_out)), style="bold")
    console.print(LEGEND, style="dim")


PaperTable = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def paper_tables(assessment: Assessment) -> list[PaperTable]:
    """Title, column names and rows of each of the paper's tables for which the audit has results."""
    found: dict[tuple[str, str, str, Goal], ScenarioResult] = {
        (s.profile, s.knowledge, s.attack, s.goal): s for s in assessment.scenarios
    }
    tables = [_table_1(found)]
    for profile, knowledge in (*_DEFENDED, ("n2c", "perfect")):
        if any(key[:2] == (profile, knowledge) for key in found):
            tables.append(_table_2(found, profile, knowledge, _DEFENDED.get((profile, knowledge), {})))
    return tables


def _table_1(found: dict[tuple[str, str, str, Goal], ScenarioResult]) -> PaperTable:
    rows: list[tuple[str, ...]] = []
    for (attack, goal), (rates, norm) in _UNDEFENDED.items():
        s = found.get(("none", "perfect", attack, goal))
        if s is None:
            continue
        ours = [s.asr_float, *(rate for _, rate in s.asr_float_at_l2)]
        theirs = (_published(rates[0], goal), *(f"{rate:.0f}" for rate in rates[1:]), _norm(norm))
        mine = (whole_percent(ours[0]), *(whole_percent(rate, interval=False) for rate in ours[1:]))
        rows.append((attack, _short(goal), *theirs, *mine, _norm(s.mean_l2_float)))
    head = ("attack", "goal", "paper: any", "<5", "<1", "L2", "ours: any", "<5", "<1", "L2")
    return "the paper's table 1: no defense, success % at L2 below", head, rows


def _table_2(
    found: dict[tuple[str, str, str, Goal], ScenarioResult],
    profile: str,
    knowledge: str,
    published: dict[tuple[str, Goal], tuple[float, float | None]],
) -> PaperTable:
    rows: list[tuple[str, ...]] = []
    for attack, goal in _UNDEFENDED:
        s = found.get((profile, knowledge, attack, goal))
        if s is None:
            continue
        rate, their_norm = published.get((attack, goal), (None, None))
        theirs = ("-" if rate is None else _published(rate, goal), _norm(their_norm))
        our_norm = _norm(s.mean_l2_defended if knowledge == "zero" else s.mean_l2_float)
        ours = (whole_percent(s.asr_float), our_norm, whole_percent(s.asr, interval=False))
        rows.append((attack, _short(goal), *theirs, *ours))
    never = "" if published else " (not in the paper)"
    norm = "L2 after" if knowledge == "zero" else "L2"
    head = ("attack", "goal", "paper", norm, "ours", norm, "8 bits")
    return f"the paper's table 2: {profile}, {knowledge} knowledge{never}, success %", head, rows


def _short(goal: str) -> str:
    return {"dodging": "dodge", "impersonation": "imperson."}[goal]


def _published(percent: float, goal: str) -> str:
    """A rate of the paper, with its Wilson interval, which the paper does not give."""
    return whole_percent(Rate(round(percent / 100 * _PAIRS[goal]), _PAIRS[goal]))


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
