"""Transfer: a finished run's probes on another verifier, through its own crop."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Attack, Bools, to_unit
from toolkit.audit.craft import Series, read_crafted
from toolkit.audit.judge import Judge, local_judge, view_of
from toolkit.audit.plan import GOALS, Goal, Unavailable, make_plan
from toolkit.audit.record import Record
from toolkit.audit.replay import l2_norm
from toolkit.audit.run import Progress, attacked_model
from toolkit.errors import InputError, InsufficientError, SixpixelsError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import Matrix, View, between, carry, covered
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.files import sha256
from toolkit.profiles.profile import Profile
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.runtime import Execution

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class Geometry:
    """How the source's crops lie in the target's.

    Attributes:
        source, target: width and height of the crops, in pixels.
        scale: target pixels per source pixel, the median over the probes.
        covered: the smallest share of a target's crop that the source's crop covers; the photograph fills the rest.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    scale: float
    covered: float


@dataclass(frozen=True)
class Baseline:
    """The target without an attack.

    Attributes:
        pairs: of this goal, in the run.
        clean_errors: of these, decided wrongly by the target; `failed` it turned away (no face, or flagged).
        flips: over those that it decides rightly, how many flip when the clean probe is carried through the same
            resampling; a probe that is turned away then is no flip, and counted in `lost`.
    """

    goal: Goal
    pairs: int
    clean_errors: int
    failed: int
    flips: Rate
    lost: int


@dataclass(frozen=True)
class TransferResult:
    """Probes of one attack, crafted against the source behind profile `known`, on the target.

    Attributes:
        eligible: pairs that source (behind `known`) and target both decide rightly without an attack.
        crafted: of these, how many succeeded on the source, in 8 bits; no other is sent.
        failed: of these, how many the target turned away undecided; no successes.
        asr: successes on the target over eligible pairs.
        of_crafted: the same over crafted ones: the transfer rate.
        beyond_resampling: of the successes, how many does not flip the resampling alone.
        l2_source, l2, linf: medians over the crafted of the 8-bit perturbation's norms (pixel range 1), in the
            source's crop and after resampling (beside the clean crop carried in the same way); None without any.
    """

    attack: str
    known: str
    goal: Goal
    eligible: int
    crafted: int
    failed: int
    asr: Rate
    of_crafted: Rate
    beyond_resampling: int
    l2_source: float | None
    l2: float | None
    linf: float | None


@dataclass(frozen=True)
class Transfer:
    """A run's probes on one target. `calls` is how often a remote target was called, None for a local one."""

    run: str
    pairs_source: str
    source: str
    source_identity: str
    target: str
    target_identity: str
    profile: str
    geometry: Geometry
    left_out: int
    baseline: tuple[Baseline, ...]
    results: tuple[TransferResult, ...]
    unavailable: tuple[Unavailable, ...]
    calls: int | None
    complete: bool


@dataclass(frozen=True)
class _Pairs:
    """The pairs that source and target both see, by their `rows` in the run; all else has one row for each.

    Crops of probes and references in the source's frame are `clean` and `references`, in the target's `own` and
    `own_references`; `matrices` take the probes' pixels from one to the other.
    """

    rows: NDArray[np.intp]
    clean: Crops
    references: Crops
    own: Crops
    own_references: Crops
    matrices: list[Matrix]
    genuine: Bools

    def carry(self, crops: Crops, rows: NDArray[np.intp]) -> Crops:
        """Source crops of the pairs `rows`, resampled into the target's frame."""
        carried = [carry(crop, self.matrices[i], self.own[i]) for crop, i in zip(crops, rows, strict=True)]
        return np.stack(carried) if carried else self.own[:0]


@dataclass(frozen=True)
class _Clean:
    """The target's clean decisions: right ones, right ones that resampling alone flips."""

    right: Bools
    flips: Bools


