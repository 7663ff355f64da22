"""Certificates of a verifier whose Lipschitz bound is known: they need no noise, no vote and no confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import CleanRun
from toolkit.audit.crafting.craft import CHUNK
from toolkit.audit.replaying.certificates import PairCertificates
from toolkit.audit.replaying.sanity import Check, Outcome
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


def check_certificates(
    outcomes: Sequence[Outcome], certificates: Sequence[PairCertificates], genuine: NDArray[np.bool_]
) -> list[Check]:
    """Check that no probe of the run succeeds within a certified radius, for each profile with a Lipschitz bound.

    A vote is not checked so: its certificate is about all possible noise, and the draws of one call may err near the
    border.

    Args:
        outcomes: the results of all scenarios.
        certificates: all certificates of the run.
        genuine: (n,), whether each pair is of one person.
    """
    checks = []
    for c in certificates:
        mine = [replay for scenario, replay in outcomes if scenario.profile.name == c.profile]
        if c.samples or not mine:
            continue
        certified = (c.same == genuine) & (c.radius > 0)
        hits = [(replay, replay.success & certified) for replay in mine]
        far = np.concatenate([replay.l2[hit] / c.radius[hit] for replay, hit in hits])
        broken = int((far < 1).sum())
        said = f"{broken} probes succeed within a certified radius"
        said += f"; the nearest has {far.min():.3f} times the radius" if len(far) else ""
        checks.append(Check("certificates", c.profile, not broken, said))
    return checks
