"""Attacks on a profile with a detector, once more as if there were none.

To keep a detector in view costs an attack some of its strength, and before a vote much of it. Some probes pass the
detector anyway. An attacker who knows everything tries both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Gradients, Task, margins, reached
from toolkit.audit.crafting.craft import pair_generator
from toolkit.pixels import to_unit


def with_blind_tries(
    crafted: Crafted, attack: Attack, model: Gradients, task: Task, ids: Sequence[str], seed: int
) -> Crafted:
    """Attack the pairs that a gradient attack missed again, as if there were no detector.

    A probe of these counts only if it passes the detector too.

    Args:
        crafted: what the attack made of the task with the detector in view.
        attack: the attack.
        model: the attacked model.
        task: the pairs. Without an alarm, or if every pair fell, nothing is done.
        ids: their ids.
        seed: the seed of the audit.
    """
    missed = np.flatnonzero(~crafted.success8)
    if attack.needs != "gradient" or np.isinf(task.alarm) or not len(missed):
        return crafted
    seen = _of(task, missed, tuple(pair_generator(seed, f"{attack.name} blind", ids[int(row)]) for row in missed))
    again = attack.craft(model, replace(seen, alarm=np.inf))
    rows = np.arange(len(missed))
    success, success8 = (
        reached(seen, rows, margins(model, seen, rows, images)) for images in (again.probes, to_unit(again.probes8))
    )
    better = missed[success8]
    probes, probes8, found = crafted.probes.copy(), crafted.probes8.copy(), crafted.success.copy()
    found8, evaluations = crafted.success8.copy(), crafted.evaluations.copy()
    probes[better], probes8[better], found8[better] = again.probes[success8], again.probes8[success8], True
    found[better] = success[success8]
    evaluations[missed] += again.evaluations + 2
    return Crafted(probes, found, probes8, found8, evaluations)


def _of(task: Task, rows: NDArray[np.intp], generators: tuple[np.random.Generator, ...]) -> Task:
    """Some pairs of a task, with other random numbers."""
    return replace(
        task,
        probes=task.probes[rows],
        references=task.references[rows],
        dodging=task.dodging[rows],
        generators=generators,
        start=None if task.start is None else task.start[rows],
        universal=None if task.universal is None else task.universal[rows],
    )
