"""Transfer: resamples the probes of a finished run to another verifier's crop, and tests them on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from toolkit.attacks.base import Attack
from toolkit.audit.crafting.carried import Carried, Crops, Places, carried_pairs
from toolkit.audit.crafting.craft import Series, attacked_model, read_crafted
from toolkit.audit.plan import GOALS, Goal, Unavailable, make_plan
from toolkit.audit.results.record import Record, read_record
from toolkit.audit.transfer.joint import Further, Joint, jointly
from toolkit.audit.transfer.judge import Judge, all_decided_rightly, find_judge, local_judge
from toolkit.audit.transfer.tested import Some, Tested, TransferResult
from toolkit.documents import to_json
from toolkit.errors import InputError, InsufficientError, SixpixelsError
from toolkit.faces.alignment import LandmarkFinder
from toolkit.faces.carry import covered
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.files import write_bytes
from toolkit.pixels import Bools
from toolkit.profiles.profile import Profile, find_profile
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution


@dataclass(frozen=True)
class Geometry:
    """How the source's crops map to the target's crops.

    Attributes:
        source, target: width and height of the crops, in pixels.
        scale: target pixels per source pixel; the median over the probes.
        covered: the smallest share of a target crop that the source crop covers. The original photo fills the rest.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    scale: float
    covered: float


@dataclass(frozen=True)
class Baseline:
    """The target's decisions without an attack, for one goal.

    Attributes:
        goal: the goal.
        pairs: number of pairs.
        clean_errors: pairs that the target decides wrongly.
        failed: pairs that the target rejects without a decision (no face, or flagged).
        flips: pairs that flip when their clean probe is resampled like the attacked probes, over pairs that the target
            decides correctly.
        lost: pairs that the target rejects without a decision after this resampling. They do not count as flips.
    """

    goal: Goal
    pairs: int
    clean_errors: int
    failed: int
    flips: Rate
    lost: int


@dataclass(frozen=True)
class Transfer:
    """The results of a run's probes on one target.

    Attributes:
        run, pairs_source: the run, and where its pairs come from.
        source, source_identity: the verifier that the probes were crafted on, and the SHA-256 of its file.
        target, target_identity: the verifier that they were tested on, and the SHA-256 of its file, or its address.
        profile: the target's profile; "none" for a remote target, whose profile is unknown.
        geometry: how crops were resampled.
        left_out: pairs without a face in the target's crops.
        baseline: the target's decisions without an attack.
        results: the results of each set of probes.
        unavailable: sets of probes that could not be tested, and why.
        calls: number of calls of a remote target; None for a local one.
        complete: whether all sets of probes were tested.
        further: the further verifiers that joint probes were crafted on, besides the source.
    """

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
    further: tuple[Further, ...] = ()


@dataclass(frozen=True)
class _Clean:
    """The target's clean decisions, (n,) and (n,): whether each is correct, and whether resampling alone flips it."""

    right: Bools
    flips: Bools


@dataclass(frozen=True)
class _Tests:
    """Tests of sets of probes on the target: what they found, and which could not be done."""

    pairs: Carried
    clean: _Clean
    judge: Judge
    progress: Progress
    results: list[TransferResult] = field(default_factory=list)
    unavailable: list[Unavailable] = field(default_factory=list)

    def add(
        self,
        name: tuple[str, str],
        eligible: Callable[[], Bools],
        crafted: Callable[[], Iterator[Some]],
        *,
        joint: bool = False,
    ) -> None:
        """Test the probes `crafted` by the attack and for the profile `name`, a few pairs at a time."""
        label = f"{name[0]} on {'several verifiers' if joint else name[1]}"
        stage, told = self.progress.stage(label, len(self.pairs)), 0
        try:
            tested = Tested(self.pairs, eligible())
            for some in crafted():
                tested.take(self.judge, *some)
                stage(len(some[0]))
                told += len(some[0])
            self.results.extend(tested.results(name, self.clean.flips, joint=joint))
        except SixpixelsError as error:
            self.unavailable.append(Unavailable(label, str(error)))
        stage(len(self.pairs) - told)


