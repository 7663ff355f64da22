"""The jobs that craft the probes of a series, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Crafted, Task, is_trained
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import decode_probes, encode_probes
from toolkit.audit.crafting.blind import with_blind_tries
from toolkit.audit.crafting.code import attack_code
from toolkit.audit.crafting.craft import Series, attack_parameters, learn, make_task, pair_generator, people_halves
from toolkit.audit.crafting.jobs import Parcel, Step, packed_alarm, packed_profile, unpacked_alarm, unpacked_profile
from toolkit.documents import from_plain
from toolkit.errors import InputError
from toolkit.files import check_sha256
from toolkit.pixels import Images, to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.registry import choose, discover
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
    attack = attack_with(*header["attack"])
    if attack_code(attack) != header["code"]:
        raise InputError(
            f"{attack.name}: this worker and the audit have different code of this attack; install the same version"
        )
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


def series_steps(series: Series, bench: Verifiers, clean: CleanRun) -> Iterator[CraftStep]:
    """The steps of a series. A trained attack is trained here once, before its first job.

    Args:
        series: the series.
        bench: the verifiers.
        clean: the clean run of the known profile, for the embeddings of the references.
    """
    learned: list[Images | InputError] = []
    halves = people_halves(series.crops)

    def job(rows: NDArray[np.intp]) -> CraftJob | InputError:
        attack, known, crops = series.attack, series.known, series.crops
        references = clean.embeddings[crops.index[rows, 1]]
        task = make_task(attack.name, crops, rows, references, series.decision, series.seed, clean.alarm)
        if is_trained(attack):
            if not learned:
                learned.append(learn(series, bench.side(attack, known), clean.alarm))
            if isinstance(learned[0], InputError):
                return learned[0]
            task = replace(task, universal=learned[0][halves[rows]])
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


def attack_with(name: str, parameters: dict[str, Any]) -> Attack:
    """Find a registered attack, and set its parameters from values that were read from JSON.

    Raises:
        UsageError: the attack does not exist.
        ValueError: the attack has other parameters.
    """
    attack = choose("attack", [name], discover("attack"))[0]
    known = {field.name for field in fields(attack)}
    if set(parameters) != known:
        raise ValueError(f"{name} has the parameters {sorted(known)}, not {sorted(parameters)}")
    kinds = get_type_hints(type(attack))
    values = {key: _parameter(kinds[key], value, f"{name}.{key}") for key, value in parameters.items()}
    return replace(attack, **{key: values[key] for key in known if getattr(attack, key) != values[key]})


def _parameter(kind: Any, value: Any, where: str) -> Any:
    if kind != Path | None:
        return from_plain(kind, value, where)
    return None if value is None else _file(*from_plain(tuple[str, str], value, where))


def _file(path: str, digest: str) -> Path:
    check_sha256(Path(path), digest)
    return Path(path)
