"""The request: everything that the options of an audit name, loaded and checked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.attacks.base import Attack
from toolkit.audit.clean.group import enroll
from toolkit.audit.crafting.craft import attack_parameters
from toolkit.audit.crafting.sources import sources_profile
from toolkit.audit.options import AuditOptions, declared_options
from toolkit.audit.plan import ASKED, Knowledge, Plan, make_plan, make_service_plan
from toolkit.audit.replaying.certify import Smoothing
from toolkit.audit.suites import BUDGET, NATURAL, balls, choose_attacks, paper_pairs
from toolkit.audit.workers import chosen_workers
from toolkit.errors import InputError, UsageError
from toolkit.faces.crops import CropSet
from toolkit.faces.pairs import PairSet, embedded_pairs, has_generated_faces, load_pairs
from toolkit.faces.sampling import sample_pairs
from toolkit.profiles.profile import Profile, find_profile
from toolkit.progress import Progress
from toolkit.registry import choose
from toolkit.verifiers.crops import crop_for
from toolkit.verifiers.manifest import Manifest, find_manifest, with_threshold
from toolkit.verifiers.onnx_file import verifier_sha256
from toolkit.verifiers.remote.config import Remote, read_remote
from toolkit.verifiers.remote.described import described
from toolkit.verifiers.runtime import Execution, RuntimeVerifier

# Pairs on which an estimate measures every attack.
SAMPLE = 4
# With the generated pairs, an audit without options takes less than three minutes on two cores.
_GENERATED_PAIRS, _REAL_PAIRS = 10, 40


@dataclass(frozen=True)
class Request:
    """The inputs of an audit: verifier, aligned pairs, attacks, profiles and settings.

    `budget` is the largest RMS, in 1/255, of a success that counts where the audit itself combines attacks. With a
    `service`, `manifest` describes it (`described`), and attacks by gradients use the verifiers `sources`.
    """

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
    generated: bool = False
    budget: float = BUDGET
    service: Remote | None = None
    sources: tuple[Manifest, ...] = ()


def make_request(options: AuditOptions, progress: Progress, *, sample: bool = False) -> tuple[Request, PairSet]:
    """Load and check everything that the options name, and align the faces.

    Args:
        options: the options of the audit.
        progress: shows the alignment of the faces.
        sample: whether to align only the few faces that an estimate needs.

    Returns:
        The request, and all pairs, including those that are left out of the request because no face was found.

    Raises:
        UsageError: an option names something that does not exist, or two options exclude each other.
        SixpixelsError: the model, a profile or the pairs cannot be used.
    """
    o = options
    if o.group is not None and o.suite == "paper":
        raise UsageError("--group and --suite paper exclude each other; leave one out")
    chosen_workers(o)
    service = None if o.remote is None else read_remote(o.remote)
    profiles = [find_profile(name) for name in profile_names(o)]
    if not profiles:
        raise UsageError("no profile chosen; name at least one ('none' is the bare verifier)")
    knowledge = choose("knowledge", o.knowledge, {level: level for level in ASKED})
    manifest = find_manifest(o.model) if service is None else described(service)
    execution = Execution(o.provider, o.require_provider, o.threads)
    if o.threshold is not None:
        manifest = with_threshold(manifest, o.threshold)
    budget = BUDGET if o.budget is None else o.budget
    at = balls(budget, 3 * manifest.input.height * manifest.input.width)
    attacks = choose_attacks(o.suite, o.attacks, o.settings, at)
    sources = tuple(find_manifest(name) for name in o.sources)
    for local in (manifest,) if service is None else sources:
        RuntimeVerifier(local, execution=execution)  # fail on an unusable model before the slow search for faces
    pair_set = _pairs(o)
    crops = _crops(o, manifest, pair_set, progress, sample=sample)
    request = Request(
        manifest=manifest,
        crops=crops if o.group is None else enroll(crops, o.group, o.seed),
        pairs_source=pair_set.source,
        attacks=attacks,
        profiles=tuple(profiles),
        knowledge=tuple(knowledge),
        seed=o.seed,
        execution=execution,
        suite=o.suite,
        smoothings=tuple(Smoothing(sigma, o.certify_samples, o.certify_confidence) for sigma in o.certify),
        generated=has_generated_faces(pair_set),
        budget=budget,
        service=service,
        sources=sources,
    )
    return request, pair_set


def profile_names(o: AuditOptions) -> list[str]:
    """The profiles to attack. A service is attacked as it is.

    Raises:
        UsageError: an option does not fit to a service, or needs one.
    """
    if o.remote is None:
        if o.sources:
            raise UsageError("--source works only with --remote; name a service, or leave it out")
        return list(dict.fromkeys(o.profiles))
    options = {one.name: one for one in declared_options()}
    for name in ("model", "profiles", "group", "threshold", "certify", "workers"):
        if getattr(o, name) not in (options[name].default, ("none",)):
            raise UsageError(
                f"--{options[name].key} and --remote exclude each other: a service is attacked as it is, by this "
                "process; leave one out"
            )
    if o.suite == "paper":
        raise UsageError("--suite paper and --remote exclude each other; leave one out")
    return ["none"]


def _pairs(o: AuditOptions) -> PairSet:
    path, folds = Path(o.pairs or embedded_pairs()), None if o.folds is None else list(o.folds)
    default = _REAL_PAIRS if o.pairs else _GENERATED_PAIRS
    if o.suite == "paper":
        return paper_pairs(path, o.limit, folds, o.seed)
    return load_pairs(path, limit=o.limit or default, seed=o.seed, folds=folds)


def _crops(o: AuditOptions, manifest: Manifest, pairs: PairSet, progress: Progress, *, sample: bool) -> CropSet:
    if not sample:
        return crop_for(manifest, pairs, progress, _existing(Path(o.run or "")))
    # A group needs the faces of all people. Align twice the sample, because some images may have no face.
    return crop_for(manifest, pairs if o.group is not None else sample_pairs(pairs, 2 * SAMPLE), progress)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def run_name(request: Request) -> str:
    """Name a run by a short hash of its request, so that the same request finds its probes again."""
    manifest, crops = request.manifest, request.crops
    content = [
        verifier_sha256(manifest),
        manifest.reading,
        asdict(manifest.decision),
        [[attack.name, attack_parameters(attack)] for attack in request.attacks],
        [profile.sha256 for profile in request.profiles],
        request.knowledge,
        request.seed,
        [asdict(smoothing) for smoothing in request.smoothings],
        [pair.id for pair in crops.pairs],
        [pair.subgroup for pair in crops.pairs],
        request.budget,
        request.suite == NATURAL,
        [[verifier_sha256(m), m.reading] for m in request.sources],
        None if crops.gallery is None else [crops.names[place] for place in crops.gallery],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def plan_of(request: Request) -> Plan:
    """Plan the scenarios of a request.

    Raises:
        UsageError: see `make_plan`.
    """
    if request.suite == NATURAL and not request.attacks:
        return Plan((), ())
    by_gradients = any(a.needs == "gradient" for a in request.attacks)
    if request.service is not None:
        reasons = (_why_no_gradients(m) for m in request.sources if by_gradients)
        return make_service_plan(
            request.attacks,
            request.profiles[0],
            sources_profile(request.sources) if request.sources else None,
            graded=request.service.answers != "decision",
            no_gradients=next((reason for reason in reasons if reason is not None), None),
        )
    no_gradients = _why_no_gradients(request.manifest) if by_gradients else None
    return make_plan(request.attacks, request.profiles, request.knowledge, no_gradients)


def _why_no_gradients(manifest: Manifest) -> str | None:
    if importlib.util.find_spec("tensorflow") is None:
        return 'gradients need TensorFlow, which is not installed: pip install "sixpixels[tensorflow]"'
    if manifest.detector is not None:
        return (
            "gradients of a detector inside the verifier's file cannot be computed; "
            "audit the original verifier with its profile instead"
        )
    if manifest.checkpoint is not None and manifest.checkpoint.path.exists():
        return None
    from toolkit.verifiers.differentiable import try_gradients

    # Some operators are refused only when a gradient is computed, as the trial does.
    try:
        try_gradients(manifest)
    except InputError as error:
        return f"the original model has no checkpoint here, and gradients of the ONNX file cannot be computed: {error}"
    return None
