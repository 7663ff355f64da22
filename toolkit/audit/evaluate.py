"""Clean verification of a verifier: no attack, no defense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.audit.replay import run_clean
from toolkit.errors import InsufficientError
from toolkit.faces.crops import CropSet
from toolkit.statistics.intervals import Rate
from toolkit.statistics.verification import (
    CrossValidation,
    OperatingPoint,
    best_threshold,
    cross_validated_accuracy,
    d_prime,
    eer,
    fmr_fnmr,
    fnmr_at_fmr,
    identity_bootstrap,
)
from toolkit.verifiers.runtime import RuntimeVerifier

FMR_TARGETS = (1e-2, 1e-3)


@dataclass(frozen=True)
class Evaluation:
    """Clean error rates.

    Attributes:
        threshold: the manifest's; `accuracy`, `fnmr` and `fmr` are at it.
        accuracy_interval: identity-level bootstrap, 95 %, of the accuracy; None where pairs name no identities.
        best_threshold: the one that fits all these pairs best; too optimistic to be quoted as accuracy.
        cross_validated: accuracy with the threshold chosen on the other folds.
        folds: how the folds were made.
        at_fmr: FNMR at fixed FMR, None where there are too few impostor pairs.
    """

    model: str
    provider: str
    pairs_source: str
    genuine: int
    impostor: int
    left_out: tuple[str, ...]
    threshold: float
    accuracy: Rate
    accuracy_interval: tuple[float, float] | None
    fnmr: Rate
    fmr: Rate
    best_threshold: float
    cross_validated: CrossValidation
    folds: str
    eer: float
    d_prime: float
    at_fmr: tuple[tuple[float, OperatingPoint | None], ...]


def evaluate(verifier: RuntimeVerifier, crops: CropSet, pairs_source: str, seed: int) -> Evaluation:
    """Measure a verifier on clean pairs.

    Raises:
        InsufficientError: there are no genuine or no impostor pairs.
    """
    decision = verifier.manifest.decision
    genuine = np.array([pair.genuine for pair in crops.pairs])
    if genuine.all() or not genuine.any():
        raise InsufficientError(f"{pairs_source}: needs genuine and impostor pairs, has only one of the two kinds")
    clean = run_clean(verifier, crops, decision)
    d = clean.distances
    fmr, fnmr = fmr_fnmr(d, genuine, decision.threshold)
    known_folds = [pair.fold for pair in crops.pairs]
    use_folds = None not in known_folds and len(set(known_folds)) > 1
    n_folds = len(set(known_folds)) if use_folds else min(10, int(min(genuine.sum(), (~genuine).sum())))
    names = [(pair.probe_identity, pair.reference_identity) for pair in crops.pairs]
    interval = None
    if all(a is not None and b is not None for a, b in names):
        numbers = np.unique(np.array(names, str), return_inverse=True)[1].reshape(-1, 2)
        interval = identity_bootstrap(
            d,
            genuine,
            numbers[:, 0],
            numbers[:, 1],
            threshold=decision.threshold,
            statistic="accuracy",
            rng=np.random.default_rng(seed),
        )
    return Evaluation(
        model=verifier.manifest.name,
        provider=verifier.provider,
        pairs_source=pairs_source,
        genuine=int(genuine.sum()),
        impostor=int((~genuine).sum()),
        left_out=tuple(f"{o.pair.probe} / {o.pair.reference}: {o.reason}" for o in crops.left_out),
        threshold=decision.threshold,
        accuracy=Rate(int(clean.correct.sum()), len(genuine)),
        accuracy_interval=interval,
        fnmr=fnmr,
        fmr=fmr,
        best_threshold=best_threshold(d, genuine),
        cross_validated=cross_validated_accuracy(
            d, genuine, np.array(known_folds, np.int64) if use_folds else None, n_folds, seed
        ),
        folds=f"{n_folds} folds of the pair list, one left out" if use_folds else f"{n_folds} random folds",
        eer=eer(d, genuine),
        d_prime=d_prime(d, genuine),
        at_fmr=tuple((target, fnmr_at_fmr(d, genuine, target)) for target in FMR_TARGETS),
    )
