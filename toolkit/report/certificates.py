"""Certificates in reports: for whom they hold, and the table of the terminal report."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from toolkit.audit.replaying.certificates import CertificationResult
from toolkit.audit.results.assessment import Assessment
from toolkit.report.terminal import new_table, norm, whole_percent

_LEGEND = (
    "noise: standard deviation of the Gaussian noise, in units of the pixel range. correct: pairs that are decided "
    "correctly. abstain: pairs without a significant vote. >: pairs decided correctly on which no attack within this "
    "L2 norm changes the decision. r: median certified radius of the correct pairs."
)
_BOUNDED = (
    "Certificates of {profiles} hold for what is deployed, without noise, vote or confidence: the embedding moves no "
    "further than the manifest's Lipschitz bound allows, which the operators of the file were checked for."
)
_HOLD = {
    True: "Certificates of {profiles} hold for what is deployed: the vote over the {samples} noisy copies in the file, "
    "at {confidence:g} % confidence for each pair.",
    False: "Certificates of {profiles} hold only for a smoothed verifier that is not deployed: the majority vote over "
    "{samples} noisy copies, at {confidence:g} % confidence for each pair.",
}


def certified_verifiers(certification: Sequence[CertificationResult]) -> list[str]:
    """Say for which verifiers certificates hold: those that are deployed, and those that exist only in the audit."""
    said = []
    for kind in dict.fromkeys((c.deployed, c.samples, c.confidence) for c in certification):
        deployed, samples, confidence = kind
        of = dict.fromkeys(c.profile for c in certification if (c.deployed, c.samples, c.confidence) == kind)
        words = _HOLD[deployed] if samples else _BOUNDED
        said.append(words.format(profiles=", ".join(of), samples=samples, confidence=100 * confidence))
    return said


def noise_of(result: CertificationResult) -> str:
    """The noise of certificates in a table."""
    return f"{result.sigma:g}" if result.samples else "-"


def print_certificates(a: Assessment, console: Console) -> None:
    """Print the table of certificates, if the run has any."""
    if not a.certification:
        return
    table = new_table("certified, %", console)
    table.add_column("profile", overflow="fold")
    radii = (f">{r:g}" for r, _ in a.certification[0].at_radius)
    for column in ("noise", "goal", "n", "correct", "abstain", *radii, "r"):
        table.add_column(column, justify="left" if column == "goal" else "right", no_wrap=True)
    for c in a.certification:
        rates = (c.correct, c.abstained, *(rate for _, rate in c.at_radius))
        shares = (whole_percent(rate, interval=False) for rate in rates)
        goal = c.goal.replace("impersonation", "imperson.")
        table.add_row(c.profile, noise_of(c), goal, str(c.correct.trials), *shares, norm(c.median_radius))
    console.print(table)
    for text in (*certified_verifiers(a.certification), _LEGEND):
        console.print(text, style="dim")
