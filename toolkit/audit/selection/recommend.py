"""Recommends one profile of a finished run, with the latency of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.audit.results.outcomes import Run
from toolkit.audit.results.record import audited_files
from toolkit.audit.selection.candidates import candidates_of
from toolkit.audit.selection.latency import audited_profiles, measure_latency_ratios, read_latency_ratios
from toolkit.audit.selection.select import Limits, Selection, select
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import Execution


def select_profile(
    run: Run,
    limits: Limits,
    *,
    costs: Path | None = None,
    model: str | Path | Manifest | None = None,
    profiles: Sequence[str] = (),
    repeats: int = 20,
    execution: Execution | None = None,
) -> Selection:
    """Recommend one profile of a finished run within limits, with the Pareto front and paired tests.

    Args:
        run: the run.
        limits: the attacker's goal, and the largest acceptable costs.
        costs: file of latencies from `sixpixels profiles bench --json`. None measures them now.
        model: the verifier to measure. Default: the one that the run recorded.
        profiles: .toml files of the run's profiles that are not shipped. Default: those that the run recorded.
        repeats: timed calls for each profile.
        execution: how ONNX Runtime runs the models.

    Raises:
        InsufficientError: the evidence is too weak for every profile.
        InputError: the verifier or a profile is not the one that the run audited, or cannot run.
    """
    if costs is not None:
        ratios = read_latency_ratios(run, costs)
    else:
        manifest, files = audited_files(run.folder) if model is None else (find_manifest(model), ())
        audited = audited_profiles(run, [*files, *profiles])
        ratios = measure_latency_ratios(run, manifest, audited, execution or Execution(), repeats)
    return select(candidates_of(run, ratios, limits.budget), run.genuine, limits)
