"""Suites: sets of attacks that belong together, and the pairs of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import toolkit.attacks
from toolkit.attacks.base import Attack
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.settings import apply_settings
from toolkit.attacks.uniform import Uniform
from toolkit.faces.pairs import PairSet, load_pairs
from toolkit.registry import choose, discover

STANDARD = ("deepfool", "fgsm", "gaussian", "uniform")
_OFFICIAL_PAIRS, _DRAWN, _USED = 6000, 100, 50


def _standard() -> tuple[Attack, ...]:
    return tuple(choose("attack", STANDARD, discover(toolkit.attacks, "ATTACK")))


def _paper() -> tuple[Attack, ...]:
    """The same attacks, with noise as Foolbox 1 and 2 add it.

    There epsilon is applied twice: uniform half-width and sqrt(3) Gaussian deviations are epsilon squared, with one
    fresh draw for each epsilon. Here epsilon takes 100 equal steps up to 1.
    """
    largest = 1 / np.sqrt(3)
    as_in_foolbox = {
        attack.name: attack
        for attack in (
            Gaussian(levels=100, largest=largest, draws=1, squared=True),
            Uniform(levels=100, largest=largest, draws=1, squared=True),
        )
    }
    return tuple(as_in_foolbox.get(attack.name, attack) for attack in _standard())


SUITES: dict[str, Callable[[], tuple[Attack, ...]]] = {"standard": _standard, "paper": _paper}


def choose_attacks(suite: str, names: Sequence[str] | None, settings: Sequence[str]) -> tuple[Attack, ...]:
    """The attacks of a suite, or those of `names` as the suite has them, with parameters set by `apply_settings`.

    Raises:
        UsageError: a suite, an attack or a setting does not exist.
    """
    of_suite: tuple[Attack, ...] = choose("suite", [suite], SUITES)[0]()
    known = {**discover(toolkit.attacks, "ATTACK"), **{attack.name: attack for attack in of_suite}}
    return apply_settings(of_suite if names is None else choose("attack", names, known), settings)


def paper_pairs(path: Path, limit: int | None, folds: list[int] | None, seed: int) -> tuple[PairSet, str]:
    """The paper's pairs where the official 6,000 are there, and others otherwise.

    The paper drew 100 of the official pairs by ``numpy.random.seed(0); numpy.random.choice(6000, 100,
    replace=False)`` and used the first 50 (DESIGN: 26 genuine, 24 impostor).

    Returns:
        The pairs, and a sentence on which they are.

    Raises:
        SixpixelsError: the pairs cannot be read.
    """
    everything = load_pairs(path, folds=folds, seed=seed)
    if len(everything.pairs) == _OFFICIAL_PAIRS and folds is None and limit is None:
        chosen = np.random.RandomState(0).choice(_OFFICIAL_PAIRS, _DRAWN, replace=False)[:_USED]
        pairs = tuple(everything.pairs[i] for i in chosen)
        source = f"{path} (the paper's {_USED} of {_OFFICIAL_PAIRS})"
        return PairSet(everything.root, pairs, source), "These are the paper's own pairs."
    pairs_set = load_pairs(path, limit=limit or _USED, seed=seed, folds=folds)
    return pairs_set, (
        f"These are not the paper's pairs, which need all {_OFFICIAL_PAIRS} of LFW and neither --folds nor --limit: "
        f"{len(pairs_set.pairs)} pairs of {pairs_set.source} stand in for them."
    )
