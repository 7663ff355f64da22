"""Terminal report of an audit, for 80 columns, with or without color."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolkit.audit.replaying.sanity import Check
from toolkit.audit.results.assessment import Aim, Assessment, ScenarioResult
from toolkit.report.certificates import print_certificates
from toolkit.report.natural import print_natural
from toolkit.report.subgroups import print_subgroups
from toolkit.report.terminal import (
    LEFT_OUT_SHOWN,
    OPTIMALITY_LEGEND,
    bullet,
    by_people,
    counted,
    facts_table,
    heading,
    hit_percent,
    knows,
    new_table,
    norm,
    optimality_rows,
    rule,
    short_hash,
    whole_percent,
)

_ALARMING = 0.5
_LEGEND = (
    "n: eligible pairs, which the target decided correctly before the attack; other pairs do not count. crafted: pairs "
    "that the attack flips on the attacker's own model. ASR: attack success rate, that is successes of 8-bit probes on "
    "the target over n, with the 95 % Wilson interval. float: ASR before rounding to 8 bits. RMS: median of the "
    "successes, in 1/255. knows: what the attacker knows. zero: only the bare verifier; perfect: this profile; query: "
    "this profile, only by queries; a name: that profile instead. probe: where it lies. near: on the boundary of what "
    "the attacker knows, so that any other profile may undo it; ball: anywhere in a ball; far: as far as a ball "
    "allows, as an attacker who does not know the profile would go; noise; worn."
)
_QUERY_LEGEND = (
    "Share of eligible pairs on which the attack succeeded and ended within this many queries, including those for "
    "rounding to 8 bits. An attack that improves its probe after the first success uses its whole budget."
)
_TRIES_LEGEND = (
    "Share of eligible pairs on which the same probe succeeds at least once in this many presentations, each with a "
    "new draw: estimated without bias from {presented} presentations, with 95 % intervals."
)
_DETECTION_LEGEND = (
    "deployed: detected at the profile's threshold. FA: detected at the threshold with this false alarm rate on the "
    "run's clean crops, a point estimate (-: too few crops). Flagged probes do not count as successes. Pairs with a "
    "flagged clean probe are not eligible."
)
_METRICS = {
    "squared-euclidean": "squared L2",
    "euclidean": "L2",
    "cosine": "cosine distance",
    "service": "distance of the service",
}


def print_assessment(assessment: Assessment, console: Console, files: list[Path]) -> None:
    """Print the results of an audit, and the files that it wrote. `print_overall` prints the risk."""
    a = assessment
    console.print()
    rule(console, f"sixpixels audit   run {a.run}   seed {a.seed}")
    console.print(_facts(a))
    console.print()
    console.print(_clean_table(a, console))
    aims = {attack.name: attack.aim for attack in a.declared}
    for goal in dict.fromkeys(s.goal for s in a.scenarios):
        console.print(_attack_table([s for s in a.scenarios if s.goal == goal], aims, console))
    if a.scenarios:
        console.print(_LEGEND, style="dim")
    _print_queries(a.scenarios, console)
    _print_tries(a.scenarios, console)
    _print_optimality(a, console)
    _print_checks(a.checks, console)
    _print_detection(a, console)
    print_certificates(a, console)
    print_natural(a.natural, console)
    print_subgroups(a.subgroups, console)
    if a.caveats:
        heading(console, "caveats")
        for caveat in a.caveats:
            bullet(console, caveat)
    if a.left_out:
        heading(console, "left out")
        for reason in a.left_out[:LEFT_OUT_SHOWN]:
            bullet(console, reason)
        if len(a.left_out) > LEFT_OUT_SHOWN:
            bullet(console, f"and {len(a.left_out) - LEFT_OUT_SHOWN} more; report.json lists all")
    heading(console, "files")
    for path in files:
        bullet(console, str(path))


def _facts(a: Assessment) -> Table:
    """What was audited, on what, and how it decides."""
    target = a.target
    facts = facts_table()
    if a.service is None:
        facts.add_row("target", f"{target.name}   {target.model}   sha256 {short_hash(target.model_sha256)}")
        facts.add_row(
            "runs on", f"{target.provider} ({target.provider_requested} requested), ONNX Runtime {target.onnxruntime}"
        )
    else:
        facts.add_row("target", f"{target.name}   {a.service.address}")
        facts.add_row("answers", f"{a.service.answers}, to {a.service.requests:,} different requests")
        if a.service.sources:
            facts.add_row("transfer from", ", ".join(a.service.sources))
    facts.add_row("decision", f"same if {_METRICS[target.metric]} < {target.threshold:g}")
    facts.add_row("pairs", _what_pairs(a))
    if a.parity is not None:
        facts.add_row(
            "parity",
            f"ONNX Runtime vs TensorFlow {target.tensorflow or ''} (gradients from {target.gradients_from}): "
            f"largest embedding difference "
            f"{a.parity.largest_embedding_difference:.1e}, flipped decisions {a.parity.flips}/{a.parity.pairs}",
        )
    return facts


def _what_pairs(a: Assessment) -> str:
    kinds = f"{a.genuine} genuine, {a.impostor} impostor"
    if a.group is not None:
        kinds = f"{a.impostor} probes of strangers against each of {a.group} enrolled people"
    return f"{kinds}, {len(a.left_out)} left out   {a.pairs_source}"


def _print_queries(scenarios: Sequence[ScenarioResult], console: Console) -> None:
    """Print success against the number of queries, for attacks with a budget."""
    curves = [s for s in scenarios if s.asr_at_queries]
    if not curves:
        return
    counts = sorted({count for s in curves for count, _ in s.asr_at_queries})
    table = new_table("success % within this many queries", console)
    for column in ("attack", "profile", "knows", "goal"):
        table.add_column(column, no_wrap=True)
    for count in counts:
        table.add_column(str(count), justify="right", no_wrap=True)
    for s in curves:
        within = dict(s.asr_at_queries)
        cells = [whole_percent(within[c], interval=False) if c in within else "" for c in counts]
        goal = "dodge" if s.goal == "dodging" else "imp."
        table.add_row(s.attack, s.profile, knows(s), goal, *cells)
    console.print(table)
    console.print(_QUERY_LEGEND, style="dim")


def _print_tries(scenarios: Sequence[ScenarioResult], console: Console) -> None:
    """Print success against the number of tries, for random profiles."""
    random = [s for s in scenarios if s.hit_at]
    if not random:
        return
    table = new_table("random profiles: success % within this many tries", console)
    # Names may take two lines; numbers may not.
    for column in ("attack", "profile"):
        table.add_column(column, overflow="fold")
    for column in ("knows", "goal"):
        table.add_column(column, no_wrap=True)
    for one in random[0].hit_at:
        table.add_column(str(one.tries), justify="right", no_wrap=True)
    for s in random:
        goal = "dodge" if s.goal == "dodging" else "imp."
        # Without spaces, three intervals fit beside the longest names that are shipped.
        table.add_row(s.attack, s.profile, knows(s), goal, *(hit_percent(h).replace(" ", "") for h in s.hit_at))
    console.print(table)
    console.print(_TRIES_LEGEND.format(presented=random[0].presented), style="dim")


def _print_optimality(a: Assessment, console: Console) -> None:
    if not a.optimality:
        return
    goals = list(dict.fromkeys(one.goal for one in a.optimality))
    table = new_table("optimality: how near each attack comes to the best of the run", console)
    for column in ("attack", "profile", "knows", "norm"):
        table.add_column(column, no_wrap=True)
    for goal in goals:
        table.add_column(goal.replace("impersonation", "imperson."), justify="right", no_wrap=True)
    for row in optimality_rows(a):
        table.add_row(*row)
    console.print(table)
    console.print(OPTIMALITY_LEGEND, style="dim")


def _print_checks(checks: Sequence[Check], console: Console) -> None:
    """Print failed checks in full, and the number of passed checks."""
    if not checks:
        return
    passed = Counter(check.name for check in checks if check.passed)
    heading(console, "sanity checks")
    bullet(console, "passed: " + (", ".join(f"{name} {count}" for name, count in passed.items()) or "none"))
    for check in checks:
        if not check.passed:
            bullet(console, f"FAILED: {check.name}, {check.about}: {check.detail}")


def _print_detection(a: Assessment, console: Console) -> None:
    if not a.detection:
        return
    facts = facts_table()
    for c in a.clean:
        if c.false_alarm is not None:
            facts.add_row("false alarms %", f"{c.profile}   {counted(c.false_alarm)} of the distinct clean crops")
    console.print()
    console.print(facts)
    table = new_table("detected % of the probes that reach the goal", console)
    for column in ("attack", "profile", "knows", "goal"):
        table.add_column(column, no_wrap=True)
    for column in ("n", "deployed", *(f"{100 * p.false_alarm:g} % FA" for p in a.detection[0].points)):
        table.add_column(column, justify="right", no_wrap=True)
    for d in a.detection:
        points = ["-" if p.detected is None else whole_percent(p.detected, interval=False) for p in d.points]
        deployed = whole_percent(d.deployed)
        table.add_row(d.attack, d.profile, knows(d), d.goal, str(d.deployed.trials), deployed, *points)
    console.print(table)
    console.print(_DETECTION_LEGEND, style="dim")


def _clean_table(a: Assessment, console: Console) -> Table:
    table = new_table("clean error, 95 % interval", console)
    for column in ("profile", "FNMR %", "FMR %", "EER %"):
        table.add_column(column, justify="left" if column == "profile" else "right")
    for c in a.clean:
        rates = ((c.fnmr, c.fnmr_people), (c.fmr, c.fmr_people))
        cells = (Text(counted(r) + ("" if people is None else f"\n{by_people(people)}")) for r, people in rates)
        table.add_row(c.profile, *cells, "-" if c.eer is None else f"{100 * c.eer:.1f}")
    return table


def _attack_table(scenarios: list[ScenarioResult], aims: Mapping[str, Aim], console: Console) -> Table:
    table = new_table(f"attack success: {scenarios[0].goal}", console)
    for column in ("attack", "probe", "profile", "knows"):
        table.add_column(column, no_wrap=True)
    for column in ("n", "crafted", "ASR % [95 %]", "float", "RMS"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = ""
    for s in scenarios:
        table.add_row(
            *((s.attack, aims[s.attack]) if s.attack != previous else ("", "")),
            s.profile,
            knows(s) if s.profile != "none" else "",
            str(s.eligible),
            str(s.crafted),
            whole_percent(s.asr),
            "-" if s.asr_float.value is None else f"{100 * s.asr_float.value:.0f}",
            norm(s.median_rms),
            style="bold" if s.asr.value and s.asr.value >= _ALARMING else None,
        )
        previous = s.attack
    return table
