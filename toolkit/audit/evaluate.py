"""Clean verification of a verifier: no attack, no defense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toolkit.audit.clean import CleanResult, clean_result, people_of
from toolkit.audit.replay import run_clean
from toolkit.errors import InsufficientError
from toolkit.faces.crops import CropSet
from toolkit.statistics.verification import CrossValidation, best_threshold, cross_validated_accuracy
from toolkit.verifiers.runtime import RuntimeVerifier


@dataclass(frozen=True)
class Evaluation:
    """Clean error rates.

    Attributes:
        threshold: the manifest's.
        clean: what comes of it, and of all other thresholds.
        best_threshold: the one that fits all these pairs best; too optimistic to be quoted as accuracy.
        cross_validated: accuracy with the threshold chosen on the other folds.
        folds: how the folds were made.
    """

    model: str
    provider: str
    pairs_source: str
    genuine: int
    impostor: int
    left_out: tuple[str, ...]
    threshold: float
    clean: CleanResult
    best_threshold: float
    cross_validated: CrossValidation
    folds: str


def evaluate(verifier: RuntimeVerifier, crops: CropSet, pairs_source: str, seed: int) -> Evaluation:
    """Measure a verifier on clean pairs.

    Raises:
        InsufficientError: there are no genuine or no impostor pairs.
        InputError: who is in a pair contradicts its label.
    """
    decision = verifier.manifest.decision
    genuine = np.array([pair.genuine for pair in crops.pairs])
    if genuine.all() or not genuine.any():
        raise InsufficientError(f"{pairs_source}: needs genuine and impostor pairs, has only one of the two kinds")
    run = run_clean(verifier, crops, decision)
    known_folds = [pair.fold for pair in crops.pairs]
    use_folds = None not in known_folds and len(set(known_folds)) > 1
    n_folds = len(set(known_folds)) if use_folds else min(10, int(min(genuine.sum(), (~genuine).sum())))
    return Evaluation(
        model=verifier.manifest.name,
        provider=verifier.provider,
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
        folds=f"{n_folds} folds of the pair list, one left out" if use_folds else f"{n_folds} random folds",
    )
