"""What clean pairs say of a verifier: its error rates, and thresholds for rates of false matches and false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.result import CleanResult, clean_result, crop_members, pair_members, people_of
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.clean.suspicions import clean_suspicions
from toolkit.audit.crafting.jobs import InProcess, Pool
from toolkit.audit.embedding import run_clean_by
from toolkit.audit.replaying.detection import DetectorCalibration, calibrate_detector
from toolkit.audit.workers import ALONE, Workers, open_pool
from toolkit.errors import InputError, InsufficientError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, find_pairs
from toolkit.files import bundled
from toolkit.profiles import detector
from toolkit.profiles.profile import Profile, find_profile, read_profile
from toolkit.progress import SILENT, Progress
from toolkit.statistics.calibration import Calibration, calibrate
from toolkit.statistics.verification import CrossValidation, best_threshold, cross_validated_accuracy
from toolkit.verifiers.crops import crop_for, temporary_folder
from toolkit.verifiers.manifest import Manifest, find_manifest, write_threshold
from toolkit.verifiers.runtime import Execution


@dataclass(frozen=True)
class Spread:
    """Who embeds the clean crops, and where the embeddings stay.

    Attributes:
        workers: who embeds. No number depends on it.
        work: a folder that keeps the embeddings, so that the same call continues an interrupted one. None keeps them
            only while they are needed.
    """

    workers: Workers = ALONE
    work: Path | None = None


def clean_runs(
    bench: Bench, profiles: Sequence[Profile], crops: CropSet, spread: Spread | None = None, progress: Progress = SILENT
) -> list[CleanRun]:
    """Run the deployed verifier behind each profile on clean pairs.

    Args:
        bench: the verifiers.
        profiles: the profiles.
        crops: the pairs.
        spread: who embeds the crops. Default: this process.
        progress: shows one stage for each profile.

    Raises:
        SixpixelsError: the verifier cannot be run behind a profile, the workers fail, or the folder cannot be written.
    """
    spread = spread or Spread()
    with ExitStack() as opened:
        folder = spread.work or Path(opened.enter_context(TemporaryDirectory()))
        # Alone, ONNX Runtime spreads each batch over all cores. It is gradients whose memory limits an audit's threads.
        alone = spread.workers == ALONE
        pool: Pool = InProcess(bench) if alone else opened.enter_context(open_pool(spread.workers, bench))
        return [run_clean_by(pool, bench, p, crops, temporary_folder(), folder, progress) for p in profiles]


@dataclass(frozen=True)
class Evaluation:
    """Clean error rates of a verifier.

    Attributes:
        model, provider: the verifier, and the provider that it ran on.
        provider_requested: the provider that was asked for; "auto" for the best of this machine.
        pairs_source, genuine, impostor: the pairs, and the number of each kind.
        left_out: pairs without a face, each with the reason.
        threshold: the manifest's threshold.
        clean: error rates at this threshold, and at all others.
        best_threshold: the threshold with the best accuracy on these same pairs. That accuracy is too optimistic to
            quote.
        cross_validated: accuracy with the threshold chosen on the other folds.
        folds: how the folds were made.
        warnings: what makes these numbers worth nothing, the gravest first; see `clean_suspicions`.
    """

    model: str
    provider: str
    provider_requested: str
    pairs_source: str
    genuine: int
    impostor: int
    left_out: tuple[str, ...]
    threshold: float
    clean: CleanResult
    best_threshold: float
    cross_validated: CrossValidation
    folds: str
    warnings: tuple[str, ...]


def evaluate_verifier(
    model: str | Path | Manifest,
    pairs: PairSet | Path | str | None = None,
    *,
    seed: int = 0,
    execution: Execution | None = None,
    spread: Spread | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measure accuracy, EER and FNMR at fixed FMR on clean pairs, with intervals.

    Args:
        model: a shipped model's name, an .onnx file with a manifest beside it, a `model.toml`, or a manifest.
        pairs: from `load_pairs`, or a path to pairs. Default: the generated faces that ship with the toolkit.
        seed: seed of random folds, of the bootstrap, and of what the file draws.
        execution: how ONNX Runtime runs the model.
        spread: who embeds the crops. Default: this process.
        progress: shows the alignment of the faces, and their embedding.

    Raises:
        SixpixelsError: the model or the pairs cannot be used, or there are too few pairs.
    """
    manifest = find_manifest(model)
    bench = Bench(manifest, execution or Execution(), seed)
    chosen = find_pairs(pairs)
    return evaluate(bench, crop_for(manifest, chosen, progress), chosen.source, spread, progress)


