"""Parity: how far ONNX Runtime and the original framework are apart on the same crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.verifiers.manifest import Decision
from toolkit.verifiers.scores import distances, is_same


@dataclass(frozen=True)
class Parity:
    """One provider beside the original.

    `largest_distance_difference` is None and `flips` 0 where no pair was compared. `flips` counts pairs that one
    side judges same and the other different.
    """

    provider: str
    crops: int
    pairs: int
    largest_embedding_difference: float
    largest_distance_difference: float | None
    flips: int


def compare(
    deployed: NDArray[np.float32],
    original: NDArray[np.float32],
    index: NDArray[np.intp],
    decision: Decision,
    provider: str,
) -> Parity:
    """Compare embeddings (M, D) of the same crops, and the decisions on the pairs `index` (n, 2) of them."""
    sides = [distances(decision.metric, side[index[:, 0]], side[index[:, 1]]) for side in (deployed, original)]
    differences = np.abs(sides[0] - sides[1])
    return Parity(
        provider=provider,
        crops=len(deployed),
        pairs=len(index),
        largest_embedding_difference=float(np.abs(deployed - original).max(initial=0)),
        largest_distance_difference=float(differences.max()) if len(index) else None,
        flips=int((is_same(decision, sides[0]) != is_same(decision, sides[1])).sum()),
    )


def check_flips(parities: Sequence[Parity], max_flips: int) -> None:
    """Refuse an export whose decisions differ from the original's.

    Raises:
        InputError: on some provider more than `max_flips` decisions flipped.
    """
    for parity in parities:
        if parity.flips > max_flips:
            raise InputError(
                f"{parity.flips} of {parity.pairs} decisions flipped between the original and ONNX Runtime on "
                f"{parity.provider} (largest distance difference {parity.largest_distance_difference:.1e}); "
                f"--max-flips allows {max_flips}"
            )
