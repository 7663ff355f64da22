"""What a trained attack learns, as jobs: one perturbation for each half of the people, from the other half."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Task, Trained, is_trained
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.crafting.artifacts import decode_learned, encode_learned
from toolkit.audit.crafting.code import attack_code
from toolkit.audit.crafting.craft import LEARNED_FROM, Series, attack_parameters, pair_generator, same_attack
from toolkit.audit.crafting.jobs import (
    Parcel,
    Pool,
    Step,
    finish,
    packed_alarm,
    packed_profile,
    unpacked_alarm,
    unpacked_profile,
)
from toolkit.errors import InputError
from toolkit.faces.crops import CropSet
from toolkit.pixels import Images, to_unit
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Decision


@dataclass(frozen=True)
class LearnJob:
    """Photographs to learn a perturbation from.

    Attributes:
        attack: the attack.
        known: the profile that the attacker knows.
        half: the half of the people that the perturbation is for. It names the random numbers.
        pixels: (N, H, W, 3) uint8, photographs of the other half, drawn by `_drawn`.
        drawn_from: how many they were drawn from.
        decision: metric and threshold.
        alarm: the detector's threshold; infinite without a detector.
    """

    attack: Trained
    known: Profile
    half: int
    pixels: NDArray[np.uint8]
    drawn_from: int
    decision: Decision
    alarm: float

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"training of {self.attack.name} on {self.known.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Train; see `Job`.

        Raises:
            InputError: the attack cannot be trained on this model.
        """
        model = bench.side(self.attack, self.known)
        # The random numbers go on where the drawing of the photographs ended.
        generator, _ = _drawn(bench.seed, self.attack.name, self.half, self.drawn_from)
        probes, n = to_unit(self.pixels), len(self.pixels)
        task = Task(
            probes, model.embed(probes), np.ones(n, np.bool_), self.decision, (generator,) * n, alarm=self.alarm
        )
        return encode_learned(self.attack.train(model, task))

    def parcel(self) -> Parcel:
        """See `Job`."""
        header = {
            "attack": [self.attack.name, attack_parameters(self.attack)],
            "code": attack_code(self.attack),
            "known": packed_profile(self.known),
            "half": self.half,
            "drawn_from": self.drawn_from,
            "decision": asdict(self.decision),
            "alarm": packed_alarm(self.alarm),
        }
        return Parcel("learn", header, {"pixels": self.pixels})


def learn_job(parcel: Parcel, seed: int) -> LearnJob:  # noqa: ARG001 - the bench has the seed
    """Read the job in a parcel.

    Raises:
        InputError: the attack or the profile differs from that of the audit, or the attack is not trained.
    """
    header = parcel.header
    attack = same_attack(header)
    if not is_trained(attack):
        raise InputError(f"{attack.name}: is not trained, but there are photographs to train it on")
    half, drawn_from = header["half"], header["drawn_from"]
    decision, alarm = Decision(**header["decision"]), unpacked_alarm(header["alarm"])
    known = unpacked_profile(*header["known"])
    return LearnJob(attack, known, half, parcel.arrays["pixels"], drawn_from, decision, alarm)


def learned(series: Series, attack: Trained, alarm: float, pool: Pool) -> Images | InputError:
    """Read the perturbations of a trained attack from their artifacts, or have it trained.

    Args:
        series: the series.
        attack: its attack.
        alarm: the detector's threshold; infinite without a detector.
        pool: who trains.

    Returns:
        (2, H, W, 3) float32: one perturbation for each half of the people, learned from the other half. An InputError
        if the attack cannot be trained.
    """
    found = []
    for _, one in finish(_steps(series, attack, alarm), pool):
        if isinstance(one, InputError):
            return one
        found.append(one)
    return np.stack(found)


def _steps(series: Series, attack: Trained, alarm: float) -> Iterator[Step[int, Images]]:
    decode = partial(decode_learned, shape=series.crops.images.shape[1:])
    for half in (0, 1):
        path = series.folder / f"{series.learned_name}.{half}.learned"
        job = partial(_job, series, attack, alarm, half)
        yield Step(f"training of {series.name}", half, path, decode, job)


def _job(series: Series, attack: Trained, alarm: float, half: int) -> LearnJob | InputError:
    crops = series.crops
    halves = people_halves(crops)
    places = np.unique(crops.index[halves != half, 0])
    if not len(places) or not (halves == half).any():
        return InputError(
            f"{attack.name}: too few people, because it trains on some and attacks others; give more pairs"
        )
    _, drawn = _drawn(series.seed, attack.name, half, len(places))
    return LearnJob(attack, series.known, half, crops.images[places[drawn]], len(places), series.decision, alarm)


def _drawn(seed: int, attack: str, half: int, count: int) -> tuple[np.random.Generator, NDArray[np.intp]]:
    """The generator of a training, and which of `count` photographs it drew first."""
    generator = pair_generator(seed, attack, f"half {half}")
    return generator, generator.permutation(count)[:LEARNED_FROM]


def people_halves(crops: CropSet) -> NDArray[np.intp]:
    """Split people into two halves: the half, 0 or 1, of each pair's probe (n,).

    If the pairs do not name people, each photo counts as a person.
    """
    people = [pair.probe_identity or pair.probe for pair in crops.pairs]
    return np.array([hashlib.sha256(person.encode()).digest()[0] % 2 for person in people], np.intp)
