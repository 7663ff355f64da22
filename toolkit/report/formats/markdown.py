"""The Markdown format, for pull requests: verdict and findings, with details folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolkit.audit.results.assessment import Assessment
from toolkit.report.formats.base import Format
from toolkit.report.natural import HEAD as NATURAL_HEAD
from toolkit.report.natural import LEGEND, natural_profiles, natural_rows, natural_words
from toolkit.report.natural import TITLE as NATURAL_TITLE
from toolkit.report.subgroups import HEAD, TITLE, subgroup_rows, subgroup_words
from toolkit.report.terminal import OPTIMALITY_LEGEND, optimality_rows, percent
from toolkit.risk.findings import Finding, Report, WorstCase
from toolkit.risk.headline import certified_in_words
from toolkit.text import LONGEST_SENTENCES, shown

_SHOWN = 10
_ESCAPED = {ord(character): f"&#{ord(character)};" for character in "\\`*_[]<>|#@&"}


def render(report: Report) -> str:
    """Render the report as GitHub-flavored Markdown."""
    a, risk = report.run.assessment, report.risk
    lines = [f"## Sixpixels: {risk.severity.upper()} risk for {_text(a.target.name)}", ""]
    if report.verdict is not None:
        lines += [f"**Gate: {report.verdict.status.upper()}**", ""]
        lines += [f"- {reason.status}: {_text(reason.text)}" for reason in report.verdict.reasons]
        lines += [f"- waived: {_text(reason.text)}" for reason in report.verdict.waived] + [""]
    lines += [_text(risk.headline), "", f"Policy {_text(risk.policy)} ({_text(risk.use_case)}), {risk.budget}.", ""]
    lines += _table(("worst case", "severity", "fell", "upper bound", "not met by"), map(_worst, risk.worst))
    lines += [*(f"- {_text(one)}" for one in certified_in_words(risk.worst, risk.budget)), ""]
    findings = [_row(f) for f in risk.findings]
    head = ("severity", "finding", "within budget", "likelihood", "impact")
    lines += _table(head, findings[:_SHOWN])
    if len(findings) > _SHOWN:
        lines += _folded(f"{len(findings) - _SHOWN} more findings", _table(head, findings[_SHOWN:]))
    untested = [*(f"{u.attack}: {u.reason}" for u in a.unavailable), *a.caveats]
    untested += [f"check failed: {c.name}, {c.about}: {c.detail}" for c in a.checks if not c.passed]
    lines += _folded(f"{len(untested)} limits of this run", [f"- {_text(one)}" for one in untested])
    lines += _optimality(a)
    clean = [(_text(c.profile), percent(c.fnmr), percent(c.fmr)) for c in a.clean]
    lines += _folded("Clean errors, % with 95 % intervals", _table(("profile", "FNMR", "FMR"), clean))
    for profile in natural_profiles(a.natural):
        of_profile = [tuple(map(_text, row)) for row in natural_rows(a.natural, profile)]
        lines += _folded(f"{NATURAL_TITLE}: {_text(profile)}", _table(NATURAL_HEAD, of_profile))
    if a.natural:
        lines += [*(f"- {_text(one)}" for one in [*natural_words(a.natural), LEGEND]), ""]
    if a.subgroups is not None:
        of_groups = [tuple(map(_text, row)) for row in subgroup_rows(a.subgroups)]
        words = [f"- {_text(one)}" for one in subgroup_words(a.subgroups)]
        lines += _folded(TITLE, [*_table(HEAD, of_groups), *words])
    lines += ["Next steps:", ""] + [f"{i}. {_text(step)}" for i, step in enumerate(risk.next_steps, 1)]
    return "\n".join(lines) + "\n"


def _optimality(a: Assessment) -> list[str]:
    if not a.optimality:
        return []
    head = ("attack", "profile", "knows", "norm", *dict.fromkeys(one.goal for one in a.optimality))
    rows = [tuple(map(_text, row)) for row in optimality_rows(a)]
    return _folded("Optimality of the attacks", [*_table(head, rows), OPTIMALITY_LEGEND])


def _worst(case: WorstCase) -> tuple[str, ...]:
    unmet = ", ".join(met.evidence for met in case.unmet)
    fell = f"{case.within.successes}/{case.within.trials}"
    return _text(f"{case.profile}, {case.goal}"), case.severity, fell, f"{100 * case.bound:.1f} %", unmet or "-"


def _row(f: Finding) -> tuple[str, ...]:
    within = f"{f.within.successes}/{f.within.trials}" + (f" ({_text(f.no_evidence)})" if f.no_evidence else "")
    return f.severity, f"<code>{_text(f.id)}</code>", within, f"{f.likelihood:.1f}", f"{f.impact:g}"


def _folded(summary: str, content: Sequence[str]) -> list[str]:
    return [f"<details><summary>{summary}</summary>", "", *content, "", "</details>", ""] if content else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def _text(text: str) -> str:
    """Escape a text, so that it cannot contain markup, mention users or break a table cell."""
    return shown(text, LONGEST_SENTENCES).translate(_ESCAPED)


FORMAT = Format("markdown", "report.md", render)
