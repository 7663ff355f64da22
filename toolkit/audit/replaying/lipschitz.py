"""Certificates of a verifier whose Lipschitz bound is known: they need no noise, no vote and no confidence."""

from __future__ import annotations

import numpy as np

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import CHUNK
from toolkit.audit.replaying.certificates import PairCertificates
from toolkit.faces.crops import CropSet
from toolkit.pixels import to_unit
from toolkit.verifiers.lipschitz import certified_radii
from toolkit.verifiers.scores import is_same


def certify_bounded(bench: Bench, profile: str, crops: CropSet, clean: CleanRun) -> PairCertificates:
    """Certify every pair of a bare verifier whose manifest has a Lipschitz bound.

    Args:
        bench: the verifiers. They have checked the bound.
        profile: the name of the empty profile.
        crops: n pairs.
        clean: the clean run of the bare verifier.
    """
    probes = crops.index[:, 0]
    rows, places = np.unique(probes, return_inverse=True)
    lengths = [
        bench.raw_lengths(to_unit(np.asarray(crops.images[rows[start : start + CHUNK]])))
        for start in range(0, len(rows), CHUNK)
    ]
    radius = certified_radii(bench.manifest, clean.distances, np.concatenate(lengths)[places])
    same = is_same(bench.manifest.decision, clean.distances).astype(np.int64)
    return PairCertificates(profile, 0.0, 0, 1.0, same, radius)
