"""The HTML format: one self-contained file without scripts or requests, for phones, print, light and dark mode."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from importlib.resources import files

from toolkit import __version__
from toolkit.audit.results.assessment import Aim, Assessment, ScenarioResult
from toolkit.report import charts
from toolkit.report.certificates import certified_verifiers, noise_of
from toolkit.report.formats.base import Format
from toolkit.report.natural import HEAD as NATURAL_HEAD
from toolkit.report.natural import LEGEND, natural_profiles, natural_rows, natural_words
from toolkit.report.natural import TITLE as NATURAL_TITLE
from toolkit.report.paper import paper_tables
from toolkit.report.subgroups import HEAD, TITLE, subgroup_rows, subgroup_words
from toolkit.report.terminal import OPTIMALITY_LEGEND, hit_percent, knows, optimality_rows, percent, whole_percent
from toolkit.risk.findings import Finding, Report
from toolkit.risk.headline import certified_in_words
from toolkit.statistics.intervals import Rate
from toolkit.text import escaped

# The page loads nothing, even if a name in the run contains markup.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_TITLES = {"dodging": "Dodging", "impersonation": "Impersonation", "group": "Matching any enrolled person"}


def render(report: Report) -> str:
    """Render the report as HTML. All texts of the run are escaped."""
    a = report.run.assessment
    title = f"Sixpixels: {a.target.name}, run {a.run}"
    style = (files("toolkit.report") / "report.css").read_text(encoding="utf-8")
    sections = [_head(report), _worst(report), _untested(a), _findings(report), _clean(report), *_attacks(report)]
    sections += [_optimality(a), _certification(a), _natural(a), _subgroups(a)]
    sections += [_pictures(report), _paper(a), _facts(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>"
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _head(report: Report) -> str:
    a, risk, verdict = report.run.assessment, report.risk, report.verdict
    gate = "" if verdict is None else f'<p class="gate {verdict.status}">Gate: {verdict.status.upper()}</p>'
    reasons = "" if verdict is None else _list([f"{r.status}: {r.text}" for r in verdict.reasons])
    waived = "" if verdict is None else _list([f"waived: {r.text}" for r in verdict.waived])
    return (
        f'<header><p class="product">Sixpixels audit</p><h1>{escaped(a.target.name)}</h1>'
        f'<p class="overall {risk.severity}">Overall risk: <strong>{risk.severity.upper()}</strong></p>{gate}'
        f"<p>{escaped(risk.headline)}</p>{reasons}{waived}<h2>What to do</h2>{_list(risk.next_steps)}</header>"
    )


def _worst(report: Report) -> str:
    """What fell to any attack, and the classes of attacks that have not met a profile."""
    rows, unit = [], "1/255" if report.risk.budget.startswith("RMS") else "pixel range"
    for case in report.risk.worst:
        unmet = [f"<strong>{m.evidence}</strong>: {escaped(m.why_not)}" for m in case.unmet]
        rows.append(
            (
                f'<span class="badge {case.severity}">{case.severity}</span>',
                escaped(case.profile),
                case.goal,
                f"{case.within.successes}/{case.within.trials}",
                f"{100 * case.bound:.1f}",
                "-" if case.median is None else f"{case.median:.2f}",
                "unknown" if case.people is None else str(case.people),
                "<br>".join(unmet) or "all met",
            )
        )
    head = ("severity", "profile", "goal", "fell", "upper bound %", f"median norm, {unit}", "people", "attacks missing")
    legend = (
        f"A pair has fallen if any attack of the run got it within {report.risk.budget}. The bound is the one-sided "
        "exact 95 % upper bound over distinct pairs. A class of attacks that is missing can show nothing."
    )
    lines = _list(certified_in_words(report.risk.worst, report.risk.budget))
    return _section("Worst case", _table("Any attack", head, rows) + lines + f"<p class='note'>{escaped(legend)}</p>")


def _untested(a: Assessment) -> str:
    lines = [f"{u.attack} was not run: {u.reason}" for u in a.unavailable]
    lines += [f"Failed check: {c.name}, {c.about}: {c.detail}" for c in a.checks if not c.passed]
    lines += [*a.caveats, *(f"left out: {reason}" for reason in a.left_out)]
    return _section("What this cannot show", _list(lines)) if lines else ""


def _findings(report: Report) -> str:
    fell = [f for f in report.risk.findings if f.within.successes]
    held = [f for f in report.risk.findings if not f.within.successes]
    legend = (
        f"Policy {report.risk.policy} ({report.risk.use_case}), {report.risk.budget}; deployed: "
        f"{', '.join(report.risk.profiles)}. Likelihood: 9 times the one-sided exact 95 % upper bound of the success "
        "rate within the budget, times a weight for the access that the attack needs. Severities follow the OWASP risk "
        "rating. Unknown means too little evidence; it does not mean low."
    )
    table = _finding_table("Findings, worst first", fell) if fell else "<p>No attack succeeded within the budget.</p>"
    if held:
        summary = f"{len(held)} findings without a success within the budget, rated by their upper bounds"
        table += f"<details><summary>{summary}</summary>{_finding_table('', held)}</details>"
    return _section("Findings", table + f"<p class='note'>{escaped(legend)}</p>")


def _finding_table(caption: str, findings: Sequence[Finding]) -> str:
    rows = [
        (
            f'<span class="badge {f.severity}">{f.severity}</span>',
            _finding(f),
            f"{f.within.successes}/{f.within.trials}" + (" *" if f.no_evidence else ""),
            f"{f.likelihood:.1f}",
            f"{f.impact:g}",
        )
        for f in findings
    ]
    return _table(caption, ("severity", "finding", "within budget", "likelihood", "impact"), rows)


def _finding(f: Finding) -> str:
    terms = "; ".join(f"{t.name} {t.value:.3g} ({t.source})" for t in f.terms)
    references = _list([f"{r.standard} {r.id}: {r.title}" for r in f.references])
    why_not = (
        f"<p>* No evidence that it fails within the budget: {escaped(f.no_evidence)}.</p>" if f.no_evidence else ""
    )
    return (
        f"<code>{escaped(f.id)}</code><p>{escaped(f.meaning)} {why_not}</p>"
        "<details><summary>Terms, advice, references</summary>"
        f"<p>{escaped(terms)}.</p><p>{escaped(f.advice)}</p>{references}</details>"
    )


def _clean(report: Report) -> str:
    a = report.run.assessment
    rows = [
        (
            escaped(c.profile),
            _errors(c.fnmr, c.fnmr_people),
            _errors(c.fmr, c.fmr_people),
            *("-" if point is None else percent(point.fnmr) for _, point in c.at_fmr),
            "-" if c.eer is None else f"{100 * c.eer:.1f}",
            "-" if c.d_prime is None else f"{c.d_prime:.2f}",
        )
        for c in a.clean
    ]
    at = (f"FNMR % at FMR {100 * target:g} %" for target, _ in (a.clean[0].at_fmr if a.clean else ()))
    head = ("profile", "FNMR %", "FMR %", *at, "EER %", "d'")
    units = sorted({c.det.unit for c in a.clean if c.det is not None})
    band = f"with pointwise 95 % bands, from resampling {' or '.join(units)}."
    drawn = _figure(f"DET of the clean pairs on normal-deviate axes, {band}", charts.det(report.run))
    drawn += _figure(f"ROC of the clean pairs, {band}", charts.roc(report.run))
    bounds = [(name, max((f.bound for f in _adaptive(report, name)), default=1.0)) for name, _ in a.profiles]
    front = _figure(
        "Profiles: clean FNMR against the 95 % upper bound of the strongest attack that knows or queries them, within "
        "the budget. Points further down and further left are better.",
        charts.pareto(report.run, bounds),
    )
    intervals = "95 % intervals: Wilson over pairs, and bootstrap over people"
    return _section("Clean pairs, without attacks", _table(intervals, head, rows) + drawn + front)


def _errors(rate: Rate, people: tuple[float, float] | None) -> str:
    by_people = "" if people is None else f"<br>people [{100 * people[0]:.1f}, {100 * people[1]:.1f}]"
    return f"{rate.successes}/{rate.trials}: {percent(rate)}{by_people}"


def _adaptive(report: Report, profile: str) -> list[Finding]:
    return [f for f in report.risk.findings if f.profile == profile and f.knowledge in ("perfect", "query")]


def _attacks(report: Report) -> list[str]:
    run, sections = report.run, []
    head = ("attack", "probe", "profile", "knows", "n", "success %", "median RMS, 1/255", "median L2", "median Linf")
    aims = {attack.name: attack.aim for attack in run.assessment.declared}
    for goal in dict.fromkeys(s.goal for s in run.assessment.scenarios):
        scenarios = [s for s in run.assessment.scenarios if s.goal == goal]
        rows = [_scenario(s, aims[s.attack]) for s in scenarios]
        parts = [_table("8-bit successes over eligible pairs, 95 % Wilson intervals", head, rows), _tries(scenarios)]
        for profile, _ in run.assessment.profiles:
            for norm, label in (("l2", "L2"), ("linf", "Linf")):
                text = f"Success on {profile} against the {label} norm, for attacks that know or query the profile."
                parts.append(_figure(text, charts.success_against(run, goal, profile, norm, label)))
            text = f"Success on {profile} against the number of queries."
            parts.append(_figure(text, charts.success_against_queries(run, goal, profile)))
        parts.append(_figure("Cumulative norms of successes (figure 5 of the paper).", charts.norms(run, goal)))
        sections.append(_section(_TITLES[goal], "".join(parts)))
    return sections


def _optimality(a: Assessment) -> str:
    if not a.optimality:
        return ""
    head = ("attack", "profile", "knows", "norm", *dict.fromkeys(one.goal for one in a.optimality))
    rows = [tuple(map(escaped, row)) for row in optimality_rows(a)]
    table = _table("Each attack beside the best of the run", head, rows)
    return _section("Optimality of the attacks", table + f"<p class='note'>{escaped(OPTIMALITY_LEGEND)}</p>")


def _certification(a: Assessment) -> str:
    if not a.certification:
        return ""
    radii = (f"radius at least {radius:g}, %" for radius, _ in a.certification[0].at_radius)
    head = ("profile", "noise", "goal", "n", "correct, %", "abstains, %", *radii, "median radius")
    rows = [
        (
            escaped(c.profile),
            noise_of(c),
            c.goal,
            str(c.correct.trials),
            *(whole_percent(rate) for rate in (c.correct, c.abstained, *(rate for _, rate in c.at_radius))),
            "-" if c.median_radius is None else f"{c.median_radius:.3f}",
        )
        for c in a.certification
    ]
    meaning = (
        "Those with noise say nothing about a verifier that is deployed without the noise and the vote. No attack with "
        "an L2 norm below the radius changes the decision. Noise: standard deviation, in units of the pixel range."
    )
    legend = " ".join((*map(escaped, certified_verifiers(a.certification)), meaning))
    return _section(
        "Certified",
        _table("95 % Wilson intervals", head, rows) + f"<p class='note'>{legend}</p>",
    )


def _tries(scenarios: Sequence[ScenarioResult]) -> str:
    random = [s for s in scenarios if s.hit_at]
    if not random:
        return ""
    head = ("attack", "profile", "knows", *(f"in {one.tries}, %" for one in random[0].hit_at))
    rows = [(escaped(s.attack), escaped(s.profile), escaped(knows(s)), *map(hit_percent, s.hit_at)) for s in random]
    return _table("Random profiles: the same probe succeeds in one of so many tries, 95 % intervals", head, rows)


def _natural(a: Assessment) -> str:
    if not a.natural:
        return ""
    tables = [
        _table(profile, NATURAL_HEAD, [tuple(map(escaped, row)) for row in natural_rows(a.natural, profile)])
        for profile in natural_profiles(a.natural)
    ]
    words = "".join(f"<p class='note'>{escaped(one)}</p>" for one in [LEGEND, *natural_words(a.natural)])
    return _section(NATURAL_TITLE, "".join(tables) + words)


def _subgroups(a: Assessment) -> str:
    if a.subgroups is None:
        return ""
    rows = [tuple(map(escaped, row)) for row in subgroup_rows(a.subgroups)]
    words = "".join(f"<p class='note'>{escaped(one)}</p>" for one in subgroup_words(a.subgroups))
    return _section(TITLE, _table("95 % Wilson intervals", HEAD, rows) + words)


def _scenario(s: ScenarioResult, aim: Aim) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        escaped(s.attack),
        aim,
        escaped(s.profile),
        escaped(knows(s)),
        str(s.eligible),
        whole_percent(s.asr),
        number(s.median_rms, ".2f"),
        number(s.median_l2, ".2f"),
        number(s.median_linf, ".3f"),
    )


def _pictures(report: Report) -> str:
    shown = [
        f'<figure><img alt="{escaped(p.caption)}" src="data:image/png;base64,{base64.b64encode(p.png).decode()}">'
        f"<figcaption>{escaped(p.caption)}</figcaption></figure>"
        for p in report.pictures
    ]
    return _section("Probes", "".join(shown)) if shown else ""


def _paper(a: Assessment) -> str:
    tables = [_table(title, head, [tuple(map(escaped, row)) for row in rows]) for title, head, rows in paper_tables(a)]
    return _section("Comparison with the paper", "".join(tables)) if a.suite == "paper" else ""


def _facts(report: Report) -> str:
    a, t = report.run.assessment, report.run.assessment.target
    rows = [
        ("model", f"{t.model}, sha256 {t.model_sha256}"),
        ("runs on", f"{t.provider} ({t.provider_requested} requested), ONNX Runtime {t.onnxruntime}"),
        ("decision", f"same if {t.metric} < {t.threshold:g}"),
        ("pairs", f"{a.genuine} genuine, {a.impostor} impostor, {len(a.left_out)} left out; {a.pairs_source}"),
        ("run", f"{a.run}, seed {a.seed}, sixpixels {__version__}"),
        ("policy", f"{report.risk.policy}, sha256 {report.risk.policy_sha256}"),
    ]
    if a.parity is not None:
        words = (
            f"largest difference {a.parity.largest_embedding_difference:.1e}, flips {a.parity.flips}/{a.parity.pairs}"
        )
        rows.append(("parity", f"ONNX Runtime and TensorFlow {t.tensorflow}: {words}"))
    rows += [(f"profile {name}", f"sha256 {digest}") for name, digest in a.profiles]
    rows += [(f"attack {n}", ", ".join(f"{k} {v}" for k, v in parameters)) for n, parameters in a.attacks]
    return _section("Setup of the run", _table("", ("", ""), [(escaped(k), escaped(v)) for k, v in rows]))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escaped(title)}</h2>{content}</section>"


def _figure(caption: str, drawn: str | None) -> str:
    return "" if drawn is None else f"<figure>{drawn}<figcaption>{escaped(caption)}</figcaption></figure>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table. The cells must be HTML already."""
    names = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    top = f"<thead><tr>{names}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f'<div class="wide" tabindex="0"><table>{title}{top}<tbody>{body}</tbody></table></div>'


FORMAT = Format("html", "report.html", render)
