"""A service under audit: its verifier, its ledger and its canaries, and the pool that crafts probes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.attacks.base import Attack
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.jobs import Job, Ticket
from toolkit.audit.crafting.series import CraftJob
from toolkit.audit.crafting.sources import Sources
from toolkit.audit.request import Request
from toolkit.audit.results.assessment import ServiceUse
from toolkit.errors import InsufficientError
from toolkit.faces.crops import CropSet, LeftOut
from toolkit.faces.pairs import PairSet
from toolkit.profiles.profile import Profile
from toolkit.verifiers.crops import view_of
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.onnx_file import verifier_sha256
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.canary import Watch
from toolkit.verifiers.remote.config import Remote
from toolkit.verifiers.remote.ledger import LEDGER, Ledger
from toolkit.verifiers.remote.service import open_service
from toolkit.verifiers.remote.verifier import RemoteVerifier

_NO_FACE = "the service finds no face in it, or its lockout does not allow the attempt"


@dataclass(frozen=True)
class ServiceBench:
    """The verifiers of an audit of a service; see `Verifiers`. Every profile is the service as it is.

    Attributes:
        manifest, model_sha256, seed: see `Verifiers`.
        verifier: the service.
        watch: its canaries.
        sources: the verifiers that transfer probes are crafted on; None without any.
    """

    manifest: Manifest
    model_sha256: str
    seed: int
    verifier: RemoteVerifier
    watch: Watch
    sources: Sources | None

    @property
    def deployed(self) -> Callable[[Profile], RemoteVerifier]:
        """See `Verifiers`."""
        return lambda _: self.verifier

    def side(self, attack: Attack, known: Profile) -> RemoteVerifier:  # noqa: ARG002 - see `Verifiers`
        """See `Verifiers`."""
        return self.verifier

    def confirm(self) -> None:
        """Check that the service is still the same, if it answered anything since the last check.

        Raises:
            UnavailableError: it is not. The answers since the last check are forgotten.
        """
        if self.watch.due(1):
            self.watch.check()

    def use(self, request: Request) -> ServiceUse:
        """How the service was audited, for the report."""
        remote = self.verifier.service.remote
        names = tuple(manifest.name for manifest in request.sources)
        return ServiceUse(remote.address, remote.answers, len(self.verifier.ledger), names)


class ServicePool:
    """Runs each job in this process. A result is passed on only after the service was found to be the same."""

    width = 0

    def __init__(self, bench: ServiceBench) -> None:
        """Use the verifiers of `bench`."""
        self._bench = bench

    def submit(self, job: Job) -> Ticket:
        """See `Pool`."""
        return lambda: self._run(job)

    def _run(self, job: Job) -> bytes:
        bench = self._bench
        if isinstance(job, CraftJob) and job.attack.needs == "gradient" and bench.sources is not None:
            return bench.sources.craft(job)
        content = job.run(bench)
        bench.confirm()
        return content


@contextmanager
def opened(service: Remote, request: Request, pairs: PairSet, folder: Path) -> Iterator[tuple[Request, ServiceBench]]:
    """Connect to the service of a request, check its canaries, and ask for its decisions on the clean pairs.

    Args:
        service: the service.
        request: the request.
        pairs: all pairs.
        folder: the folder of the run, which keeps the answers.

    Yields:
        The request without the pairs in which the service finds no face, and the bench.

    Raises:
        UnavailableError: the service does not answer, refuses or has changed, or no calls are left.
        InsufficientError: it finds a face in no pair.
        SixpixelsError: the ledger or an answer cannot be used.
    """
    ledger = Ledger(folder / LEDGER, service.identity)
    try:
        generator = np.random.default_rng(request.seed)
        caller = Caller(str(service.path), service.limits, generator, spent=ledger.calls, paid=ledger.called)
        verifier = RemoteVerifier(request.manifest, open_service(service, caller), caller, ledger)
        watch = _watch(verifier, request.crops, str(service.path))
        verifier.watch = watch
        request = replace(request, crops=_with_faces(verifier, request.crops, request.manifest, folder))
        sources = None
        if request.sources:
            view = view_of(service, service.alignment)
            sources = Sources(request.sources, request.execution, request.seed, pairs, request.crops, view)
        digest = verifier_sha256(request.manifest)
        bench = ServiceBench(request.manifest, digest, request.seed, verifier, watch, sources)
        bench.confirm()
        yield request, bench
    finally:
        ledger.close()


def _watch(verifier: RemoteVerifier, crops: CropSet, where: str) -> Watch:
    """Choose the canaries: some genuine pairs, or any if there are none, and a stranger."""
    genuine = [row for row, pair in enumerate(crops.pairs) if pair.genuine] or list(range(len(crops.pairs)))
    first = crops.index[genuine[0]]
    others = [int(row[1]) for row, pair in zip(crops.index, crops.pairs, strict=True) if not pair.genuine]
    stranger = next((place for place in others if place not in first), int(crops.index[genuine[-1], 0]))
    asked = [(crops.images[probe], crops.images[reference]) for probe, reference in crops.index[genuine[:8]]]
    threshold = verifier.decision.threshold
    return Watch(verifier.ask, asked, crops.images[stranger], threshold, verifier.ledger, where)


def _with_faces(verifier: RemoteVerifier, crops: CropSet, manifest: Manifest, folder: Path) -> CropSet:
    """Leave out the pairs in which the service finds no face."""
    missing = np.isnan(run_clean(verifier, crops, manifest.decision, spill=folder).distances)
    if not missing.any():
        return crops
    if missing.all():
        raise InsufficientError(f"{manifest.path}: the service finds a face in no pair; check the size of the crops")
    left_out = tuple(LeftOut(pair, _NO_FACE) for pair, gone in zip(crops.pairs, missing, strict=True) if gone)
    kept = tuple(pair for pair, gone in zip(crops.pairs, missing, strict=True) if not gone)
    return replace(crops, pairs=kept, index=crops.index[~missing], left_out=(*crops.left_out, *left_out))
