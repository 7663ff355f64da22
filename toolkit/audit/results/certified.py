"""The certificates of what is deployed, in a finished run."""

from __future__ import annotations

import numpy as np

from toolkit.audit.results.outcomes import Run
from toolkit.pixels import Float


def certified_radii(run: Run, profile: str) -> Float | None:
    """The certified L2 radius of each pair (n,) that a profile decides rightly, else 0.

    Returns:
        None if the profile, as it is deployed, has no certificates. Those of a smoothed verifier that exists only in
        the audit say nothing about what is deployed.
    """
    deployed = {(c.profile, c.samples) for c in run.assessment.certification if c.deployed}
    found = next((c for c in run.certificates if c.profile == profile and (profile, c.samples) in deployed), None)
    if found is None:
        return None
    return np.where(found.same == run.genuine, found.radius, 0.0)
