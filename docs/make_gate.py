"""Writes the table of severities in docs/gate.md: `python docs/make_gate.py`. A test compares."""

from __future__ import annotations

from pathlib import Path

from toolkit.risk.policy import ACCESS, find_policy
from toolkit.risk.scale import rated
from toolkit.statistics.intervals import Rate

PAGE = Path(__file__).parent / "gate.md"
_START, _END = "<!-- severities -->\n", "<!-- /severities -->"
_PAIRS = (30, 100, 1000)
_SHARES = (0, 5, 10, 25, 50, 75, 100)


def page(text: str) -> str:
    """The page with its tables made anew: one for each harm and number of pairs, of access by share of pairs."""
    policy, lines = find_policy("access-control"), []
    for goal in ("dodging", "impersonation"):
        required = policy.required(goal)
        for pairs in _PAIRS:
            lines += ["", f"**{goal} (harm {required.impact:g}), {pairs} pairs, with evidence**", ""]
            lines += ["| access | " + " | ".join(f"{share} %" for share in _SHARES) + " |"]
            lines += ["| --- |" + " --- |" * len(_SHARES)]
            for key in ACCESS:
                rates = [Rate(round(share * pairs / 100), pairs) for share in _SHARES]
                found = [rated(rate, policy.access[key], required, evidence=True) for rate in rates]
                lines.append(f"| {key} | " + " | ".join(found) + " |")
    head, rest = text.split(_START)
    return head + _START + "\n".join(lines).lstrip() + "\n\n" + rest[rest.index(_END) :]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