def calibrate_verifier(
    model: str | Path | Manifest,
    fmr: float,
    profile: str | Path | Profile = "none",
    pairs: PairSet | Path | str | None = None,
    *,
    confidence: float = 0.95,
    point_estimate: bool = False,
    write: bool = False,
    seed: int = 0,
    spread: Spread | None = None,
    progress: Progress = SILENT,
) -> Calibration:
    """Find the largest threshold that holds a false match rate, by its upper bound on clean pairs.

    The bound allows for people who are in several pairs. If pairs do not name their people, it allows for images that
    are in several pairs.

    Args:
        model: see `evaluate_verifier`.
        fmr: the false match rate, between 0 and 1.
        profile: the profile that the verifier is deployed with: a shipped name, a .toml file, or a profile.
        pairs: see `evaluate_verifier`.
        confidence: the true rate is at most `fmr` with this one-sided confidence, at least 0.5 and below 1.
        point_estimate: hold the rate on these pairs only. The true rate is then about as often above as below.
        write: write the threshold into the verifier's manifest, and into its provenance how it was chosen.
        seed: seed of the bootstrap over people, and of what the file draws.
        spread: who embeds the crops. Default: this process.
        progress: shows the alignment of the faces, and their embedding.

    Raises:
        InsufficientError: there are too few pairs to show this rate.
        UsageError: `write` is given with a profile, or for a shipped verifier.
        SixpixelsError: the model, the profile or the pairs cannot be used.
    """
    manifest, deployed = find_manifest(model), find_profile(profile)
    if write:
        _check_writable(manifest, deployed)
    bench, chosen = Bench(manifest, Execution(), seed), find_pairs(pairs)
    crops = crop_for(manifest, chosen, progress)
    distances = clean_runs(bench, [deployed], crops, spread, progress)[0].distances
    genuine, members = np.array([pair.genuine for pair in crops.pairs]), pair_members(crops)
    result = calibrate(distances, genuine, fmr, confidence, members, point_estimate=point_estimate, seed=seed)
    threshold, largest = result.chosen.threshold, manifest.decision.maximum
    if threshold >= largest:
        raise InputError(
            f"{manifest.path}: the threshold would be {threshold:g}, but the maximum is {largest:g}; correct the "
            "manifest's maximum"
        )
    if write:
        write_threshold(manifest, threshold, f"{result.said} on {result.impostor} impostor pairs of {chosen.source}")
    return result


def _check_writable(manifest: Manifest, profile: Profile) -> None:
    """Raise UsageError if a calibrated threshold must not be written into the manifest."""
    if not profile.empty:
        raise UsageError(
            f"{manifest.path}: describes the bare verifier, but the threshold would be for profile {profile.name}; "
            "write the hardened verifier with `sixpixels harden`, and calibrate that"
        )
    if bundled("models").resolve() in manifest.path.resolve().parents:
        raise UsageError(f"{manifest.path}: is a part of the toolkit; copy the verifier and its manifest first")


