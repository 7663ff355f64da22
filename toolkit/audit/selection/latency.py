"""Latency ratios of a run's profiles: measured now, or read from the output of `sixpixels profiles bench --json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.audit.results.outcomes import Run
from toolkit.documents import read_json
from toolkit.errors import InputError
from toolkit.pixels import to_unit
from toolkit.profiles.harden import harden
from toolkit.profiles.profile import Profile, find_profile, shipped_profiles
from toolkit.verifiers.latency import latencies
from toolkit.verifiers.manifest import Manifest
from toolkit.verifiers.onnx_file import model_sha256
from toolkit.verifiers.runtime import Execution, RuntimeVerifier, read_model


def measure_latency_ratios(
    run: Run, manifest: Manifest, profiles: Sequence[Profile], execution: Execution, repeats: int
) -> dict[str, float]:
    """Measure the median latency of one crop with each profile, divided by that of the bare verifier.

    The crop is noise, because the time does not depend on its content.

    Args:
        run: the run.
        manifest: its verifier.
        profiles: its profiles.
        execution: how ONNX Runtime runs the models.
        repeats: timed calls for each profile.

    Raises:
        InputError: the verifier or a profile is not the one that the run audited, or cannot run.
    """
    _check_same(f"{manifest.model}", model_sha256(manifest.model), run.assessment.target.model_sha256)
    audited = dict(run.assessment.profiles)
    for profile in profiles:
        _check_same(f"profile {profile.name}", profile.sha256, audited.get(profile.name))
    model = read_model(manifest)
    # The empty profile is the bare model, which is measured anyway.
    defended = [profile for profile in profiles if not profile.empty]
    graphs = [model, *(harden(model, manifest, profile) for profile in defended)]
    spec = manifest.input
    noise = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    verifier = RuntimeVerifier(manifest, model, execution)
    feeds = [verifier.tensor(np.repeat(to_unit(noise), verifier.fixed_batch or 1, axis=0))]
    bare, *others = np.median(latencies(graphs, feeds, verifier.provider, execution.threads, repeats)[:, 0], axis=1)
    ratios = {profile.name: float(other / bare) for profile, other in zip(defended, others, strict=True)}
    return {profile.name: ratios.get(profile.name, 1.0) for profile in profiles}


def audited_profiles(run: Run, files: Sequence[str]) -> list[Profile]:
    """Load the profiles of a run: those in `files`, and others by their shipped names.

    Raises:
        InputError: a profile is neither shipped nor among the files.
    """
    given = {profile.name: profile for profile in map(find_profile, files)}
    shipped = shipped_profiles()
    found = []
    for name, _ in run.assessment.profiles:
        if name not in given and name not in shipped:
            raise InputError(f"profile {name!r} of the run is not shipped; give its file to --profiles, or --costs")
        found.append(given.get(name) or find_profile(name))
    return found


def read_latency_ratios(run: Run, costs: Path) -> dict[str, float]:
    """Read latency ratios from the output of `sixpixels profiles bench --json`.

    Raises:
        InputError: the file has another format or is of another verifier, or the bare verifier is missing in it.
    """
    content = read_json(costs, "costs")
    try:
        if content["model"] != run.assessment.target.name:
            raise InputError(
                f"{costs}: is of {content['model']!r}, but the run audited {run.assessment.target.name!r}; "
                "measure that verifier"
            )
        medians = {
            str(cost["profile"]): float(timing["p50"])
            for cost in content["profiles"]
            for timing in cost["timings"]
            if timing["batch"] == 1
        }
        bare = medians["none"]
        return {name: median / bare for name, median in medians.items()}
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(
            f"{costs}: is not the output of this version's `profiles bench --json` ({error!r}); measure again"
        ) from error


def _check_same(what: str, found: str, audited: object) -> None:
    if found != audited:
        raise InputError(f"{what} has changed since the audit (sha256 {found}, not {audited}); give --costs instead")
