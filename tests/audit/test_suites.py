"""The suites, and the pairs of the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.uniform import Uniform
from toolkit.audit.suites import SUITES, paper_pairs, which_pairs


@pytest.fixture
def lfw_of_6000(tmp_path: Path) -> Path:
    """The official layout of ten folds, all of two empty files: no image is read to list pairs."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(1, 301):
            (tmp_path / "images" / name / f"{name}_{i:04d}.jpg").touch()
    fold = [f"a\t{i}\t{i % 300 + 1}" for i in range(1, 301)] + [f"a\t{i}\tb\t{i}" for i in range(1, 301)]
    (tmp_path / "pairs.txt").write_text("\n".join(["10\t300", *(fold * 10)]) + "\n")
    return tmp_path


def test_the_papers_pairs_are_26_genuine_and_24_impostor(lfw_of_6000: Path) -> None:
    pairs = paper_pairs(lfw_of_6000, None, None, seed=5)
    assert sum(pair.genuine for pair in pairs.pairs) == 26
    assert len(pairs.pairs) == 50
    assert which_pairs(pairs.source, 50) == "These are the paper's own pairs."


def test_other_pairs_are_never_called_the_papers(lfw_of_6000: Path) -> None:
    pairs = paper_pairs(lfw_of_6000, None, [7, 8], seed=0)
    assert len(pairs.pairs) == 50
    assert "not the paper's own pairs" in which_pairs(pairs.source, 50)
    assert "not the paper's own pairs" in which_pairs(paper_pairs(lfw_of_6000, 10, None, seed=0).source, 10)


def test_paper_noise_applies_epsilon_twice() -> None:
    attacks = {attack.name: attack for attack in SUITES["paper"]()}
    assert set(attacks) == {attack.name for attack in SUITES["standard"]()}
    for kind in (Gaussian, Uniform):
        attack = attacks[kind.name]
        assert isinstance(attack, kind)
        assert attack.squared
        # At epsilon 1, Foolbox's uniform noise reaches 1 to each side, which is a deviation of 1 / sqrt(3).
        assert attack.largest == pytest.approx(1 / np.sqrt(3))
