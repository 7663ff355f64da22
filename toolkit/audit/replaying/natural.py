"""The suite `natural`: how a profile decides about probes as cameras make them.

A corruption is no attack, and is never evidence for or against one. It changes the probe of every pair; references
stay clean, as they were enrolled. A probe that the profile's detector flags counts as refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import measurer
from toolkit.audit.clean.bench import Verifiers
from toolkit.audit.clean.group import reference_distances
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.artifacts import decode_decisions, encode_decisions, read_artifact
from toolkit.audit.crafting.craft import CHUNK, pair_generator
from toolkit.faces import corruptions
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS, Corruption, corrupt
from toolkit.faces.crops import CropSet
from toolkit.files import sha256, write_bytes
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


def decide_natural(
    bench: Verifiers, profile: Profile, crops: CropSet, clean: CleanRun, folder: Path, done: Callable[[int], None]
) -> NaturalDecisions:
    """Decide every pair under every corruption. The decisions are saved, so that an interrupted audit can continue.

    Args:
        bench: the verifiers.
        profile: the deployed profile.
        crops: n pairs.
        clean: the clean run of the same profile.
        folder: folder of the artifacts.
        done: called with the number of pairs just finished, once for each corruption.
    """
    decision = bench.manifest.decision
    flagged = clean.scores[crops.index[:, 0]] > clean.alarm
    found = {}
    for corruption in CORRUPTIONS:
        parts = []
        for start in range(0, len(crops.pairs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(crops.pairs)))
            path = folder / f"{_key(bench, profile, corruption, crops, rows)}.decisions"
            accepted = decode_decisions(read_artifact(path), (len(rows), STRENGTHS))
            if accepted is None:
                accepted = _decide(bench, profile, corruption, crops, clean, rows)
                write_bytes(path, encode_decisions(accepted))
            parts.append(accepted)
            done(len(rows))
        found[corruption.name] = np.concatenate(parts)
    return NaturalDecisions(profile, is_same(decision, clean.distances) & ~flagged, found)


def _decide(
    bench: Verifiers, profile: Profile, corruption: Corruption, crops: CropSet, clean: CleanRun, rows: NDArray[np.intp]
) -> Bools:
    """Whether each pair is accepted at each strength, (m, 5)."""
    verifier, decision = bench.deployed(profile), bench.manifest.decision
    pixels = crops.images[crops.index[rows, 0]]
    names = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
    columns = []
    for strength in range(1, STRENGTHS + 1):
        # The same draws at each strength, so that a stronger one does the same, but more of it.
        generators = [pair_generator(bench.seed, f"natural {corruption.name}", name) for name in names]
        probes = to_unit(to_8bit(corrupt(corruption, to_unit(pixels), strength, generators)))
        embeddings, scores = verifier.embed_and_score(probes)
        d = reference_distances(crops, rows, clean.embeddings, embeddings, measurer(verifier, decision))
        columns.append(is_same(decision, d) & (scores <= clean.alarm))
    return np.stack(columns, axis=1)


def _key(bench: Verifiers, profile: Profile, corruption: Corruption, crops: CropSet, rows: NDArray[np.intp]) -> str:
    references = crops.index[rows, 1] if crops.gallery is None else crops.gallery
    pixels = hashlib.sha256(crops.images[crops.index[rows, 0]].tobytes() + crops.images[references].tobytes())
    content = {
        "decisions": corruption.name,
        "code": [sha256(Path(corruptions.__file__)), cv2.__version__],
        "profile": profile.sha256,
        "model": [bench.model_sha256, bench.manifest.reading],
        "decision": asdict(bench.manifest.decision),
        "seed": bench.seed,
        "pairs": [crops.pairs[row].id for row in rows],
        "images": pixels.hexdigest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


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
