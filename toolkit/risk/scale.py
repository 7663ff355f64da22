"""The scale of severities: the OWASP risk rating of a likelihood and an impact, both from 0 to 9."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from toolkit.risk.findings import SEVERITIES, Severity
from toolkit.risk.policy import Required
from toolkit.statistics.intervals import Rate

Level = Literal["low", "medium", "high"]
LOW, MEDIUM, HIGHEST = 3.0, 6.0, 9.0
# The severity by likelihood (outer key) and impact (inner key).
_MATRIX: dict[Level, dict[Level, Severity]] = {
    "low": {"low": "note", "medium": "low", "high": "medium"},
    "medium": {"low": "low", "medium": "medium", "high": "high"},
    "high": {"low": "medium", "medium": "high", "high": "critical"},
}


def level(value: float) -> Level:
    """The level of a likelihood or an impact from 0 to 9: below 3 is low, below 6 medium, else high."""
    return "low" if value < LOW else "medium" if value < MEDIUM else "high"


def severity(likelihood: float, impact: float) -> Severity:
    """The severity of a likelihood and an impact, by the OWASP matrix."""
    return _MATRIX[level(likelihood)][level(impact)]


def worst_of(severities: Sequence[Severity]) -> Severity:
    """The worst of several severities; `unknown` if there are none."""
    return max(severities, key=SEVERITIES.index, default="unknown")


def enough(rate: Rate, required: Required) -> bool:
    """Whether so many pairs without a success would show what the policy asks for."""
    return Rate(0, rate.trials).upper_bound() <= required.max_asr


def rated(within: Rate, weight: float, required: Required, *, evidence: bool) -> Severity:
    """The severity of a success rate. It never falls with more successes, or with a larger weight.

    Args:
        within: successes within the budget, over eligible pairs.
        weight: the weight of the access that the attacker needs, from `LEAST_ACCESS` to 1.
        required: what the policy asks for.
        evidence: whether pairs that did not fall show that the attack fails. Without evidence, a low rate is unknown.
    """
    many = within.trials > 0 and enough(within, required)
    # Few pairs cannot show a low rate, but what fell can show a high one.
    measured = within.upper_bound() if many else within.lower_bound()
    found: list[Severity] = [] if many and evidence else ["unknown"]
    if within.successes or not found:
        found.append(severity(HIGHEST * measured * weight, required.impact))
    if within.successes and within.successes == within.trials:
        found.append("high")
    return worst_of(found)