def run_transfer(record: Record, judge: Judge, execution: Execution, progress: Progress) -> Transfer:
    """Put the probes of a finished run on another verifier.

    Only probes of eligible pairs that succeeded on the source are sent. A scenario that the target fails to judge (it
    does not answer, or no calls are left) takes nothing else along.

    Args:
        record: the run.
        judge: the target.
        execution: how the source's clean decisions are run.
        progress: told of every scenario.

    Raises:
        InsufficientError: no pair has a face in both crops.
        SixpixelsError: the source cannot be run, or the target cannot decide the clean pairs.
    """
    manifest, finder = record.manifest, LandmarkFinder(record.pairs.root)
    views = (view_of(manifest.input, manifest.alignment), judge.view)
    crops, own = (crop_pairs(record.pairs, view.width, view.height, view.template, finder) for view in views)
    pairs = _common(crops, own, views, finder)
    clean, baseline = _baseline(pairs, judge)

    @cache
    def eligible(known: Profile) -> Bools:
        source = local_judge(manifest, known, execution, record.seed)
        return _right(source, pairs.clean, pairs.references, pairs.genuine)[0] & clean.right

    results, unavailable = [], []
    for attack, known in make_plan(record.attacks, record.profiles, record.knowledge, None).crafts:
        stage = progress.stage(f"{attack.name} on {known.name}", len(pairs.rows))
        try:
            crafted = _probes(record, attack, known, crops, pairs)
            results += _scenario((attack.name, known.name), pairs, crafted, eligible(known), clean, judge)
        except SixpixelsError as error:
            unavailable.append(Unavailable(f"{attack.name} on {known.name}", str(error)))
        stage(len(pairs.rows))
    return Transfer(
        run=record.folder.resolve().name,
        pairs_source=record.pairs.source,
        source=manifest.name,
        source_identity=sha256(manifest.model),
        target=judge.name,
        target_identity=judge.identity,
        profile=judge.profile,
        geometry=_geometry(pairs),
        left_out=len(record.pairs.pairs) - len(pairs.rows),
        baseline=tuple(baseline),
        results=tuple(results),
        unavailable=tuple(unavailable),
        calls=None if judge.caller is None else judge.caller.calls,
        complete=not unavailable,
    )


def result_file(transfer: Transfer, folder: Path) -> Path:
    """Where a transfer is written in its run's folder: one file for each target and profile."""
    return folder / f"transfer-{re.sub(r'[^A-Za-z0-9._-]+', '-', f'{transfer.target}-{transfer.profile}')[:100]}.json"


def check_transferred(transfer: Transfer) -> None:
    """Refuse to call it done when no scenario could be judged.

    Raises:
        InsufficientError: there is none; the message says why for the first.
    """
    if not transfer.results:
        raise InsufficientError(f"{transfer.run}: nothing was transferred; {transfer.unavailable[0].reason}")


def _common(crops: CropSet, own: CropSet, views: tuple[View, View], finder: LandmarkFinder) -> _Pairs:
    place = {pair.id: i for i, pair in enumerate(own.pairs)}
    rows = np.array([i for i, pair in enumerate(crops.pairs) if pair.id in place], np.intp)
    if not len(rows):
        raise InsufficientError("no pair of the run has a face in the target's crops")
    there = own.index[[place[crops.pairs[i].id] for i in rows]]
    return _Pairs(
        rows=rows,
        clean=crops.images[crops.index[rows, 0]],
        references=crops.images[crops.index[rows, 1]],
        own=own.images[there[:, 0]],
        own_references=own.images[there[:, 1]],
        matrices=[between(*views, crops.pairs[i].probe, finder) for i in rows],
        genuine=np.array([crops.pairs[i].genuine for i in rows]),
    )


def _right(judge: Judge, probes: Crops, references: Crops, genuine: Bools) -> tuple[Bools, Bools]:
    """Whether each pair is decided rightly, and whether its probe was turned away."""
    same, failed = judge.same(probes, references)
    return (same == genuine) & ~failed, failed


