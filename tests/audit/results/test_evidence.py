"""The evidence of figures: read from a finished run, which already holds everything that takes time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import sixpixels
from tests.models import write_people
from toolkit.audit.results.evidence import evidence_of
from toolkit.audit.results.outcomes import read_run
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.runtime import RuntimeVerifier


def test_evidence_is_read_and_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_people(tmp_path, photos=20)
    folder = tmp_path / "run"
    done = sixpixels(
        "audit", tmp_path / "linear.onnx", "--pairs", tmp_path / "pairs.csv", "--attacks", "gaussian",
        "--profiles", "none,mean3", "--run", folder, "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = sorted(folder.rglob("*"))

    def embed(*_: object, **__: object) -> None:
        raise AssertionError("the run has these embeddings")

    monkeypatch.setattr(RuntimeVerifier, "embed_and_score", embed)
    run = read_run(folder)
    evidence = evidence_of(run)
    assert sorted(folder.rglob("*")) == kept
    for outcome in run.outcomes:
        if outcome.known == outcome.profile:
            norms = evidence.norms["gaussian", outcome.profile]
            # The attack stops at a float success, whose rounding to 8 bits hardly changes the length of noise.
            assert len(norms) == outcome.success.sum() > 0
            np.testing.assert_allclose(np.sort(norms), np.sort(outcome.l2[outcome.success]), rtol=0.3)
    corrected = evidence.corrected
    assert set(corrected) == {"probe", "attacked", "mean3"}
    np.testing.assert_array_equal(corrected["attacked"], evidence.example.attacked["gaussian"])
    filtered = find_profile("mean3").numpy(corrected["attacked"][None], np.zeros(1, np.int64))[0]
    np.testing.assert_allclose(corrected["mean3"], filtered, atol=1e-6)
    assert not np.array_equal(evidence.example.probe, evidence.example.reference)