def run_transfer(
    record: Record, judge: Judge, execution: Execution, progress: Progress, further: Sequence[Manifest] = ()
) -> Transfer:
    """Test the probes of a finished run on another verifier.

    Only probes of eligible pairs that succeeded on the source are sent. If the target cannot test a set of probes
    (because it does not answer, or no calls are left), the others go on.

    Args:
        record: the run.
        judge: the target.
        execution: how ONNX Runtime runs the source on clean pairs.
        progress: shows every set of probes.
        further: verifiers to craft joint probes on, together with the source; see `Joint`.

    Raises:
        UsageError: there are further verifiers, but no attack by gradients, or one of them is the target.
        InsufficientError: no pair has a face in the crops of both source and target.
        SixpixelsError: the source cannot run, or the target cannot decide the clean pairs.
    """
    manifest, finder = record.manifest, LandmarkFinder(record.pairs.root)
    by_gradients = jointly(record.attacks, further, judge)
    views = (view_of(manifest.input, manifest.alignment), judge.view)
    crops, own = (
        crop_pairs(record.pairs, view.width, view.height, view.template, finder, spill=record.folder) for view in views
    )
    pairs = carried_pairs(crops, own, views, finder)
    clean, baseline = _baseline(pairs, judge)

    @cache
    def eligible(known: Profile) -> Bools:
        source = local_judge(manifest, known, execution, record.seed)
        return all_decided_rightly(source, pairs.seen_by_source, pairs.genuine, pairs.places)[0] & clean.right

    tests = _Tests(pairs, clean, judge, progress)
    for attack, known in make_plan(record.attacks, record.profiles, record.knowledge, None).crafts:
        read = partial(_probes, record, attack, known, crops, pairs)
        tests.add((attack.name, known.name), partial(eligible, known), read)
    if further:
        joint, bare = Joint(record, further, crops, pairs.rows, execution), find_profile("none")
        able = eligible(bare) & joint.right
        for attack in by_gradients:
            tests.add((attack.name, bare.name), lambda: able, partial(joint.craft, attack, able), joint=True)
    return Transfer(
        run=record.folder.resolve().name,
        pairs_source=record.pairs.source,
        source=manifest.name,
        source_identity=model_sha256(manifest.model),
        target=judge.name,
        target_identity=judge.identity,
        profile=judge.profile,
        geometry=_geometry(pairs),
        left_out=len(record.pairs.pairs) - len(pairs),
        baseline=tuple(baseline),
        results=tuple(tests.results),
        unavailable=tuple(tests.unavailable),
        calls=None if judge.caller is None else judge.caller.calls,
        complete=not tests.unavailable,
        further=tuple(Further(m.name, model_sha256(m.model)) for m in further),
    )


def result_file(transfer: Transfer, folder: Path) -> Path:
    """The file of a transfer in the folder of its run, one for each target and profile."""
    return folder / f"transfer-{re.sub(r'[^A-Za-z0-9._-]+', '-', f'{transfer.target}-{transfer.profile}')[:100]}.json"


def check_transferred(transfer: Transfer) -> None:
    """Check that at least one set of probes was tested.

    Raises:
        InsufficientError: none was tested; the message gives the reason for the first one.
    """
    if not transfer.results:
        raise InsufficientError(f"{transfer.run}: nothing was transferred; {transfer.unavailable[0].reason}")


def _baseline(pairs: Carried, judge: Judge) -> tuple[_Clean, list[Baseline]]:
    right, failed = all_decided_rightly(judge, pairs.seen_by_target, pairs.genuine, pairs.places)

    def resampled(places: Places) -> tuple[Crops, Crops]:
        return pairs.carry(pairs.clean(places), places), pairs.own_references(places)

    still, lost = all_decided_rightly(judge, resampled, pairs.genuine, np.flatnonzero(right))
    flips = right & ~still & ~lost
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


def _probes(record: Record, attack: Attack, known: Profile, crops: CropSet, pairs: Carried) -> Iterator[Some]:
    """Read the run's 8-bit probes."""
    manifest = record.manifest
    model, folder = attacked_model(manifest, attack), record.folder / "probes"
    series = Series(attack, known, model, crops, manifest.decision, record.seed, folder)
    gone = InputError(
        f"{folder}: probes of this attack are missing or damaged (or the attack was not run, or its code has "
        "changed since); give the audit's command again"
    )
    # Before the first probe is sent, because a remote target's calls are limited.
    chunks = list(series.chunks())
    if not all(path.is_file() for _, path in chunks):
        raise gone
    done = 0
    for chunk in read_crafted(series, chunks):
        here = np.isin(chunk.rows, pairs.rows)
        yield (
            np.searchsorted(pairs.rows, chunk.rows[here]),
            chunk.crafted.probes8[here],
            chunk.crafted.success8[here],
        )
        done += len(chunk.rows)
    if done != len(crops.pairs):
        raise gone


def _geometry(pairs: Carried) -> Geometry:
    scales, shares = [], []
    for place, matrix in enumerate(pairs.matrices):
        at = np.array([place])
        scales.append(np.sqrt(np.linalg.det(matrix[:2, :2])))
        shares.append(covered(pairs.clean(at)[0], matrix, pairs.own(at)[0]).mean())
    source, target = (crops.images.shape[2:0:-1] for crops in (pairs.source, pairs.target))
    return Geometry((source[0], source[1]), (target[0], target[1]), float(np.median(scales)), float(min(shares)))


def replay_run(
    run: Path | str,
    on: str | None = None,
    *,
    remote: Path | None = None,
    profile: str = "none",
    sources: Sequence[str | Path] = (),
    execution: Execution | None = None,
    progress: Progress = SILENT,
) -> Transfer:
    """Test the probes of a finished audit on another verifier, and write the results into the run's folder.

    Args:
        run: folder of the audit.
        on: the other verifier, as for an audit.
        remote: or a `remote.toml`, which describes a remote verifier. Its server is called.
        profile: the profile that `on` is deployed with.
        sources: further verifiers. The run's attacks by gradients craft new probes on its verifier and on these at
            once, and these probes are tested as well.
        execution: how ONNX Runtime runs local verifiers.
        progress: shows every set of probes.

    Raises:
        UsageError: both verifiers are named, or none, or `sources` cannot be used; see `run_transfer`.
        SixpixelsError: the run is not finished or has changed, or a verifier cannot be used.
    """
    folder, ran = Path(run), execution or Execution()
    record = read_record(folder)
    judge = find_judge(on, remote, profile, ran, record.seed)
    transfer = run_transfer(record, judge, ran, progress, [find_manifest(source) for source in sources])
    write_bytes(result_file(transfer, folder), to_json(transfer).encode())
    return transfer
