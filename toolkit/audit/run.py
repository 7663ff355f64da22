"""One audit, from its options to a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from toolkit.attacks.settings import weakened
from toolkit.audit.checks import GradientChecks
from toolkit.audit.clean.bench import Bench, Verifiers, gradient_draws
from toolkit.audit.clean.group import aim
from toolkit.audit.clean.result import CleanResult, clean_result, people_of
from toolkit.audit.clean.run import CleanRun, run_clean
from toolkit.audit.collect import PARTIAL, Collector, InterruptedAuditError
from toolkit.audit.crafting.craft import Series, attack_parameters, attacked_model
from toolkit.audit.crafting.jobs import Pool, Step, begin, finish
from toolkit.audit.crafting.series import series_steps
from toolkit.audit.crafting.sources import sources_identity
from toolkit.audit.embedding import run_clean_by
from toolkit.audit.options import AuditOptions
from toolkit.audit.parity import Compared, parity_step
from toolkit.audit.plan import GOALS, Goal, Plan, Unavailable
from toolkit.audit.replaying.bounds import check_bounds
from toolkit.audit.replaying.certificates import PairCertificates, certification_results
from toolkit.audit.replaying.certify import certify_all
from toolkit.audit.replaying.detection import detection_results
from toolkit.audit.replaying.lipschitz import check_certificates
from toolkit.audit.replaying.masking import check_masking
from toolkit.audit.replaying.natural import NaturalDecisions, decide_natural, natural_results
from toolkit.audit.replaying.sanity import Check, Outcome, check_outcomes
from toolkit.audit.request import Request, make_request, plan_of, profile_names, run_name
from toolkit.audit.results.assessment import (
    Assessment,
    DeclaredAttack,
    ServiceUse,
    Target,
    make_caveats,
    scenario_results,
    worst_finding,
)
from toolkit.audit.results.optimality import run_optimality
from toolkit.audit.results.outcomes import Run, read_run, write_outcomes
from toolkit.audit.results.people import faces_of
from toolkit.audit.results.record import write_record
from toolkit.audit.results.subgroups import Subgroups, subgroups_of
from toolkit.audit.service import ServiceBench, ServicePool, opened
from toolkit.audit.suites import NATURAL, weaker_than_strong
from toolkit.audit.workers import ALONE, Workers, chosen_workers, open_pool
from toolkit.documents import to_json
from toolkit.errors import InputError
from toolkit.faces.corruptions import CORRUPTIONS
from toolkit.faces.pairs import PairSet
from toolkit.files import remove_stale_parts, sha256_of, write_bytes
from toolkit.pixels import Bools
from toolkit.profiles.harden import hardened_manifest
from toolkit.profiles.profile import Profile
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.manifest import with_threshold
from toolkit.verifiers.onnx_file import verifier_sha256


def audit_verifier(options: AuditOptions, progress: Progress = SILENT) -> Run:
    """Attack a verifier, bare and behind each profile, and write the results into the run's folder.

    To continue an interrupted audit, call this again with the same options.

    Args:
        options: what to audit. The audit ignores `format`, `with_faces` and `policy`; reports use them.
        progress: shows every stage.

    Raises:
        SixpixelsError: the options contradict each other, something they name cannot be used, or the folder cannot be
            written.
        InterruptedAuditError: the user pressed Ctrl-C. The results so far are in `partial.json` in the run's folder.
    """
    request, pairs = make_request(options, progress)
    return _audit(request, pairs, options, _folder(options, request), progress)


def audit_at_thresholds(options: AuditOptions, thresholds: Sequence[float], progress: Progress = SILENT) -> list[Run]:
    """Run one audit at each threshold, on the same crops; see `audit_verifier`.

    Each run has its own folder: `options.run` plus the threshold, or `runs` plus the hash of the request.
    """
    asked, pairs = make_request(options, progress)
    runs = []
    for threshold in thresholds:
        request = replace(asked, manifest=with_threshold(asked.manifest, threshold))
        folder = _folder(options, request) / ("" if options.run is None else f"{threshold:g}")
        runs.append(_audit(request, pairs, options, folder, progress))
    return runs


def _folder(options: AuditOptions, request: Request) -> Path:
    return Path("runs") / run_name(request) if options.run is None else Path(options.run)


def _audit(request: Request, pairs: PairSet, options: AuditOptions, folder: Path, progress: Progress) -> Run:
    """Run an audit and write its report and its record, or a partial report if it is interrupted."""
    try:
        if request.service is None:
            used, assessment = request, run_audit(request, folder, progress, chosen_workers(options))
        else:
            with opened(request.service, request, pairs, folder) as (used, bench):
                assessment = run_audit(used, folder, progress, service=bench)
    except InterruptedAuditError as stop:
        write_bytes(folder / PARTIAL, to_json(stop.partial).encode())
        raise
    write_bytes(folder / "report.json", to_json(assessment).encode())
    write_record(used, folder, pairs.root, options.model, profile_names(options))
    (folder / PARTIAL).unlink(missing_ok=True)
    return replace(read_run(folder), request=used)


@dataclass(frozen=True)
class _Setting:
    """Everything that is known before the attacks: plan, decisions on the clean pairs, and how to wait for parity."""

    plan: Plan
    clean: dict[Profile, CleanRun]
    genuine: Bools
    parity: Callable[[], Compared | InputError] | None
    provider: str

    def compared(self) -> Compared | None:
        """Wait for parity; None without gradients.

        Raises:
            InputError: the original cannot be loaded.
        """
        found = None if self.parity is None else self.parity()
        if isinstance(found, InputError):
            raise found
        return found


@dataclass(frozen=True)
class _Found:
    """The results of the attacks."""

    outcomes: list[Outcome]
    unavailable: tuple[Unavailable, ...]
    certificates: list[PairCertificates]
    natural: list[NaturalDecisions]
    checks: list[Check]
    service: ServiceUse | None = None


def run_audit(
    request: Request,
    folder: Path,
    progress: Progress = SILENT,
    workers: Workers = ALONE,
    service: ServiceBench | None = None,
) -> Assessment:
    """Craft, replay and assess. The probes stay in `folder`, so that an interrupted audit can continue.

    Args:
        request: the inputs of the audit.
        folder: the folder of the run.
        progress: shows every stage.
        workers: who crafts; results do not depend on it.
        service: the service of the request; it crafts in this process.

    Raises:
        SixpixelsError: the verifier, its checkpoint or a profile cannot be used, or the folder cannot be written.
        InterruptedAuditError: the user pressed Ctrl-C after the clean pairs were verified.
    """
    probes = folder / "probes"
    remove_stale_parts(folder)
    remove_stale_parts(probes)
    bench = service or Bench(request.manifest, request.execution, request.seed)
    with open_pool(workers, bench) if isinstance(bench, Bench) else nullcontext(ServicePool(bench)) as pool:
        setting = _set_up(request, folder, bench, pool, progress)
        plan, clean = setting.plan, setting.clean
        collector = Collector(plan, bench, request.crops, clean)
        gradients = GradientChecks(request, plan, bench, collector, probes) if isinstance(bench, Bench) else None
        early = gradients.early() if gradients else ()
        with collector.telling(folder):
            _craft_and_replay(request, probes, pool, collector, setting, early, progress)
            of_profiles = {profile: clean[profile] for profile in request.profiles}
            certificates = certify_all(bench, request.smoothings, request.crops, of_profiles, probes, progress, pool)
            natural = _natural(request, probes, bench, clean, progress, pool)
            outcomes, unavailable = collector.outcomes(), (*plan.unavailable, *collector.unavailable())
            if isinstance(bench, ServiceBench):
                bench.confirm()
                # What stands for a profile that an attacker knows is not deployed.
                clean = of_profiles
            write_outcomes(folder, request.crops.pairs, faces_of(request.crops), outcomes, clean, certificates)
            checks = gradients.run(outcomes, pool, progress) if gradients else []
            checks += [*check_outcomes(outcomes, clean), *check_masking(outcomes, clean), *check_bounds(collector.kept)]
            checks += check_certificates(outcomes, certificates, setting.genuine)
    use = service.use(request) if service else None
    return _assess(request, folder.name, setting, _Found(outcomes, unavailable, certificates, natural, checks, use))


def _set_up(request: Request, folder: Path, bench: ServiceBench | Bench, pool: Pool, progress: Progress) -> _Setting:
    manifest, crops = request.manifest, request.crops
    bare = next((p for p in request.profiles if p.empty), Profile("none", "", (), ""))
    verifier = bench.deployed(bare)
    plan = plan_of(request)
    deployed = list(dict.fromkeys([*request.profiles, *(known for _, known in plan.crafts)]))
    folder.mkdir(parents=True, exist_ok=True)
    gradient = next((attack for attack, _ in plan.crafts if attack.needs == "gradient"), None)
    parity = None
    if isinstance(bench, Bench) and gradient is not None:
        # Its result is needed after everything else, and who loads the gradients need not wait for the clean crops.
        begun = begin(parity_step(bench, bare, gradient, crops, folder / "probes"), pool)
        parity = cache(begun)
    if isinstance(bench, Bench):
        places = folder, folder / "probes"
        clean = {profile: run_clean_by(pool, bench, profile, crops, *places, progress) for profile in deployed}
    else:  # a service is the same verifier for every profile
        clean = dict.fromkeys(deployed, run_clean(verifier, crops, manifest.decision, spill=folder))
    genuine = np.array([pair.genuine for pair in crops.pairs])
    return _Setting(plan, clean, genuine, parity, verifier.provider)


def _assess(request: Request, run: str, setting: _Setting, found: _Found) -> Assessment:
    crops, genuine, clean, compared = request.crops, setting.genuine, setting.clean, setting.compared()
    clean_results = _clean_results(request, clean, genuine)
    results = [
        result
        for scenario, replay in found.outcomes
        for result in scenario_results(scenario, replay, clean[scenario.profile], genuine)
    ]
    detection = detection_results(found.outcomes, clean, genuine)
    votes = {p.name for p in request.profiles if hardened_manifest(request.manifest, p).vote is not None}
    certification = [r for one in found.certificates for r in certification_results(one, genuine, votes)]
    measured = run_optimality(found.outcomes, clean, genuine)
    goals: tuple[Goal, ...] = GOALS
    if crops.gallery is not None:
        goals = ("group",)
        results = [replace(result, goal="group") for result in results]
        measured = [replace(result, goal="group") for result in measured if result.goal == "impersonation"]
        detection = [replace(result, goal="group") for result in detection if result.goal == "impersonation"]
        certification = [replace(result, goal="group") for result in certification]
    # An ensemble averages over its own draws for every draw of a gradient; a vote does not.
    draws = {p.name: gradient_draws(p) * (p.draws if p.vote is None else 1) for p in request.profiles if p.random}
    left_out = tuple(f"{o.pair.probe} / {o.pair.reference}: {o.reason}" for o in crops.left_out)
    unavailable, checks = found.unavailable, found.checks
    attacked = bool(results or unavailable)
    caveats = [] if attacked else ["no attack was run, so this run says nothing of attackers"]
    caveats += make_caveats(clean_results, results, unavailable, len(left_out), draws, goals if attacked else ())
    caveats += weaker_than_strong(request.attacks) if attacked else []
    return Assessment(
        run=run,
        seed=request.seed,
        pairs_source=request.pairs_source,
        genuine=int(genuine.sum()),
        impostor=int((~genuine).sum()),
        left_out=left_out,
        target=_target(request, setting.provider, compared),
        parity=compared.parity if compared else None,
        profiles=tuple((p.name, p.sha256) for p in request.profiles),
        attacks=tuple((a.name, tuple(attack_parameters(a).items())) for a in request.attacks),
        declared=tuple(DeclaredAttack(a.name, a.needs, a.traits, weakened(a)) for a in request.attacks),
        clean=tuple(clean_results),
        scenarios=tuple(results),
        unavailable=unavailable,
        checks=tuple(checks),
        worst=worst_finding(results),
        caveats=tuple(caveats),
        complete=not unavailable,
        valid=all(check.passed for check in checks),
        detection=tuple(detection),
        group=None if crops.gallery is None else len(crops.gallery),
        suite=request.suite,
        certification=tuple(certification),
        generated=request.generated,
        optimality=tuple(measured),
        natural=tuple(natural_results(found.natural, genuine)),
        subgroups=_subgroups(request, clean, genuine, found.outcomes),
        service=found.service,
    )


def _clean_results(request: Request, clean: dict[Profile, CleanRun], genuine: Bools) -> list[CleanResult]:
    crops = request.crops
    people = people_of(crops.pairs) if crops.gallery is None else None
    return [clean_result(p.name, clean[p], genuine, people, request.seed) for p in request.profiles]


def _subgroups(
    request: Request, clean: dict[Profile, CleanRun], genuine: Bools, outcomes: list[Outcome]
) -> Subgroups | None:
    labels = [pair.subgroup or "" for pair in request.crops.pairs]
    return subgroups_of(labels, genuine, {p: clean[p] for p in request.profiles}, outcomes, request.budget)


def _natural(
    request: Request, probes: Path, bench: Verifiers, clean: dict[Profile, CleanRun], progress: Progress, pool: Pool
) -> list[NaturalDecisions]:
    """Decide about corrupted probes behind every profile, if the suite asks for it."""
    found = []
    for profile in request.profiles if request.suite == NATURAL else ():
        done = progress.stage(f"natural {profile.name}", len(CORRUPTIONS) * len(request.crops.pairs))
        found.append(decide_natural(bench, profile, request.crops, clean[profile], probes, done, pool))
    return found


def _craft_and_replay(
    request: Request,
    probes: Path,
    pool: Pool,
    collector: Collector,
    setting: _Setting,
    early: Iterable[Step[None, Any]],
    progress: Progress,
) -> None:
    """Craft each distinct set of probes once, in the plan's order, and pass every chunk to the collector.

    When all chunks are begun, who has nothing else to do takes the steps `early`.
    """
    manifest, crops = request.manifest, request.crops

    def steps() -> Iterator[Step[Any, Any]]:
        for attack, known in setting.plan.crafts:
            clean = collector.clean[known]
            aimed = aim(crops, clean.embeddings, manifest.decision.metric)
            transferred = attack.needs == "gradient" and request.sources
            model = sources_identity(request.sources) if transferred else attacked_model(manifest, attack)
            series = Series(attack, known, model, aimed, manifest.decision, request.seed, probes)
            for step in series_steps(series, clean, pool):
                if collector.failed(attack, known):
                    break
                yield step
        yield from early

    stages: dict[str, Callable[[int], None]] = {}
    for about, crafted in finish(steps(), pool):
        if about is None:
            continue
        series, rows = about
        # Whoever cannot have gradients hears so now, and not when all else is done.
        setting.compared()
        name = series.name
        if name not in stages:
            stages[name] = progress.stage(name, len(crops.pairs))
        collector.take(series, rows, crafted)
        stages[name](len(rows))


def _target(request: Request, provider: str, compared: Compared | None) -> Target:
    manifest = request.manifest
    checkpoint = manifest.checkpoint
    sources = ", ".join(source.name for source in request.sources)
    return Target(
        name=manifest.name,
        model=manifest.model.name,
        model_sha256=verifier_sha256(manifest),
        checkpoint_sha256=sha256_of(checkpoint.path) if checkpoint and checkpoint.path.exists() else None,
        provider=provider,
        provider_requested=request.execution.provider,
        metric=manifest.decision.metric,
        threshold=manifest.decision.threshold,
        maximum=manifest.decision.maximum,
        height=manifest.input.height,
        width=manifest.input.width,
        gradients_from=sources or (compared.gradients_from if compared else None),
        onnxruntime=onnxruntime.__version__,
        tensorflow=compared.tensorflow if compared else None,
    )
