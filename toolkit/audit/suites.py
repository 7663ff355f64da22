"""Suites: named sets of attacks, and the pairs of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.attacks.apgd import Apgd
from toolkit.attacks.apgd_l2 import ATTACK as APGD_L2
from toolkit.attacks.base import Attack
from toolkit.attacks.carlini_wagner import CarliniWagner
from toolkit.attacks.cgba import Cgba
from toolkit.attacks.ddn import Ddn
from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.momentum_l2 import ATTACK as MOMENTUM_L2
from toolkit.attacks.settings import apply_settings
from toolkit.attacks.square import Square
from toolkit.attacks.uniform import Uniform
from toolkit.errors import UsageError
from toolkit.faces.pairs import PairSet, load_pairs
from toolkit.registry import choose, discover

_OF_PAPER = ("deepfool", "fgsm", "gaussian", "uniform")
# The suite of corruptions, which are no attacks.
NATURAL = "natural"
# The budget of the shipped policies: an RMS in 1/255.
BUDGET = 2.15
_OFFICIAL_PAIRS, _DRAWN, _USED = 6000, 100, 50
# Marks the source of the paper's own pairs.
_OWN = f"(the paper's {_USED} of {_OFFICIAL_PAIRS})"


@dataclass(frozen=True)
class Balls:
    """The radii of balls that spend a budget, in units of the pixel range."""

    linf: float
    l2: float


def balls(rms: float, values: int) -> Balls:
    """The largest balls whose perturbations stay within a budget.

    Args:
        rms: the budget, an RMS in 1/255.
        values: the number of values of a crop.

    Raises:
        UsageError: the budget is not from 0 (excluded) to 255.
    """
    if not 0 < rms <= 255:
        raise UsageError(f"--budget {rms:g}: must be above 0, and at most 255")
    return Balls(rms / 255, rms / 255 * float(np.sqrt(values)))


def _by_gradients(at: Balls, restarts: int = 1) -> tuple[Attack, ...]:
    """The nearest success, the budget in both norms, and the budget of an attacker who does not know the profile.

    FMN is the best of `benchmarks/reach.py` in L2, and loses nothing that matters with half of its steps.
    """
    return (
        Fmn(steps=50),
        Apgd(epsilon=at.linf, restarts=restarts),
        replace(APGD_L2, epsilon=at.l2, restarts=restarts),
        replace(MOMENTUM_L2, epsilon=at.l2),
    )


def _by_queries(at: Balls, queries: int) -> tuple[Attack, ...]:
    """An attack by scores, within the budget, and one by decisions: the better of two in docs/benchmarks.md."""
    return Square(epsilon=at.linf, budget=queries), Cgba(budget=queries)


def _quick(at: Balls) -> tuple[Attack, ...]:
    return (*_by_gradients(at), Gaussian())


def _standard(at: Balls) -> tuple[Attack, ...]:
    """The attacks of `_strong`, with fewer queries."""
    return (*_by_gradients(at, 2), *_by_queries(at, 200), Gaussian())


def _strong(at: Balls) -> tuple[Attack, ...]:
    return (*_by_gradients(at, 2), *_by_queries(at, 1000), Gaussian())


def _thorough(at: Balls) -> tuple[Attack, ...]:
    return (*_by_gradients(at, 5), CarliniWagner(), Ddn(), *_by_queries(at, 5000), Gaussian(), Uniform())


def _paper(at: Balls) -> tuple[Attack, ...]:  # noqa: ARG001 - its attacks have no ball
    """The paper's attacks, with noise as Foolbox 1 and 2 add it.

    Foolbox applies epsilon twice: the half-width of uniform noise and sqrt(3) standard deviations of Gaussian noise
    equal epsilon squared, with one new draw for each epsilon. Here epsilon takes 100 equal steps up to 1.
    """
    largest = 1 / np.sqrt(3)
    as_in_foolbox = {
        attack.name: attack
        for attack in (
            Gaussian(levels=100, largest=largest, draws=1, squared=True),
            Uniform(levels=100, largest=largest, draws=1, squared=True),
        )
    }
    return tuple(as_in_foolbox.get(attack.name, attack) for attack in choose("attack", _OF_PAPER, discover("attack")))


def _natural(at: Balls) -> tuple[Attack, ...]:  # noqa: ARG001 - no attack at all
    """What cameras do is no attack; see `replaying/natural.py`."""
    return ()


SUITES: dict[str, Callable[[Balls], tuple[Attack, ...]]] = {
    "quick": _quick,
    "standard": _standard,
    "strong": _strong,
    "thorough": _thorough,
    "paper": _paper,
    NATURAL: _natural,
}


def choose_attacks(suite: str, names: Sequence[str] | None, settings: Sequence[str], at: Balls) -> tuple[Attack, ...]:
    """Choose attacks and set their parameters.

    Args:
        suite: name of the suite.
        names: attacks to run instead of all of the suite's, or None. An attack of the suite keeps its parameters.
        settings: see `apply_settings`.
        at: the balls of the suite's attacks.

    Raises:
        UsageError: a suite, an attack or a setting does not exist.
    """
    of_suite: tuple[Attack, ...] = choose("suite", [suite], SUITES)[0](at)
    known = {**discover("attack"), **{attack.name: attack for attack in of_suite}}
    return apply_settings(of_suite if names is None else choose("attack", names, known), settings)


def weaker_than_strong(attacks: Sequence[Attack]) -> list[str]:
    """Say in words what some attacks lack of the suite `strong`, which shipped policies ask for."""
    strong, found = {attack.name: attack.traits for attack in _strong(balls(BUDGET, 3))}, []
    given = {attack.name: attack.traits for attack in attacks}
    if missing := [name for name in strong if name not in given]:
        found.append(f"suite strong also has {', '.join(missing)}")
    for name in (name for name in strong if name in given):
        for what in ("budget", "restarts", "steps"):
            more, less = getattr(strong[name], what), getattr(given[name], what)
            if more is not None and less is not None and less < more:
                words = {"budget": "queries", "restarts": "starts"}.get(what, what)
                found.append(f"{name}: {less:,} of the {more:,} {words} of suite strong")
    return found


def paper_pairs(path: Path, limit: int | None, folds: list[int] | None, seed: int) -> PairSet:
    """The paper's pairs if `path` has all 6,000 official LFW pairs, or else other pairs; `which_pairs` tells which.

    The paper drew 100 of the official pairs by ``numpy.random.seed(0); numpy.random.choice(6000, 100,
    replace=False)`` and used the first 50: 26 genuine, 24 impostor.

    Args:
        path: labeled pairs.
        limit: the number of pairs, or None. With a limit, the paper's pairs are not used.
        folds: folds of the pair list, or None. With folds, the paper's pairs are not used.
        seed: seed of the choice of other pairs.

    Raises:
        SixpixelsError: the pairs cannot be read.
    """
    everything = load_pairs(path, folds=folds, seed=seed)
    if len(everything.pairs) == _OFFICIAL_PAIRS and folds is None and limit is None:
        chosen = np.random.RandomState(0).choice(_OFFICIAL_PAIRS, _DRAWN, replace=False)[:_USED]
        return PairSet(everything.root, tuple(everything.pairs[i] for i in chosen), f"{path} {_OWN}")
    return load_pairs(path, limit=limit or _USED, seed=seed, folds=folds)


def which_pairs(source: str, pairs: int) -> str:
    """Say in a sentence whether a run of the paper suite used the paper's own pairs."""
    if source.endswith(_OWN):
        return "These are the paper's own pairs."
    return (
        f"These are not the paper's own pairs, but {pairs} pairs of {source}. For the paper's pairs, give all "
        f"{_OFFICIAL_PAIRS} pairs of LFW, without --folds and --limit."
    )