def calibrate_profile(
    profile: Path,
    model: str | Path | Manifest,
    false_alarm: float = 0.05,
    pairs: PairSet | Path | str | None = None,
    *,
    confidence: float = 0.95,
    point_estimate: bool = False,
    seed: int = 0,
    spread: Spread | None = None,
    progress: Progress = SILENT,
) -> DetectorCalibration:
    """Find a detector's threshold for a false alarm rate, and write it into the profile's file.

    The rest of the file stays the same.

    Args:
        profile: the .toml file of a profile with a [detector].
        model: the verifier: a shipped model's name, an .onnx file with a manifest beside it, or a manifest.
        false_alarm: the largest share of clean images that may be flagged, between 0 and 1.
        pairs: from `load_pairs`, or a path to pairs. Default: the generated faces that ship with the toolkit.
        confidence: the true share is at most `false_alarm` with this one-sided confidence, at least 0.5 and below 1.
        point_estimate: hold the share on these crops only. The true share is then about as often above as below.
        seed: seed of a random profile's draws, and of the bootstrap over people.
        spread: who embeds the crops. Default: this process.
        progress: shows the alignment of the faces, and their embedding.

    Raises:
        UsageError: the profile has no detector.
        InsufficientError: there are too few clean crops to show the rate.
        SixpixelsError: the model, the profile or the pairs cannot be used.
    """
    chosen, manifest = read_profile(profile), find_manifest(model)
    if chosen.detector is None:
        raise UsageError(f"{profile}: has no [detector]; add one to calibrate")
    bench, crops = Bench(manifest, Execution(), seed), crop_for(manifest, find_pairs(pairs), progress)
    scores = clean_runs(bench, [chosen], crops, spread, progress)[0].scores
    members = crop_members(crops)
    result = calibrate_detector(scores, false_alarm, confidence, members, point_estimate=point_estimate, seed=seed)
    how = "point estimate, not conservative" if point_estimate else f"at a confidence of {100 * confidence:g} %"
    detector.write_threshold(
        profile, result.threshold, false_alarm, f"for {manifest.name} on {len(scores)} crops, {how}"
    )
    return result


def evaluate(
    bench: Bench, crops: CropSet, pairs_source: str, spread: Spread | None = None, progress: Progress = SILENT
) -> Evaluation:
    """Measure the verifier of a bench, as its file is, on clean pairs.

    Raises:
        InsufficientError: there are no genuine or no impostor pairs.
        InputError: the names of the people in a pair contradict its label.
    """
    bare = Profile("none", "", (), "")
    verifier, decision, seed = bench.deployed(bare), bench.manifest.decision, bench.seed
    genuine = np.array([pair.genuine for pair in crops.pairs])
    if genuine.all() or not genuine.any():
        raise InsufficientError(f"{pairs_source}: has only genuine or only impostor pairs; give pairs of both kinds")
    (run,) = clean_runs(bench, [bare], crops, spread, progress)
    known_folds = [pair.fold for pair in crops.pairs]
    use_folds = None not in known_folds and len(set(known_folds)) > 1
    n_folds = len(set(known_folds)) if use_folds else min(10, int(min(genuine.sum(), (~genuine).sum())))
    return Evaluation(
        model=verifier.manifest.name,
        provider=verifier.provider,
        provider_requested=verifier.execution.provider,
        pairs_source=pairs_source,
        genuine=int(genuine.sum()),
        impostor=int((~genuine).sum()),
        left_out=tuple(f"{o.pair.probe} / {o.pair.reference}: {o.reason}" for o in crops.left_out),
        threshold=decision.threshold,
        clean=clean_result("none", run, genuine, people_of(crops.pairs), seed),
        best_threshold=best_threshold(run.distances, genuine),
        cross_validated=cross_validated_accuracy(
            run.distances, genuine, np.array(known_folds, np.int64) if use_folds else None, n_folds, seed
        ),
        folds=f"{n_folds} folds of the pair list, leaving one out" if use_folds else f"{n_folds} random folds",
        warnings=tuple(
            s.text for s in clean_suspicions(
                run.distances, genuine, run.correct, decision.threshold, verifier.manifest.name
            )
        ),
    )  # fmt: skip
