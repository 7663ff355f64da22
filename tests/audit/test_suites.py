"""The suites, and the pairs of the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.attacks.fmn import Fmn
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.settings import weakened
from toolkit.attacks.uniform import Uniform
from toolkit.audit.results.assessment import DeclaredAttack, Target
from toolkit.audit.suites import BUDGET, SUITES, balls, paper_pairs, weaker_than_strong, which_pairs
from toolkit.errors import UsageError
from toolkit.risk.evidence import evidence_class, largest
from toolkit.risk.policy import find_policy


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
    attacks = {attack.name: attack for attack in SUITES["paper"](balls(BUDGET, 1))}
    assert set(attacks) == {"deepfool", "fgsm", "gaussian", "uniform"}
    for kind in (Gaussian, Uniform):
        attack = attacks[kind.name]
        assert isinstance(attack, kind)
        assert attack.squared
        # At epsilon 1, Foolbox's uniform noise reaches 1 to each side, which is a deviation of 1 / sqrt(3).
        assert attack.largest == pytest.approx(1 / np.sqrt(3))


@pytest.mark.parametrize("rms", [0.0, -1.0, 256.0, float("nan")])
def test_a_budget_that_is_none_is_refused(rms: float) -> None:
    with pytest.raises(UsageError, match="--budget"):
        balls(rms, 192)


TARGET = Target("m", "m.onnx", "0" * 64, None, "CPU", "auto", "cosine", 0.5, 2.0, 160, 160, None, "1", None)


@pytest.mark.parametrize("suite", ["strong", "thorough"])
def test_a_suite_meets_the_shipped_policies(suite: str) -> None:
    """What the suites' attacks fail at is evidence: a verdict does not need settings that nobody knows."""
    policy = find_policy("access-control")
    assert policy.budget == BUDGET
    attacks = SUITES[suite](balls(BUDGET, 3 * 160 * 160))
    declared = [DeclaredAttack(a.name, a.needs, a.traits, weakened(a)) for a in attacks]
    assert not [a.name for a in declared if a.weakened]
    sizes = [largest(a, TARGET, "rms") for a in declared]
    assert [size for size in sizes if size is not None] == pytest.approx([BUDGET] * sum(s is not None for s in sizes))
    knowing = {evidence_class(a, "query" if a.traits.budget else "perfect") for a in declared if not a.traits.far}
    unknowing = {evidence_class(a, "zero") for a in declared if a.traits.far}
    assert {kind for r in policy.goals.values() for kind in r.evidence} <= knowing | unknowing
    for a in declared:
        assert a.traits.steps == 0 or a.traits.steps >= policy.strength.steps
        assert a.traits.budget is None or a.traits.budget >= policy.strength.queries


def test_a_run_says_what_it_lacks_of_the_strong_suite() -> None:
    at = balls(BUDGET, 3 * 160 * 160)
    assert weaker_than_strong(SUITES["strong"](at)) == weaker_than_strong(SUITES["thorough"](at)) == []
    assert weaker_than_strong(SUITES["standard"](at)) == [
        "square: 200 of the 1,000 queries of suite strong",
        "cgba: 200 of the 1,000 queries of suite strong",
    ]
    assert weaker_than_strong([Fmn(steps=7), *SUITES["quick"](at)[1:]]) == [
        "suite strong also has square, cgba",
        "fmn: 7 of the 50 steps of suite strong",
        "apgd: 1 of the 2 starts of suite strong",
        "apgd-l2: 1 of the 2 starts of suite strong",
    ]
