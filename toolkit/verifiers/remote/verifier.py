"""A service as attacks and audits see it: like a local verifier, with every answer kept and every limit respected."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.pixels import Float, Images, to_8bit, to_unit
from toolkit.verifiers.edge import check_crops
from toolkit.verifiers.manifest import Decision, Manifest
from toolkit.verifiers.remote.calls import Caller
from toolkit.verifiers.remote.canary import Watch
from toolkit.verifiers.remote.ledger import Ledger
from toolkit.verifiers.remote.service import Comparer, Embedder, Service
from toolkit.verifiers.scores import distances, is_same

Embeddings = NDArray[np.float32]
Crops = NDArray[np.uint8]
_T = TypeVar("_T")


class RemoteVerifier:
    """A service that takes the place of `RuntimeVerifier`.

    A service that only compares has no embeddings. Its crops stand for them: `embed` returns the pixels in 8 bits, and
    `compare` sends them.

    Attributes:
        manifest: the service, described as a verifier.
        provider: "remote".
        service, caller, ledger: what it works with.
        images_run: the number of crops that were given to `embed`.
        watch: asks the canaries between calls, as often as the limits say; None asks none.
    """

    provider = "remote"

    def __init__(self, manifest: Manifest, service: Service, caller: Caller, ledger: Ledger) -> None:
        """Use a service.

        Args:
            manifest: see `described`.
            service: the service.
            caller: limits the calls.
            ledger: keeps the answers.
        """
        self.manifest, self.service, self.caller, self.ledger = manifest, service, caller, ledger
        self.images_run = 0
        self.watch: Watch | None = None
        self._asked_for: set[str] = set()

    @property
    def decision(self) -> Decision:
        """How the service decides."""
        return self.manifest.decision

    def embed(self, crops: Images) -> Embeddings:
        """Return embeddings (N, D) of crops (N, H, W, 3) in [0, 1]; a row of NaN where the service finds no face.

        For a service that compares, D is H * W * 3 and the numbers are pixels from 0 to 255.

        Raises:
            InputError: the crops have another size, or an answer is not valid.
            UnavailableError: the service does not answer or refuses, or no calls are left.
        """
        spec = self.manifest.input
        check_crops(crops, spec.height, spec.width, self.manifest.name)
        self.images_run += len(crops)
        if self.service.answers != "embedding":
            return to_8bit(crops).reshape(len(crops), -1).astype(np.float32)
        return self._embedded(self.service, crops)

    def embed_and_score(self, crops: Images, draw: int = 0) -> tuple[Embeddings, NDArray[np.float32]]:  # noqa: ARG002
        """Return the embeddings, and attack scores (N,) of zero. A detector of the service is not known."""
        return self.embed(crops), np.zeros(len(crops), np.float32)

    def compare(self, embeddings: Embeddings, references: Embeddings) -> Float:
        """Return the distances (N,) of embeddings (N, D) to references (N, D); NaN where the service finds no face.

        Raises:
            InputError, UnavailableError: see `embed`.
        """
        if self.service.answers == "embedding":
            return distances(self.decision.metric, embeddings, references)
        spec = self.manifest.input
        shape = (-1, spec.height, spec.width, 3)
        probes, others = (side.astype(np.uint8).reshape(shape) for side in (embeddings, np.asarray(references)))
        return self._compared(self.service, probes, others)

    def ask(self, probe: Crops, reference: Crops) -> float:
        """Return the distance of two crops (H, W, 3), without a look into the ledger."""
        service = self.service
        if service.answers != "embedding":
            return self.caller(lambda: service.compare(probe, reference))
        both = to_unit(np.stack([probe, reference]))
        calls = [both] if service.most > 1 else [both[:1], both[1:]]
        found = np.concatenate([self.caller(partial(service.embeddings, crops)) for crops in calls])
        return float(distances(self.decision.metric, found[:1], found[1:])[0])

    def _embedded(self, service: Embedder, crops: Images) -> Embeddings:
        """Embed crops in batches. A batch is asked if the answer to any of its crops is unknown.

        What this process asked for, and not what the ledger knows, divides crops into batches, and the answers of a
        batch are kept at once. An audit that goes on after an interrupt therefore sends the same batches as one that
        was not interrupted, and a server whose numbers depend on the batch gives it the same answers.
        """
        keys = [_key(crop) for crop in crops]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._asked_for}
        rows = sorted(first.values())
        self._asked_for.update(first)
        batches = [rows[i : i + service.most] for i in range(0, len(rows), service.most)]

        def ask(batch: Sequence[int]) -> None:
            answers = self.caller(lambda: service.embeddings(crops[batch]))
            self.ledger.keep([keys[i] for i in batch], answers)

        self._at_once(ask, [batch for batch in batches if any(self.ledger.get(keys[i]) is None for i in batch)])
        return np.stack([self._answer(key) for key in keys]).astype(np.float32) if keys else self._nothing()

    def _compared(self, service: Comparer, probes: Crops, references: Crops) -> Float:
        """Compare pairs of crops. What a lockout does not allow is not sent; NaN stands for it."""
        people = [_key(reference) for reference in references]
        keys = [f"{_key(probe)}{person}" for probe, person in zip(probes, people, strict=True)]
        new = list({key: i for i, key in enumerate(keys) if self.ledger.get(key) is None}.values())

        def ask(i: int) -> None:
            d = self.caller(lambda: service.compare(probes[i], references[i]))
            different = not np.isnan(d) and not is_same(self.decision, np.array(d))
            self.ledger.keep([keys[i]], np.array([d]), people[i] if different else None)

        self._at_once(ask, self._allowed(new, people))
        known = (self.ledger.get(key) for key in keys)
        return np.array([np.nan if answer is None else answer[0] for answer in known], np.float64)

    def _allowed(self, rows: Sequence[int], people: Sequence[str]) -> list[int]:
        """The requests that may be sent before the service locks somebody out."""
        lockout = self.service.remote.limits.lockout
        if lockout is None:
            return list(rows)
        left: dict[str, int] = {}
        allowed = []
        for row in rows:
            person = people[row]
            left.setdefault(person, lockout - self.ledger.refusals.get(person, 0))
            if left[person] > 0:
                allowed.append(row)
                left[person] -= 1
        return allowed

    def _at_once(self, ask: Callable[[_T], None], requests: Sequence[_T]) -> None:
        """Ask several requests at once. The first error ends it, after the calls that are under way."""
        limits = self.service.remote.limits
        if requests and self.watch is not None and self.watch.due(limits.canary):
            self.watch.check()
        width = min(limits.concurrency, len(requests))
        if width <= 1:
            for request in requests:
                ask(request)
            return
        with ThreadPoolExecutor(width) as threads:
            futures = [threads.submit(ask, request) for request in requests]
            try:
                for future in futures:
                    future.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _answer(self, key: str) -> NDArray[np.float64]:
        answer = self.ledger.get(key)
        if answer is None:
            raise AssertionError(key)  # pragma: no cover - it was asked above
        return answer

    def _nothing(self) -> Embeddings:
        return np.zeros((0, self.manifest.output.size), np.float32)


def _key(pixels: NDArray[np.generic]) -> str:
    """Name an image by its pixels. An image in 8 bits and one in floats have different names."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]
