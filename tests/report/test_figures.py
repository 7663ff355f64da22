"""The paper's figures: written as readable images that show what they are given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from toolkit.audit.results.evidence import Evidence, Example
from toolkit.report.figures import amplified, write_figures


def test_three_figures_are_written_with_the_faces_in_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probe, reference, attacked, corrected = rng.random((4, 40, 40, 3), np.float32)
    example = Example(reference, probe, {"gaussian": attacked, "fgsm": probe})
    norms = {("gaussian", "none"): np.array([1.0, 2.0]), ("gaussian", "mean3"): np.empty(0)}
    corrected_by = {"probe": probe, "attacked": attacked, "mean3": corrected}
    paths = write_figures(Evidence(example, corrected_by, norms), tmp_path)
    assert [p.name for p in paths] == ["figure3.png", "figure4.png", "figure5.png"]
    third, fourth, fifth = (cv2.imread(str(p))[..., ::-1] for p in paths)
    for i, image in enumerate(corrected_by.values()):
        np.testing.assert_allclose(third[:40, 46 * i : 46 * i + 40] / 255, image, atol=0.003)
    assert (third[40:] < 128).any(), "captions are written below"
    # Perturbations above, probes below; the reference and the clean probe have none.
    np.testing.assert_allclose(fourth[:40, 92:132] / 255, amplified(attacked - probe), atol=0.003)
    np.testing.assert_allclose(fourth[-64:-24, 92:132] / 255, attacked, atol=0.003)
    assert len(np.unique(fifth)) > 10


def test_a_run_without_noise_and_without_successes_still_has_figures(tmp_path: Path) -> None:
    probe = np.full((32, 32, 3), 0.5, np.float32)
    write_figures(Evidence(Example(probe, probe, {}), {}, {}), tmp_path)
    assert all(cv2.imread(str(tmp_path / f"figure{i}.png")) is not None for i in (3, 4, 5))


def test_amplified_perturbations_reach_black_or_white() -> None:
    delta = np.zeros((4, 4, 3), np.float32)
    delta[0, 0, 0] = -0.02
    assert amplified(delta)[0, 0, 0] == 0
    assert amplified(delta)[1, 1, 1] == 0.5
