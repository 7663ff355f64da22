"""Quantization: compare a quantized variant with the original on real pairs that were not used for calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InsufficientError
from toolkit.export.quantize import Precision, QuantizedFile, write_quantized
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.faces.rows import Rows
from toolkit.pixels import Bools, to_unit
from toolkit.progress import SILENT, Progress
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import fmr_fnmr
from toolkit.verifiers.crops import BATCH, crop_for, embed_crops, gather_embedded, temporary_folder
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Manifest, find_manifest, read_manifest
from toolkit.verifiers.parity import Parity, compare, pair_distances
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CleanErrors:
    """Error rates of clean pairs at the manifest's threshold."""

    fnmr: Rate
    fmr: Rate


@dataclass(frozen=True)
class QuantizationReport:
    """The written variant, and how it differs from the original on pairs that were not used for calibration.

    Attributes:
        written: the files.
        to: the precision of the variant.
        pairs_source: where the pairs come from.
        calibrated_on: the number of crops used for calibration.
        cosine_mean: the mean cosine similarity of a crop's two embeddings.
        cosine_min: the smallest cosine similarity of a crop's two embeddings.
        relative_max: the largest L2 difference of a crop's two embeddings, relative to the length of the original's.
        relative_p99: the 99th percentile of this relative difference over crops.
        parity: the largest absolute differences, and the number of flipped decisions.
        flips: flipped decisions over pairs.
        before: the clean error rates of the original.
        after: the clean error rates of the variant at the same threshold.
        score_difference: the largest difference of an attack score; None without a detector.
        alarms: crops that the detector flags in one variant only, over all crops; None without a detector.
        latency_ratio: the median ratio of the variant's latency to the original's, measured in adjacent calls with one
            crop (or the fixed batch size).
        latency_quartiles: the first and third quartile of these ratios.
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
    """A split of a pair set.

    Attributes:
        calibration: (N, H, W, 3) uint8, the crops for calibration.
        report: (n,), which pairs show none of the people in `calibration`.
    """

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
    progress: Progress = SILENT,
) -> QuantizationReport:
    """Write the quantized variant, and compare it with the original.

    See `quantize_verifier` for the arguments. `crops` are the aligned pairs, `pairs_source` describes where they come
    from, and `repeats` is how often the latency is measured. `progress` shows the embedding of the crops.

    Raises:
        InputError: the verifier cannot be quantized or run, or the output cannot be written.
        InsufficientError: no pair is left for the report.
        UsageError: the output's name cannot be used.
    """
    split = split_pairs(crops, calibration if to == "int8" else 0, seed)
    # With a seed, random profiles draw the same numbers in both verifiers. The original is loaded first, so that no
    # file is written if it cannot be run.
    original = RuntimeVerifier(manifest, execution=execution, seed=seed)
    written = write_quantized(manifest, to, output, split.calibration, pairs_source)
    variant = RuntimeVerifier(read_manifest(written.path), execution=execution, seed=seed)
    used, flat = np.unique(crops.index[split.report], return_inverse=True)
    index = flat.reshape(-1, 2)
    genuine = np.array([pair.genuine for pair in crops.pairs])[split.report]
    (before, scores), (after, scores_after) = (_embedded(v, crops, used, progress) for v in (original, variant))
    alarm = manifest.alarm
    changed = int(((scores > alarm) != (scores_after > alarm)).sum())
    parity = compare(after, before, index, manifest.decision, variant.provider)
    cosine, relative = _differences(before, after)
    graphs = [read_model(m) for m in (manifest, variant.manifest)]
    feed = original.tensor(np.repeat(to_unit(crops.images[used[:1]]), original.fixed_batch or 1, axis=0))
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
        alarms=Rate(changed, len(used)) if np.isfinite(alarm) else None,
        latency_ratio=ratio,
        latency_quartiles=(first, third),
    )


def _embedded(
    verifier: RuntimeVerifier, crops: CropSet, rows: NDArray[np.intp], progress: Progress
) -> tuple[NDArray[np.float32] | Rows, NDArray[np.float32]]:
    """The embeddings, on disk, and the attack scores of some crops."""
    done = progress.stage(verifier.manifest.name, len(rows))
    return gather_embedded(embed_crops(verifier, crops.images, done, rows=rows), temporary_folder())


def _differences(before: NDArray[np.float32] | Rows, after: NDArray[np.float32] | Rows) -> tuple[Floats, Floats]:
    """The cosine of each crop's two embeddings, and the length of their difference as a share of the first's."""
    cosine, relative = np.empty((2, len(before)), np.float32)
    for start in range(0, len(before), BATCH):
        part = slice(start, start + BATCH)
        one, other = before[part], after[part]
        length, length_after = (np.maximum(np.linalg.norm(side, axis=1), 1e-12) for side in (one, other))
        cosine[part] = np.sum(one * other, axis=1) / (length * length_after)
        relative[part] = np.linalg.norm(other - one, axis=1) / length
    return cosine, relative


def split_pairs(crops: CropSet, count: int, seed: int) -> Split:
    """Choose random people for calibration until they have `count` crops.

    A pair is used for the report only if neither image shows one of these people. If pairs have no identities, each
    image counts as a separate person.

    Raises:
        InsufficientError: no pair is left for the report.
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
            f"no pair is left without the {len(apart)} people used for calibration; lower --calibration, or give more "
            "pairs"
        )
    return Split(crops.images[sorted(chosen)[:count]], report)


def _clean_errors(
    embeddings: NDArray[np.float32] | Rows, index: NDArray[np.intp], genuine: Bools, manifest: Manifest
) -> CleanErrors:
    d = pair_distances(manifest.decision.metric, embeddings, index)
    fmr, fnmr = fmr_fnmr(d, genuine, manifest.decision.threshold)
    return CleanErrors(fnmr, fmr)


def quantize_verifier(
    model: str | Path | Manifest,
    output: str | Path,
    precision: Precision = "int8",
    pairs: PairSet | Path | str | None = None,
    *,
    calibration: int = 32,
    seed: int = 0,
    execution: Execution | None = None,
    progress: Progress = SILENT,
) -> QuantizationReport:
    """Write an int8 or fp16 variant of a verifier, hardened or not, and compare the two on real pairs.

    Args:
        model: a shipped model's name, an .onnx file with a manifest beside it, a `model.toml`, or a manifest.
        output: the .onnx file to write.
        precision: fp16, or int8 (static, per channel, calibrated).
        pairs: pairs from `load_pairs`, or their path. The default is the generated faces of the toolkit.
        calibration: the number of crops for the calibration of int8. The people in them are left out of the comparison.
        seed: the seed for the choice of calibration crops.
        execution: how ONNX Runtime runs both verifiers.
        progress: shows how many faces are aligned and embedded.

    Raises:
        SixpixelsError: the model cannot be quantized, or the pairs cannot be used or are too few.
    """
    manifest, chosen = find_manifest(model), find_pairs(pairs)
    crops = crop_for(manifest, chosen, progress)
    ran = execution or Execution()
    source = chosen.source
    return run_quantization(manifest, precision, Path(output), crops, source, calibration, ran, seed, progress=progress)
