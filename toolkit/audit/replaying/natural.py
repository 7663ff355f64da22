"""The suite `natural`: how a profile decides about probes as cameras make them.

A corruption is no attack, and is never evidence for or against one. It changes the probe of every pair; references
stay clean, as they were enrolled. A probe that the profile's detector flags counts as refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import artifact_name, decode_decisions, encode_decisions
from toolkit.audit.crafting.craft import pair_generator
from toolkit.audit.crafting.jobs import InProcess, Parcel, Pool, Step, finish_all
from toolkit.audit.replaying.presented import Presented, chunk_rows, presented, shown_content, unpacked_presented
from toolkit.errors import InputError
from toolkit.faces import corruptions
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS, Corruption, corrupt
from toolkit.faces.crops import CropSet
from toolkit.files import sha256
from toolkit.pixels import Bools, to_8bit, to_unit
from toolkit.profiles.profile import Profile
from toolkit.statistics.intervals import Rate
from toolkit.statistics.tests import holm_of_known, mcnemar
from toolkit.verifiers.scores import is_same


@dataclass(frozen=True)
class NaturalResult:
    """The errors of one profile under one corruption, compared with the bare verifier on the same images.

    Attributes:
        profile: name of the profile.
        corruption: name of the corruption.
        strength: from 1, the mildest, to 5.
        value: what the strength means; see `corruptions.CORRUPTIONS`.
        kind: errors of genuine pairs (`fnmr`) or impostor pairs (`fmr`).
        rate: errors over all pairs of the kind.
        lost: pairs that became wrong, over those that the profile decides correctly without the corruption.
        worse, better: pairs that are wrong behind this profile only, and bare only; None for the bare verifier, or
            without it.
        p_value, p_adjusted: of the exact McNemar test of these, before and after Holm's correction over all tests of
            the run; None like them.
    """

    profile: str
    corruption: str
    strength: int
    value: float
    kind: Literal["fnmr", "fmr"]
    rate: Rate
    lost: Rate
    worse: int | None
    better: int | None
    p_value: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class NaturalDecisions:
    """What one profile accepts: without a corruption (n,), and by corruption at each strength (n, 5)."""

    profile: Profile
    clean: Bools
    corrupted: Mapping[str, Bools]


@dataclass(frozen=True)
class NaturalJob:
    """The decisions about some pairs under one corruption."""

    corruption: Corruption
    pairs: Presented

    @property
    def name(self) -> str:
        """See `Job`."""
        return f"natural {self.pairs.profile.name}"

    def run(self, bench: Verifiers) -> bytes:
        """Decide whether each pair is accepted at each strength."""
        pixels, every = self.pairs.pixels, np.arange(len(self.pairs.ids))
        names = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
        columns = []
        for strength in range(1, STRENGTHS + 1):
            # The same draws at each strength, so that a stronger one does the same, but more of it.
            generators = [pair_generator(bench.seed, f"natural {self.corruption.name}", name) for name in names]
            probes = to_unit(to_8bit(corrupt(self.corruption, to_unit(pixels), strength, generators)))
            columns.append(self.pairs.accepted(bench, every, probes))
        return encode_decisions(np.stack(columns, axis=1))

    def parcel(self) -> Parcel:
        """See `Job`."""
        return self.pairs.parcel("natural", {"corruption": self.corruption.name, "code": _code()})


def natural_job(parcel: Parcel, seed: int) -> NaturalJob:  # noqa: ARG001 - the bench has the seed
    """Read the job in a parcel.

    Raises:
        InputError: the profile or the code of the corruptions differs from that of the audit.
    """
    if parcel.header["code"] != _code():
        raise InputError("this worker and the audit have different code of the corruptions; install the same version")
    corruption = next(one for one in CORRUPTIONS if one.name == parcel.header["corruption"])
    return NaturalJob(corruption, unpacked_presented(parcel))


def decide_natural(
    bench: Verifiers,
    profile: Profile,
    crops: CropSet,
    clean: CleanRun,
    folder: Path,
    done: Callable[[int], None],
    pool: Pool | None = None,
) -> NaturalDecisions:
    """Decide every pair under every corruption. The decisions are saved, so that an interrupted audit can continue.

    Args:
        bench: the verifiers.
        profile: the deployed profile.
        crops: n pairs.
        clean: the clean run of the same profile.
        folder: folder of the artifacts.
        done: called with the number of pairs just finished, once for each corruption.
        pool: who decides. Default: this process.
    """
    decision = bench.manifest.decision
    flagged = clean.scores[crops.index[:, 0]] > clean.alarm

    def job(corruption: Corruption, rows: NDArray[np.intp]) -> NaturalJob:
        return NaturalJob(corruption, presented(profile, crops, clean, decision, rows))

    def steps() -> Iterator[Step[tuple[str, int], Bools]]:
        for corruption in CORRUPTIONS:
            for rows in chunk_rows(crops):
                path = folder / f"{_key(bench, profile, corruption, crops, rows)}.decisions"
                decode = partial(decode_decisions, shape=(len(rows), STRENGTHS))
                about, work = (corruption.name, len(rows)), partial(job, corruption, rows)
                yield Step(f"natural {profile.name}", about, path, decode, work)

    parts: dict[str, list[Bools]] = {}
    for (name, count), accepted in finish_all(steps(), pool or InProcess(bench)):
        parts.setdefault(name, []).append(accepted)
        done(count)
    found = {name: np.concatenate(of_name) for name, of_name in parts.items()}
    return NaturalDecisions(profile, is_same(decision, clean.distances) & ~flagged, found)


def _code() -> list[str]:
    return [sha256(Path(corruptions.__file__)), cv2.__version__]


def _key(bench: Verifiers, profile: Profile, corruption: Corruption, crops: CropSet, rows: NDArray[np.intp]) -> str:
    content = {"decisions": corruption.name, "code": _code(), **shown_content(bench, profile, crops, rows)}
    return artifact_name(content)


def natural_results(decisions: Sequence[NaturalDecisions], genuine: Bools) -> list[NaturalResult]:
    """Summarize decisions by profile, corruption, strength and kind of pair, and compare them with the bare verifier.

    Args:
        decisions: those of each profile, on the same n pairs.
        genuine: (n,), whether each pair is of one person.
    """
    bare = next((one for one in decisions if one.profile.empty), None)
    found = [
        _result(one, None if one is bare else bare, corruption, strength, kind, of_kind, genuine)
        for one in decisions
        for corruption in CORRUPTIONS
        for strength in range(1, STRENGTHS + 1)
        for kind, of_kind in _kinds(genuine)
    ]
    adjusted = holm_of_known([result.p_value for result in found])
    return [replace(result, p_adjusted=p) for result, p in zip(found, adjusted, strict=True)]


def _kinds(genuine: Bools) -> list[tuple[Literal["fnmr", "fmr"], Bools]]:
    kinds: list[tuple[Literal["fnmr", "fmr"], Bools]] = [("fnmr", genuine), ("fmr", ~genuine)]
    return [(kind, of_kind) for kind, of_kind in kinds if of_kind.any()]


def _result(
    one: NaturalDecisions,
    bare: NaturalDecisions | None,
    corruption: Corruption,
    strength: int,
    kind: Literal["fnmr", "fmr"],
    of_kind: Bools,
    genuine: Bools,
) -> NaturalResult:
    wrong = one.corrupted[corruption.name][:, strength - 1] != genuine
    right_before = of_kind & (one.clean == genuine)
    worse = better = p_value = None
    if bare is not None:
        bare_wrong = bare.corrupted[corruption.name][:, strength - 1] != genuine
        worse, better = int((of_kind & wrong & ~bare_wrong).sum()), int((of_kind & bare_wrong & ~wrong).sum())
        p_value = mcnemar(worse, better)
    return NaturalResult(
        profile=one.profile.name,
        corruption=corruption.name,
        strength=strength,
        value=float(corruption.values[strength - 1]),
        kind=kind,
        rate=Rate(int((wrong & of_kind).sum()), int(of_kind.sum())),
        lost=Rate(int((wrong & right_before).sum()), int(right_before.sum())),
        worse=worse,
        better=better,
        p_value=p_value,
        p_adjusted=None,
    )
