"""The jobs that craft the probes of a series, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import decode_probes, encode_probes
from toolkit.audit.crafting.blind import with_blind_tries
from toolkit.audit.crafting.code import attack_code
from toolkit.audit.crafting.craft import Series, attack_parameters, make_task, pair_generator, same_attack
from toolkit.audit.crafting.jobs import (
    Parcel,
    Pool,
    Step,
    packed_alarm,
    packed_profile,
    unpacked_alarm,
    unpacked_profile,
)
from toolkit.audit.crafting.learn import learned, people_halves
from toolkit.errors import InputError
from toolkit.pixels import Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision


@dataclass(frozen=True)
class CraftJob:
    """A chunk to craft: the attack, the profile that the attacker knows, the ids of the pairs, and their task."""

    attack: Attack
    known: Profile
    ids: tuple[str, ...]
    task: Task

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"{self.attack.name} on {self.known.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Craft the chunk; see `Job`.

        Raises:
            InputError: the attack cannot run on this model, or its probes have values that are not finite.
        """
        model = bench.side(self.attack, self.known)
        crafted = self.attack.craft(model, self.task)
        crafted = with_blind_tries(crafted, self.attack, model, self.task, self.ids, bench.seed)
        if not np.isfinite(crafted.probes).all():
            raise InputError(f"{self.attack.name}: crafted probes with NaN or infinite values; repair the attack")
        return encode_probes(crafted, to_8bit(self.task.probes))

    def parcel(self) -> Parcel:
        """See `Job`."""
        task = self.task
        arrays: dict[str, NDArray[Any] | None] = {
            "probes": to_8bit(task.probes),
            "references": task.references,
            "dodging": task.dodging,
            "start": None if task.start is None else to_8bit(task.start),
            "landmarks": task.landmarks,
            "universal": task.universal,
        }
        header = {
            "attack": [self.attack.name, attack_parameters(self.attack)],
            "code": attack_code(self.attack),
            "known": packed_profile(self.known),
            "decision": asdict(task.decision),
            "ids": self.ids,
            "alarm": packed_alarm(task.alarm),
        }
        return Parcel("craft", header, {name: array for name, array in arrays.items() if array is not None})


def craft_job(parcel: Parcel, seed: int, drawn: str | None = None) -> CraftJob:
    """Read the job in a parcel. It has the random numbers of the attack `drawn`, by default its own.

    Raises:
        InputError: the attack or the profile differs from that of the audit.
    """
    header, arrays = parcel.header, parcel.arrays
    attack = same_attack(header)
    ids, start = tuple(header["ids"]), arrays.get("start")
    task = Task(
        to_unit(arrays["probes"]),
        arrays["references"],
        arrays["dodging"],
        Decision(**header["decision"]),
        tuple(pair_generator(seed, drawn or attack.name, one) for one in ids),
        None if start is None else to_unit(start),
        unpacked_alarm(header["alarm"]),
        arrays.get("landmarks"),
        arrays.get("universal"),
    )
    return CraftJob(attack, unpacked_profile(*header["known"]), ids, task)


# A step about a series and the rows of its pairs.
CraftStep = Step[tuple[Series, NDArray[np.intp]], Crafted]


def series_steps(series: Series, clean: CleanRun, pool: Pool) -> Iterator[CraftStep]:
    """The steps of a series. A trained attack is trained once, before its first job.

    Args:
        series: the series.
        clean: the clean run of the known profile, for the embeddings of the references.
        pool: who trains.
    """
    taught: list[Images | InputError] = []
    halves = people_halves(series.crops)

    def job(rows: NDArray[np.intp]) -> CraftJob | InputError:
        attack, known, crops = series.attack, series.known, series.crops
        references = clean.embeddings[crops.index[rows, 1]]
        task = make_task(attack.name, crops, rows, references, series.decision, series.seed, clean.alarm)
        if is_trained(attack):
            if not taught:
                taught.append(learned(series, attack, clean.alarm, pool))
            if isinstance(taught[0], InputError):
                return taught[0]
            task = replace(task, universal=taught[0][halves[rows]])
        return CraftJob(attack, known, tuple(crops.pairs[row].id for row in rows), task)

    for rows, path in series.chunks():
        yield craft_step(series, rows, path, partial(job, rows))


def craft_step(
    series: Series, rows: NDArray[np.intp], path: Path, job: Callable[[], CraftJob | InputError]
) -> CraftStep:
    """The step of one chunk: its pairs `rows`, its file, and how its job is prepared."""

    def decode(content: bytes) -> Crafted | None:
        return decode_probes(content, series.clean(rows))

    return Step(series.name, (series, rows), path, decode, job)
