"""One audit, from a manifest and crops to an assessment."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnxruntime

from toolkit.attacks.base import Attack, to_unit
from toolkit.audit.assessment import (
    Assessment,
    Target,
    make_caveats,
    scenario_results,
    worst_finding,
)
from toolkit.audit.bench import Bench, gradient_draws
from toolkit.audit.certify import PairCertificates, Smoothing, certification_results, certify
from toolkit.audit.clean import clean_result, people_of
from toolkit.audit.collect import Collector, InterruptedAuditError
from toolkit.audit.craft import Series, attack_parameters
from toolkit.audit.detection import detection_results
from toolkit.audit.group import aim
from toolkit.audit.jobs import Pool, Step, finish, series_steps
from toolkit.audit.outcomes import write_outcomes
from toolkit.audit.plan import GOALS, Goal, Knowledge, Plan, make_plan
from toolkit.audit.replay import CleanRun, run_clean
from toolkit.audit.sanity import Check, Outcome, Subject, check_attacks, check_outcomes, check_profile
from toolkit.audit.workers import open_pool
from toolkit.errors import InputError
from toolkit.export.parity import Parity, compare
from toolkit.faces.crops import CropSet
from toolkit.files import remove_stale_parts, sha256, sha256_of
from toolkit.profiles.profile import Profile
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

if TYPE_CHECKING:
    from toolkit.verifiers.tensorflow import TensorFlowVerifier


# Parity is checked again at every audit, on few pairs; `sixpixels export` checks it on many.
_PARITY_PAIRS = 100


class Progress(Protocol):
    """Where an audit says how far it is."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a stage of `total` pairs; the result is called with each number of pairs done."""
        ...


@dataclass(frozen=True)
class Request:
    """What an audit is asked to do."""

    manifest: Manifest
    crops: CropSet
    pairs_source: str
    attacks: tuple[Attack, ...]
    profiles: tuple[Profile, ...]
    knowledge: tuple[Knowledge, ...]
    seed: int
    execution: Execution
    suite: str = "standard"
    smoothings: tuple[Smoothing, ...] = ()


