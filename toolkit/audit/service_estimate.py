"""Estimates of an audit of a service: its plan, with the calls, the time and the money that it may need.

An estimate calls nobody. It counts what the attacks may ask at most, from what they declare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.attacks.base import Attack
from toolkit.audit.crafting.craft import CHUNK
from toolkit.audit.estimate import Size, size_of
from toolkit.audit.options import AuditOptions
from toolkit.audit.plan import Unavailable
from toolkit.audit.request import make_request, plan_of
from toolkit.audit.suites import NATURAL
from toolkit.errors import UsageError
from toolkit.faces.corruptions import CORRUPTIONS, STRENGTHS
from toolkit.progress import SILENT, Progress
from toolkit.verifiers.remote.canary import CHECK, FIRST
from toolkit.verifiers.remote.config import Answers, OpenInference, Remote


@dataclass(frozen=True)
class AttackCalls:
    """The largest number of calls of one attack, with its replay: it stops early on pairs that fall."""

    attack: str
    known: str
    calls: int


@dataclass(frozen=True)
class ServiceEstimate:
    """The plan of an audit of a service.

    Attributes:
        target, address, answers: the service, and what it answers.
        pairs_source, size, seed: the pairs and the seed.
        attacks: the largest number of calls of each attack.
        clean: the calls for the clean pairs.
        canaries: the largest number of calls for canaries.
        calls: the largest number of all calls, without repeated ones.
        max_calls, max_cost: the limits, which are never exceeded.
        cost: what `calls` calls cost, in words; "" without a price.
        seconds: the least time of `calls` calls, by the limit of their rate.
        unavailable: attacks that cannot run, and why.
    """

    target: str
    address: str
    answers: Answers
    pairs_source: str
    size: Size
    seed: int
    attacks: tuple[AttackCalls, ...]
    clean: int
    canaries: int
    calls: int
    max_calls: int
    max_cost: float | None
    cost: str
    seconds: float
    unavailable: tuple[Unavailable, ...]

    @property
    def fits(self) -> bool:
        """Whether the limit of calls allows all of them."""
        return self.calls <= self.max_calls


def plan_service_audit(options: AuditOptions, progress: Progress = SILENT) -> ServiceEstimate:
    """Plan an audit of a service, without calling it.

    Args:
        options: the options of the audit, with `remote`.
        progress: shows the alignment of the faces.

    Raises:
        UsageError: there is no `remote`.
        SixpixelsError: see `audit_verifier`.
    """
    request, pairs = make_request(options, progress, sample=True)
    service = request.service
    if service is None:
        raise UsageError("--remote names the service to plan an audit of; give it, or use plan_audit")
    size, plan = size_of(pairs), plan_of(request)
    attacks = [
        AttackCalls(s.attack.name, s.known.name, _attack_calls(s.attack, size.pairs, service)) for s in plan.scenarios
    ]
    clean = _batches(size.images, service) if service.answers == "embedding" else size.pairs
    if request.suite == NATURAL:
        images = len(CORRUPTIONS) * STRENGTHS * size.pairs
        attacks.append(AttackCalls("corruptions", "none", _batches(images, service)))
    asked = clean + sum(attack.calls for attack in attacks)
    chunks = len(attacks) * -(-size.pairs // CHUNK)
    canaries = FIRST + CHECK * (2 + chunks + asked // service.limits.canary)
    calls = asked + canaries
    return ServiceEstimate(
        target=service.name,
        address=service.address,
        answers=service.answers,
        pairs_source=request.pairs_source,
        size=size,
        seed=request.seed,
        attacks=tuple(attacks),
        clean=clean,
        canaries=canaries,
        calls=calls,
        max_calls=service.limits.max_calls,
        max_cost=service.limits.max_cost,
        cost=service.limits.money(calls),
        seconds=calls / service.limits.calls_per_second,
        unavailable=plan.unavailable,
    )


def _attack_calls(attack: Attack, pairs: int, service: Remote) -> int:
    """The largest number of calls of an attack: it asks about one image of every pair of a chunk at once."""
    steps = attack.traits.budget if attack.traits.budget is not None else attack.traits.draws
    steps = 0 if attack.needs == "gradient" else steps
    # The float probe and the 8-bit probe are replayed, and an attack may ask once before it counts.
    chunks = np.diff([*range(0, pairs, CHUNK), pairs])
    return int((steps + 3) * sum(_batches(int(count), service) for count in chunks))


def _batches(images: int, service: Remote) -> int:
    """The calls that a number of images needs."""
    return -(-images // service.batch) if isinstance(service, OpenInference) else images
