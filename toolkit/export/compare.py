"""A quantized variant beside the verifier that it was made from, on real pairs that it was not calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Bools, to_unit
from toolkit.errors import InsufficientError
from toolkit.export.parity import Parity, compare
from toolkit.export.quantize import Precision, QuantizedFile, write_quantized
from toolkit.faces.crops import CropSet
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import fmr_fnmr
from toolkit.verifiers.edge import model_input
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Manifest, read_manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model
from toolkit.verifiers.scores import distances


@dataclass(frozen=True)
class CleanErrors:
    """At the manifest's threshold."""

    fnmr: Rate
    fmr: Rate


@dataclass(frozen=True)
class QuantizationReport:
    """What was written, and what it changes; all but the calibration is of the pairs that are left for the report.

    Attributes:
        calibrated_on: crops.
        cosine_mean: of a crop's two embeddings.
        cosine_min: the smallest.
        relative_max: the largest length of an embedding's difference, over the length of the original's embedding.
        relative_p99: its 99th percentile over crops.
        parity: largest differences, and flipped decisions.
        flips: flipped decisions over pairs.
        before: clean errors of the original.
        after: clean errors of the variant, at the same threshold.
        score_difference: the largest of attack scores; None without a detector.
        alarms: crops that the detector flags in one and not in the other, over crops; None without a detector.
        latency_ratio: time of a call with one crop (or the fixed batch) over that of the original's call beside it,
            the median of them.
        latency_quartiles: the first and the third of those ratios.
    """

    written: QuantizedFile
    to: Precision
    pairs_source: str
    calibrated_on: int
    cosine_mean: float
    cosine_min: float
    relative_max: float
    relative_p99: float
    parity: Parity
    flips: Rate
    before: CleanErrors
    after: CleanErrors
    score_difference: float | None
    alarms: Rate | None
    latency_ratio: float
    latency_quartiles: tuple[float, float]


@dataclass(frozen=True)
class Split:
    """Crops (N, H, W, 3) for calibration, and which of the pairs (n,) show nobody of them."""

    calibration: NDArray[np.uint8]
    report: Bools


def run_quantization(
    manifest: Manifest,
    to: Precision,
    output: Path,
    crops: CropSet,
    pairs_source: str,
    calibration: int,
    execution: Execution,
    seed: int,
    repeats: int = 20,
) -> QuantizationReport:
    """Write the variant and compare it with the original.

    Raises:
        InputError: the verifier cannot be quantized or run, or the output cannot be written.
        InsufficientError: no pair is left for the report.
        UsageError: the output's name cannot be used.
    """
    split = split_pairs(crops, calibration if to == "int8" else 0, seed)
    # With a seed random profiles draw the same in both. What cannot be run is refused before a file is written.
    original = RuntimeVerifier(manifest, execution=execution, seed=seed)
    written = write_quantized(manifest, to, output, split.calibration, pairs_source)
    variant = RuntimeVerifier(read_manifest(written.path), execution=execution, seed=seed)
    used, flat = np.unique(crops.index[split.report], return_inverse=True)
    images, index = to_unit(crops.images[used]), flat.reshape(-1, 2)
    genuine = np.array([pair.genuine for pair in crops.pairs])[split.report]
    (before, scores), (after, scores_after) = (verifier.embed_and_score(images) for verifier in (original, variant))
    alarm = manifest.alarm
    changed = int(((scores > alarm) != (scores_after > alarm)).sum())
    parity = compare(after, before, index, manifest.decision, variant.provider)
    length, length_after = (np.maximum(np.linalg.norm(side, axis=1), 1e-12) for side in (before, after))
    cosine = np.sum(before * after, axis=1) / (length * length_after)
    relative = np.linalg.norm(after - before, axis=1) / length
    graphs = [read_model(m) for m in (manifest, variant.manifest)]
    feed = model_input(np.repeat(images[:1], original.fixed_batch or 1, axis=0), manifest.input)
    times = latencies(graphs, [feed], variant.provider, execution.threads, repeats)[:, 0]
    first, ratio, third = (float(q) for q in np.percentile(times[1] / times[0], [25, 50, 75]))
    return QuantizationReport(
        written=written,
        to=to,
        pairs_source=pairs_source,
        calibrated_on=len(split.calibration),
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        relative_max=float(relative.max()),
        relative_p99=float(np.percentile(relative, 99)),
        parity=parity,
        flips=Rate(parity.flips, parity.pairs),
        before=_clean_errors(before, index, genuine, manifest),
        after=_clean_errors(after, index, genuine, manifest),
        score_difference=float(np.abs(scores_after - scores).max()) if manifest.detector else None,
        alarms=Rate(changed, len(images)) if np.isfinite(alarm) else None,
        latency_ratio=ratio,
        latency_quartiles=(first, third),
    )


def split_pairs(crops: CropSet, count: int, seed: int) -> Split:
    """Set people apart for calibration, one after the other by chance, until they have `count` crops.

    A pair is reported on only if neither of its sides shows one of them; where pairs name no identities, every image is
    taken for a person of its own.

    Raises:
        InsufficientError: no pair is left.
    """
    person = {}
    for pair in crops.pairs:
        person[pair.probe] = pair.probe_identity or pair.probe
        person[pair.reference] = pair.reference_identity or pair.reference
    people: dict[str, list[int]] = {}
    for place, name in enumerate(crops.names):
        people.setdefault(person[name], []).append(place)
    apart: set[str] = set()
    chosen: list[int] = []
    for at in np.random.default_rng(seed).permutation(len(people)):
        if len(chosen) >= count:
            break
        name = list(people)[at]
        apart.add(name)
        chosen += people[name]
    report = np.array([not {person[p.probe], person[p.reference]} & apart for p in crops.pairs], np.bool_)
    if not report.any():
        raise InsufficientError(
            f"no pair is left besides the {len(apart)} people of the calibration; lower --calibration, or "
            "give more pairs"
        )
    return Split(crops.images[sorted(chosen)[:count]], report)


def _clean_errors(
    embeddings: NDArray[np.float32], index: NDArray[np.intp], genuine: Bools, manifest: Manifest
) -> CleanErrors:
    d = distances(manifest.decision.metric, embeddings[index[:, 0]], embeddings[index[:, 1]])
    fmr, fnmr = fmr_fnmr(d, genuine, manifest.decision.threshold)
    return CleanErrors(fnmr, fmr)
