"""Policies for tests: one with all keys, each with a value of its own, and any that the reader accepts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from toolkit.risk.policy import LEAST_ACCESS, Policy, read_policy

WHOLE = """
schema = 2
name = "door"
use_case = "a door"
[budget]
norm = "linf"
value = 0.03
[goals.dodging]
impact = 3.5
max_asr = 0.11
pairs = 11
people = 12
evidence = ["minimal", "worn"]
[goals.impersonation]
impact = 8
max_asr = 0.22
pairs = 21
people = 22
evidence = ["query"]
[goals.group]
impact = 5
max_asr = 0.33
pairs = 31
people = 32
evidence = ["noise"]
[access]
zero = 0.98
partial = 0.95
perfect = 0.85
queries_1000 = 0.9
queries_10000 = 0.8
queries_more = 0.7
[strength]
steps = 41
restarts = 42
queries = 43
draws = 44
fill = 0.75
[gate]
knowledge = ["zero", "query"]
tries = 7
attacks = ["fgsm", "pgd"]
profiles = ["mean3"]
max_fnmr = 0.25
max_fmr = 0.125
generated_faces = true
[waivers]
days = 45
most = 4
[regression]
smallest = 0.2
power = 0.6
"""


def written(folder: Path, text: str) -> Path:
    """The file of a policy, or of waivers."""
    path = folder / "told.toml"
    path.write_text(text)
    return path


def drawn(draw: st.DrawFn, folder: Path) -> Policy:
    """A policy that the reader accepts: it counts all attackers, and has no required attacks and profiles.

    Its budget is at least 1 in every norm, so that a `Told` scenario is within it.
    """
    weights = st.lists(st.floats(LEAST_ACCESS, 1), min_size=3, max_size=3).map(lambda w: sorted(w, reverse=True))
    share = st.floats(1e-6, 1)
    zero, partial, perfect = draw(weights)
    few, more, most = draw(weights)
    goals = "".join(
        f"[goals.{goal}]\nimpact = {draw(st.floats(3, 9))}\nmax_asr = {draw(share)}\npairs = 1\npeople = 1\n"
        f'evidence = ["{draw(st.sampled_from(["minimal", "budgeted", "query", "transfer"]))}"]\n'
        for goal in ("dodging", "impersonation", "group")
    )
    text = f"""
schema = 2
name = "drawn"
use_case = "any"
[budget]
norm = "{draw(st.sampled_from(["rms", "l2", "linf"]))}"
value = {draw(st.floats(1, 1e6))}
{goals}
[access]
zero = {zero}
partial = {partial}
perfect = {perfect}
queries_1000 = {few}
queries_10000 = {more}
queries_more = {most}
[strength]
steps = {draw(st.integers(1, 100))}
restarts = 1
queries = {draw(st.integers(1, 2000))}
draws = {draw(st.integers(1, 200))}
fill = {draw(st.floats(0.5, 1))}
[gate]
knowledge = ["zero", "partial", "perfect", "query"]
max_fnmr = {draw(st.floats(0, 0.99))}
max_fmr = {draw(st.floats(0, 0.99))}
[waivers]
days = 180
most = 3
[regression]
smallest = 0.1
power = 0.8
"""
    return read_policy(written(folder, text))
