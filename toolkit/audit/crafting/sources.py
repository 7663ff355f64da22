"""Sources: local verifiers that probes for another verifier are crafted on, in given crops.

Each pair is crafted alone, because each has its own way from crop to crop; see `ensemble.py`. Several pairs are crafted
at once, on threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted, Task
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.artifacts import encode_probes
from toolkit.audit.crafting.carried import Carried, carried_pairs
from toolkit.audit.crafting.craft import Series, make_task
from toolkit.audit.crafting.ensemble import DECISION, Ensemble, Member, sight
from toolkit.audit.crafting.jobs import Job, Ticket, threads_of
from toolkit.audit.crafting.series import CraftJob, CraftStep, craft_step
from toolkit.errors import InputError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import View
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import PairSet
from toolkit.pixels import to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.threads import Threads
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution

BARE = Profile("none", "", (), "")


def sources_profile(manifests: Sequence[Manifest]) -> Profile:
    """What an attacker with these verifiers knows, in the place of the profile that others know."""
    return Profile(" + ".join(manifest.name for manifest in manifests), "", (), "")


def sources_identity(manifests: Sequence[Manifest]) -> str:
    """A hash of the verifiers: of their files, and of how they are read, cropped and decided."""
    content = [
        [model_sha256(m.model), m.reading, repr(m.alignment), repr(m.decision), repr(m.checkpoint)] for m in manifests
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Sources:
    """The verifiers of an attacker who does not know the target.

    Attributes:
        carried: the pairs in the crops of each verifier.
    """

    def __init__(
        self, manifests: Sequence[Manifest], execution: Execution, seed: int, pairs: PairSet, crops: CropSet, view: View
    ) -> None:
        """Load the verifiers, and find the faces in their crops.

        Args:
            manifests: the verifiers, at least one.
            execution: how ONNX Runtime runs them.
            seed: the seed of the audit.
            pairs: all pairs.
            crops: the pairs in the crops that are attacked.
            view: the size and alignment of these crops.

        Raises:
            SixpixelsError: a verifier cannot be used, or no pair has a face in its crops.
        """
        self._crops, self._row = crops, {pair.id: row for row, pair in enumerate(crops.pairs)}
        self._threads = threads_of(execution)
        alone = replace(execution, threads=1)
        self._benches = [Bench(manifest, alone if self._threads > 1 else execution, seed) for manifest in manifests]
        self.carried = [in_crops_of(manifest, pairs, crops, view) for manifest in manifests]

    def craft(self, job: CraftJob) -> bytes:
        """Craft the probes of a job on these verifiers, and encode them as an artifact.

        A pair without a face in the crop of a verifier keeps its clean probe.

        Raises:
            InputError: a verifier has no gradients, or the probes are not finite.
        """
        with Threads(self._threads) as threads:
            tickets = [threads.submit(partial(self._one, job, place)) for place in range(len(job.ids))]
            parts = [ticket() for ticket in tickets]
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Crafted)}
        crafted = Crafted(**joined)
        if not np.isfinite(crafted.probes).all():
            raise InputError(f"{job.attack.name}: crafted probes with NaN or infinite values; repair the attack")
        return encode_probes(crafted, to_8bit(job.task.probes))

    def _one(self, job: CraftJob, place: int) -> Crafted:
        row, task = self._row[job.ids[place]], job.task
        one = slice(place, place + 1)
        probe = task.probes[one]
        if not all(row in carried.rows for carried in self.carried):
            never = np.zeros(1, np.bool_)
            return Crafted(probe, never, to_8bit(probe), never, np.zeros(1, np.int64))
        ensemble = self._ensemble(row, probe.shape[1:3])
        own = Task(
            probe,
            ensemble.reference(),
            task.dodging[one],
            DECISION,
            task.generators[one],
            landmarks=task.landmarks,
        )
        return job.attack.craft(ensemble, own)

    def _ensemble(self, row: int, size: tuple[int, int]) -> Ensemble:
        each = zip(self._benches, self.carried, strict=True)
        members, references = zip(*(member(bench, carried, row, size) for bench, carried in each), strict=True)
        return Ensemble(members, references)


def in_crops_of(manifest: Manifest, pairs: PairSet, crops: CropSet, view: View) -> Carried:
    """Find the pairs of `crops`, which have the size and alignment `view`, in the crops of another verifier.

    Raises:
        InsufficientError: no pair has a face in both.
    """
    finder, own = LandmarkFinder(pairs.root), view_of(manifest.input, manifest.alignment)
    theirs = crops if own == view else crop_pairs(pairs, own.width, own.height, own.template, finder)
    return carried_pairs(crops, theirs, (view, own), finder)


class SourcesPool:
    """A pool that crafts jobs of `source_steps`, all on the same verifiers; see `Pool`."""

    width = 0

    def __init__(self, sources: Sources) -> None:
        """Craft on `sources`."""
        self._sources = sources

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return partial(self._sources.craft, cast("CraftJob", job))


def source_steps(series: Series) -> Iterator[CraftStep]:
    """The steps of a series whose jobs are crafted by a `SourcesPool`, which has its own references."""

    def job(rows: NDArray[np.intp]) -> CraftJob:
        crops, name = series.crops, series.attack.name
        task = make_task(name, crops, rows, np.zeros((len(rows), 1), np.float32), DECISION, series.seed, np.inf)
        return CraftJob(series.attack, series.known, tuple(crops.pairs[row].id for row in rows), task)

    for rows, path in series.chunks():
        yield craft_step(series, rows, path, partial(job, rows))


def member(bench: Bench, carried: Carried, row: int, size: tuple[int, int]) -> tuple[Member, NDArray[np.float32]]:
    """A verifier as an attack on one pair sees it, and its embedding (D,) of the pair's reference.

    Args:
        bench: the verifier. It is attacked without a profile.
        carried: the pairs in its crops.
        row: the pair.
        size: the height and width of the attacked crops.
    """
    model, place = bench.white_box(BARE), int(np.searchsorted(carried.rows, row))
    at = np.array([place])
    seen = None if carried.same else sight(carried.matrices[place], *size, to_unit(carried.own(at)[0]))
    reference = model.embed(to_unit(carried.own_references(at)))[0]
    return Member(model, bench.manifest.decision, seen), reference