def _baseline(pairs: _Pairs, judge: Judge) -> tuple[_Clean, list[Baseline]]:
    right, failed = _right(judge, pairs.own, pairs.own_references, pairs.genuine)
    sent = np.flatnonzero(right)
    carried = pairs.carry(pairs.clean[sent], sent)
    still, gone = _right(judge, carried, pairs.own_references[sent], pairs.genuine[sent])
    flips, lost = np.zeros((2, len(right)), np.bool_)
    flips[sent], lost[sent] = ~still & ~gone, gone
    baseline = [
        Baseline(
            goal,
            int(of.sum()),
            int((of & ~right & ~failed).sum()),
            int((of & failed).sum()),
            Rate(int((of & flips).sum()), int((of & right).sum())),
            int((of & lost).sum()),
        )
        for goal, of in zip(GOALS, (pairs.genuine, ~pairs.genuine), strict=True)
        if of.any()
    ]
    return _Clean(right, flips), baseline


def _probes(record: Record, attack: Attack, known: Profile, crops: CropSet, pairs: _Pairs) -> tuple[Crops, Bools]:
    """The run's 8-bit probes of all pairs, and whether they succeeded on the source."""
    manifest = record.manifest
    model, folder = attacked_model(manifest, attack), record.folder / "probes"
    series = Series(attack, known, model, crops, manifest.decision, record.seed, folder)
    # Float probes are four times as large, and never sent.
    chunks = [(chunk.crafted.probes8, chunk.crafted.success8) for chunk in read_crafted(series)]
    if sum(len(success8) for _, success8 in chunks) != len(crops.pairs):
        raise InputError(
            f"{folder}: probes of this attack are missing or damaged (or it was not run); "
            "give the audit's command again"
        )
    probes8, success8 = (np.concatenate(part) for part in zip(*chunks, strict=True))
    return probes8[pairs.rows], success8[pairs.rows]


def _scenario(
    name: tuple[str, str],
    pairs: _Pairs,
    crafted: tuple[Crops, Bools],
    eligible: Bools,
    clean: _Clean,
    judge: Judge,
) -> list[TransferResult]:
    """Both goals of one set of probes; a goal without pairs is left out."""
    probes8, success8 = crafted
    sent = np.flatnonzero(eligible & success8)
    carried, unattacked = pairs.carry(probes8[sent], sent), pairs.carry(pairs.clean[sent], sent)
    still, gone = _right(judge, carried, pairs.own_references[sent], pairs.genuine[sent])
    success = ~still & ~gone
    before = l2_norm(to_unit(probes8[sent]) - to_unit(pairs.clean[sent]))
    delta = to_unit(carried) - to_unit(unattacked)
    after, largest = l2_norm(delta), np.abs(delta).max(axis=(1, 2, 3))

    def result(goal: Goal, of: Bools) -> TransferResult:
        here, total = of[sent], int((of & eligible).sum())
        count, hits = int(here.sum()), int((success & here).sum())

        def median(values: NDArray[np.floating]) -> float | None:
            return float(np.median(values[here])) if count else None

        return TransferResult(
            *name,
            goal,
            eligible=total,
            crafted=count,
            failed=int((gone & here).sum()),
            asr=Rate(hits, total),
            of_crafted=Rate(hits, count),
            beyond_resampling=int((success & here & ~clean.flips[sent]).sum()),
            l2_source=median(before),
            l2=median(after),
            linf=median(largest),
        )

    goals = zip(GOALS, (pairs.genuine, ~pairs.genuine), strict=True)
    return [result(goal, of) for goal, of in goals if of.any()]


def _geometry(pairs: _Pairs) -> Geometry:
    scales = [np.sqrt(np.linalg.det(matrix[:2, :2])) for matrix in pairs.matrices]
    shares = [covered(pairs.clean[i], matrix, pairs.own[i]).mean() for i, matrix in enumerate(pairs.matrices)]
    source, target = (images.shape[2:0:-1] for images in (pairs.clean, pairs.own))
    return Geometry(source, target, float(np.median(scales)), float(min(shares)))