def run_name(request: Request) -> str:
    """A short name from a hash of what is asked, so that the same request finds its probes again."""
    manifest, crops = request.manifest, request.crops
    content = [
        sha256(manifest.model),
        asdict(manifest.decision),
        [[attack.name, attack_parameters(attack)] for attack in request.attacks],
        [profile.sha256 for profile in request.profiles],
        request.knowledge,
        request.seed,
        [asdict(smoothing) for smoothing in request.smoothings],
        [pair.id for pair in crops.pairs],
        None if crops.gallery is None else [crops.names[place] for place in crops.gallery],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def plan_of(request: Request) -> Plan:
    """The scenarios of a request.

    Raises:
        UsageError: there are none.
    """
    no_gradients = _why_no_gradients(request.manifest) if any(a.needs == "gradient" for a in request.attacks) else None
    return make_plan(request.attacks, request.profiles, request.knowledge, no_gradients)


def run_audit(request: Request, folder: Path, progress: Progress, workers: str = "1") -> Assessment:
    """Craft, replay and assess. Probes are kept in `folder`, where an interrupted audit finds them again.

    Args:
        request: what is asked.
        folder: of the run.
        progress: told of every stage.
        workers: who crafts, see `toolkit.audit.workers.open_pool`; results do not depend on it.

    Raises:
        SixpixelsError: the verifier, its checkpoint or a profile cannot be used, or the folder not be written.
        InterruptedAuditError: Ctrl-C, after the clean pairs were decided.
    """
    manifest, crops = request.manifest, request.crops
    decision, genuine = manifest.decision, np.array([pair.genuine for pair in crops.pairs])
    bench = Bench(manifest, request.execution, request.seed)
    probes = folder / "probes"
    remove_stale_parts(folder)
    remove_stale_parts(probes)
    bare = next((p for p in request.profiles if p.empty), Profile("none", "", (), ""))
    verifier = bench.deployed(bare)
    plan = plan_of(request)
    deployed = list(dict.fromkeys([*request.profiles, *(known for _, known in plan.crafts)]))
    folder.mkdir(parents=True, exist_ok=True)
    clean = {profile: run_clean(bench.deployed(profile), crops, decision, spill=folder) for profile in deployed}
    people = people_of(crops.pairs) if crops.gallery is None else None
    clean_results = [clean_result(p.name, clean[p], genuine, people, request.seed) for p in request.profiles]

    uses_gradients = any(attack.needs == "gradient" for attack, _ in plan.crafts)
    parity = _parity(verifier, bench.gradients(bare), crops, manifest) if uses_gradients else None
    collector = Collector(plan, bench, crops, clean)
    try:
        with open_pool(workers, bench) as pool:
            _craft_and_replay(request, probes, bench, pool, collector, plan, progress)
        outcomes, unavailable = collector.outcomes(), (*plan.unavailable, *collector.unavailable())
        certificates = _certify(request, probes, bench, clean, progress)
        write_outcomes(folder, crops.pairs, outcomes, clean, certificates)
        checks = [*_checks(request, plan, outcomes, bench, clean, progress), *check_outcomes(outcomes, clean)]
    except KeyboardInterrupt as stop:
        raise InterruptedAuditError(collector.so_far(folder.name)) from stop
    results = [
        result
        for scenario, replay in outcomes
        for result in scenario_results(scenario, replay, clean[scenario.profile], genuine)
    ]
    detection = detection_results(outcomes, clean, genuine)
    certification = [result for found in certificates for result in certification_results(found, genuine)]
    goals: tuple[Goal, ...] = GOALS
    if crops.gallery is not None:
        goals = ("group",)
        results = [replace(result, goal="group") for result in results]
        detection = [replace(result, goal="group") for result in detection if result.goal == "impersonation"]
        certification = [replace(result, goal="group") for result in certification]
    draws = {p.name: gradient_draws(p) * p.draws for p in request.profiles if p.random}
    left_out = tuple(f"{o.pair.probe} / {o.pair.reference}: {o.reason}" for o in crops.left_out)
    return Assessment(
        run=folder.name,
        seed=request.seed,
        pairs_source=request.pairs_source,
        genuine=int(genuine.sum()),
        impostor=int((~genuine).sum()),
        left_out=left_out,
        target=_target(request, verifier, uses_gradients=uses_gradients),
        parity=parity,
        profiles=tuple((p.name, p.sha256) for p in request.profiles),
        attacks=tuple((a.name, tuple(attack_parameters(a).items())) for a in request.attacks),
        clean=tuple(clean_results),
        scenarios=tuple(results),
        unavailable=unavailable,
        checks=tuple(checks),
        worst=worst_finding(results),
        caveats=tuple(make_caveats(clean_results, results, unavailable, len(left_out), draws, goals)),
        complete=not unavailable,
        valid=all(check.passed for check in checks),
        detection=tuple(detection),
        group=None if crops.gallery is None else len(crops.gallery),
        suite=request.suite,
        certification=tuple(certification),
    )


def _certify(
    request: Request, probes: Path, bench: Bench, clean: dict[Profile, CleanRun], progress: Progress
) -> list[PairCertificates]:
    """The certificates of every profile under every noise that is asked for."""
    certificates = []
    for profile in request.profiles:
        for smoothing in request.smoothings:
            done = progress.stage(f"certify {profile.name}, noise {smoothing.sigma:g}", len(request.crops.pairs))
            certificates.append(certify(bench, profile, smoothing, request.crops, clean[profile], probes, done))
    return certificates


def _checks(
    request: Request,
    plan: Plan,
    outcomes: list[Outcome],
    bench: Bench,
    clean: dict[Profile, CleanRun],
    progress: Progress,
) -> list[Check]:
    """The checks that need gradients, of every profile that a gradient attack knows."""
    known = list(dict.fromkeys(profile for attack, profile in plan.crafts if attack.needs == "gradient"))
    decision, checks = request.manifest.decision, []
    stage = progress.stage("checks", len(known))
    for profile in known:
        subject = Subject(profile, bench.white_box(profile), clean[profile])
        aimed = aim(request.crops, clean[profile].embeddings, decision.metric)
        try:
            checks += check_profile(subject, aimed, decision, request.seed)
            checks += check_attacks(subject, outcomes, aimed, decision, request.seed)
        except InputError as error:
            checks.append(Check("gradient", profile.name, False, str(error)))
        stage(1)
    return checks


def _craft_and_replay(
    request: Request, probes: Path, bench: Bench, pool: Pool, collector: Collector, plan: Plan, progress: Progress
) -> None:
    """Craft each distinct set of probes once, in the plan's order, and give all chunks to the collector."""
    manifest, crops = request.manifest, request.crops

    def steps() -> Iterator[Step]:
        for attack, known in plan.crafts:
            clean = collector.clean[known]
            aimed = aim(crops, clean.embeddings, manifest.decision.metric)
            model = attacked_model(manifest, attack)
            series = Series(attack, known, model, aimed, manifest.decision, request.seed, probes)
            for step in series_steps(series, bench, clean):
                if collector.failed(attack, known):
                    break
                yield step

    stages: dict[str, Callable[[int], None]] = {}
    for step, crafted in finish(steps(), pool):
        name = step.series.name
        if name not in stages:
            stages[name] = progress.stage(name, len(crops.pairs))
        collector.take(step, crafted)
        stages[name](len(step.rows))


def attacked_model(manifest: Manifest, attack: Attack) -> str:
    """Hashes of the files that the attack works on, for naming its probes."""
    deployed = sha256(manifest.model)
    if attack.needs == "gradient" and manifest.checkpoint is not None and manifest.checkpoint.path.exists():
        return f"{sha256_of(manifest.checkpoint.path)}+{deployed}"
    return deployed


def _why_no_gradients(manifest: Manifest) -> str | None:
    if importlib.util.find_spec("tensorflow") is None:
        return 'TensorFlow is not installed, so there are no gradients (pip install "sixpixels[tensorflow]")'
    if manifest.detector is not None:
        return "the verifier's file has a detector, whose gradients are not read; audit the original behind its profile"
    if manifest.checkpoint is not None and manifest.checkpoint.path.exists():
        return None
    from toolkit.verifiers.onnx_graph import load_onnx

    try:
        load_onnx(manifest.model)
    except InputError as error:
        return f"there is no checkpoint of the original model, and the ONNX file gives no gradients: {error}"
    return None


def _parity(verifier: RuntimeVerifier, original: TensorFlowVerifier, crops: CropSet, manifest: Manifest) -> Parity:
    """ONNX Runtime beside TensorFlow on at most `_PARITY_PAIRS` of the clean pairs."""
    pairs = crops.index[:_PARITY_PAIRS]
    used, index = np.unique(pairs, return_inverse=True)
    images = to_unit(crops.images[used])
    return compare(
        verifier.embed(images), original.embed(images), index.reshape(pairs.shape), manifest.decision, verifier.provider
    )


def _gradients_from(manifest: Manifest) -> str:
    checkpoint = manifest.checkpoint
    return checkpoint.path.name if checkpoint is not None and checkpoint.path.exists() else "the ONNX file itself"


def _target(request: Request, verifier: RuntimeVerifier, *, uses_gradients: bool) -> Target:
    manifest = request.manifest
    checkpoint = manifest.checkpoint
    return Target(
        name=manifest.name,
        model=manifest.model.name,
        model_sha256=sha256(manifest.model),
        checkpoint_sha256=sha256_of(checkpoint.path) if checkpoint and checkpoint.path.exists() else None,
        provider=verifier.provider,
        provider_requested=request.execution.provider,
        metric=manifest.decision.metric,
        threshold=manifest.decision.threshold,
        maximum=manifest.decision.maximum,
        gradients_from=_gradients_from(manifest) if uses_gradients else None,
        onnxruntime=onnxruntime.__version__,
        tensorflow=version("tensorflow-cpu") if uses_gradients else None,
    )
