"""An audit of what a real model server serves is the audit of the file: the same probes, and the same decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.served.running import Served, describe
from toolkit import AuditOptions, audit_verifier
from toolkit.audit.results.outcomes import Run
from toolkit.errors import UnavailableError

LIMITS = "retries = 1\nconcurrency = 4\ncanary = 20"


def audited(folder: Path, name: str, **more: Any) -> Run:
    settings = ("gaussian.levels=4", "square.budget=10")
    options = AuditOptions(
        **more, limit=6, attacks=("gaussian", "square"), settings=settings, profiles=("none",), provider="cpu",
        threads=1, run=folder / name,
    )  # fmt: skip
    return audit_verifier(options)


def probes(run: Run) -> list[bytes]:
    return sorted(path.read_bytes() for path in (run.folder / "probes").glob("*.probes"))


@pytest.mark.parametrize("model", ["bare", "hardened"])
def test_the_same_probes_and_decisions(tmp_path: Path, served: Served, model: str) -> None:
    file = "facenet-mini" if model == "bare" else str(served.folder / "hardened.onnx")
    near = audited(tmp_path, "near", model=file)
    far = audited(tmp_path, "far", remote=describe(tmp_path, served, "grpc", model, LIMITS))
    assert probes(far) == probes(near)
    for mine, other in zip(far.outcomes, near.outcomes, strict=True):
        np.testing.assert_array_equal(mine.success, other.success)
        np.testing.assert_array_equal(mine.l2, other.l2)
    assert any(s.asr.successes for s in far.assessment.scenarios)
    np.testing.assert_array_equal(far.clean[0].correct, near.clean[0].correct)


def test_a_model_that_was_swapped_since_the_run_began_is_noticed(tmp_path: Path, served: Served) -> None:
    remote = describe(tmp_path, served, "grpc", "swapped", LIMITS)
    original = (served.folder / "swapped.onnx").read_bytes()
    (served.folder / "swapped.onnx").write_bytes((served.folder / "hardened.onnx").read_bytes())
    audited(tmp_path, "hardened", remote=remote)
    (served.folder / "swapped.onnx").write_bytes(original)
    # The run goes on with other questions.
    with pytest.raises(UnavailableError, match="the service has changed"):
        audited(tmp_path, "hardened", remote=remote, seed=1)
