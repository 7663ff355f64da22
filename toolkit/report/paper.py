"""Tables 1 and 2 of the paper, "Six Pixels to Kevin Bacon", beside an audit's, for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from toolkit.audit.assessment import Assessment, ScenarioResult
from toolkit.audit.plan import Goal
from toolkit.report.terminal import new_table, whole_percent
from toolkit.statistics.intervals import Rate

# The paper's eligible pairs: 26 genuine and 24 impostor ones.
_PAIRS = {"dodging": 26, "impersonation": 24}
_GOALS = ("dodging", "impersonation")
# Successes in percent without a limit and below an L2 norm of 5 and of 1, and the mean L2 norm (table 1).
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
# Successes in percent and a mean L2 norm, by profile and knowledge (table 2; the figures for Noise2Clean are not in the
# paper but in its authors' later table). With zero knowledge the norm is taken after the defense.
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
_LEGEND = (
    "Ours: float probes, because the paper did not round to 8 bits; successes of eligible pairs in %, 95 % Wilson "
    "interval. Paper: 26 genuine and 24 impostor pairs, another verifier (FaceNet 20180402-114759), and clean errors "
    "counted as successes; its intervals are ours. L2: mean over successes, L2 after: of the defended probe. 8 bits: "
    "successes after rounding. Noise is as Foolbox 1 and 2 add it: the deviation is epsilon squared."
)


def print_paper_tables(assessment: Assessment, which_pairs: str, console: Console) -> None:
    """Print both tables, and whose pairs ours are of."""
    found = {(s.profile, s.knowledge, s.attack, s.goal): s for s in assessment.scenarios}
    console.print()
    console.print(_table_1(found, console))
    for profile, knowledge in (*_DEFENDED, ("n2c", "perfect")):
        published = _DEFENDED.get((profile, knowledge), {})
        if any(key[:2] == (profile, knowledge) for key in found):
            console.print(_table_2(found, profile, knowledge, published, console))
    console.print(which_pairs, style="bold")
    console.print(_LEGEND, style="dim")


def _table_1(found: dict[tuple[str, str, str, Goal], ScenarioResult], console: Console) -> Table:
    table = new_table("the paper's table 1: no defense, success % at L2 below", console)
    for column in ("attack", "goal"):
        table.add_column(column, no_wrap=True)
    for column in ("paper: any", "<5", "<1", "L2", "ours: any", "<5", "<1", "L2"):
        table.add_column(column, justify="right", no_wrap=True)
    for (attack, goal), (rates, norm) in _UNDEFENDED.items():
        s = found.get(("none", "perfect", attack, goal))
        if s is None:
            continue
        ours = [s.asr_float, *(rate for _, rate in s.asr_float_at_l2)]
        table.add_row(
            attack,
            _short(goal),
            *(_published(rates[0], goal), *(f"{rate:.0f}" for rate in rates[1:]), _norm(norm)),
            *(whole_percent(ours[0]), *(whole_percent(rate, interval=False) for rate in ours[1:])),
            _norm(s.mean_l2_float),
        )
    return table


def _table_2(
    found: dict[tuple[str, str, str, Goal], ScenarioResult],
    profile: str,
    knowledge: str,
    published: dict[tuple[str, Goal], tuple[float, float | None]],
    console: Console,
) -> Table:
    title = f"{profile}, {knowledge} knowledge"
    never = "" if published else " (the paper could not)"
    table = new_table(f"the paper's table 2: {title}{never}, success %", console)
    for column in ("attack", "goal"):
        table.add_column(column, no_wrap=True)
    norm = "L2 after" if knowledge == "zero" else "L2"
    for column in ("paper", norm, "ours", norm, "8 bits"):
        table.add_column(column, justify="right", no_wrap=True)
    for attack, goal in _UNDEFENDED:
        s = found.get((profile, knowledge, attack, goal))
        if s is None:
            continue
        rate, their_norm = published.get((attack, goal), (None, None))
        table.add_row(
            attack,
            _short(goal),
            "-" if rate is None else _published(rate, goal),
            _norm(their_norm),
            whole_percent(s.asr_float),
            _norm(s.mean_l2_defended if knowledge == "zero" else s.mean_l2_float),
            whole_percent(s.asr, interval=False),
        )
    return table


def _short(goal: str) -> str:
    return {"dodging": "dodge", "impersonation": "imperson."}[goal]


def _published(percent: float, goal: str) -> str:
    """A rate of the paper with the interval that it did not give."""
    return whole_percent(Rate(round(percent / 100 * _PAIRS[goal]), _PAIRS[goal]))


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
