"""Bounds: every probe that leaves what its attack declares is noticed, and rounding is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.attacks.apgd_l2 import ATTACK as APGD_L2
from toolkit.attacks.base import Attack, Crafted, Task
from toolkit.attacks.glasses import Glasses
from toolkit.attacks.pgd import Pgd
from toolkit.audit.crafting.artifacts import decode_probes, encode_probes
from toolkit.audit.replaying.bounds import check_bounds, look_at
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.pixels import to_8bit, to_unit
from toolkit.profiles.profile import Profile

NONE = Profile("none", "", (), "")
EYES = np.array([[5.0, 6.0], [11.0, 6.0], [8.0, 9.0], [6.0, 12.0], [10.0, 12.0]])
CLEAN = np.full((3, 16, 16, 3), 100, np.uint8)


def looked(attack: Any, levels: np.ndarray, *, eight: np.ndarray | None = None) -> Check:
    """The check of probes that differ from gray by so many levels, after they were written and read."""
    delta = np.broadcast_to(levels, CLEAN.shape).astype(np.float32)
    probes = to_unit(CLEAN) + delta / np.float32(255)
    probes8 = to_8bit(to_unit(CLEAN) + np.broadcast_to(levels if eight is None else eight, CLEAN.shape) / 255)
    every = np.ones(len(CLEAN), np.bool_)
    read = decode_probes(encode_probes(Crafted(probes, every, probes8, every, np.ones(3, np.int64)), CLEAN), CLEAN)
    assert read is not None
    (check,) = check_bounds([look_at(attack, NONE, CLEAN, read, EYES)])
    return check


def one(level: float, rest: float = 0.0) -> np.ndarray:
    """Only the first probe differs by `level`."""
    return np.array([level, rest, rest])[:, None, None, None]


@pytest.mark.parametrize(("level", "passes"), [(8.0, True), (8.04, False), (-8.04, False), (24.0, False)])
def test_float_probes_stay_in_their_linf_ball(level: float, passes: bool) -> None:
    check = looked(Pgd(epsilon=8 / 255), one(level, 8.0), eight=one(0.0))
    assert check == Check(
        "bounds", "pgd on none", passes,
        f"{3 if passes else 2} of 3 probes stay within its linf ball; the furthest perturbation has "
        f"{abs(level) / 8:.3f} times its radius",
    )  # fmt: skip


@pytest.mark.parametrize(("level", "passes"), [(2.0, True), (2.01, False)])
def test_float_probes_stay_in_their_l2_ball(level: float, passes: bool) -> None:
    assert looked(replace(APGD_L2, epsilon=2 / 255 * 768**0.5), one(level, 2.0), eight=one(0.0)).passed is passes


def test_8_bit_probes_may_differ_by_half_a_level_more() -> None:
    for radius, passes in ((7.6, True), (7.4, False)):
        assert looked(Pgd(epsilon=radius / 255), one(0.0), eight=one(8.0)).passed is passes


def test_probes_stay_in_the_range_of_pixels() -> None:
    free: Any = replace(Pgd(), epsilon=1.0)
    for level, passes in ((155.0, True), (156.0, False), (-100.0, True), (-101.0, False)):
        assert looked(free, one(level), eight=one(0.0)).passed is passes, level


def test_glasses_change_their_frame_only() -> None:
    attack = Glasses()
    frame = attack.pixels(EYES, 16, 16)
    assert 0 < frame.sum() < frame.size
    assert looked(attack, 40.0 * frame[None, ..., None]).passed
    beside = frame.copy()
    beside[tuple(np.argwhere(~frame)[0])] = True
    check = looked(attack, 40.0 * beside[None, ..., None])
    assert not check.passed
    assert check.detail == "0 of 3 probes stay within the pixels that it declares"


@dataclass(frozen=True)
class Overreaching(Pgd):
    """PGD in a ball three times as large as the one that it declares."""

    name: str = "overreaching"

    def craft(self, model: Any, task: Task) -> Crafted:
        return Pgd(epsilon=3 * self.epsilon).craft(model, task)


@dataclass(frozen=True)
class Broken(Pgd):
    """PGD whose probes are not numbers."""

    name: str = "broken"

    def craft(self, model: Any, task: Task) -> Crafted:
        crafted = super().craft(model, task)
        return replace(crafted, probes=np.full_like(crafted.probes, np.nan))


@pytest.fixture
def audited(request_: Request, tmp_path: Path) -> Any:
    def audit(attack: Attack) -> Any:
        return run_audit(replace(request_, attacks=(attack,), knowledge=("perfect",)), tmp_path / attack.name)

    return audit


def test_an_attack_that_leaves_its_ball_voids_the_run(audited: Any) -> None:
    assessment = audited(Overreaching(epsilon=8 / 255))
    failed = [(c.name, c.about) for c in assessment.checks if not c.passed and c.name == "bounds"]
    assert ("bounds", "overreaching on mean3") in failed
    assert not assessment.valid
    sound = audited(Pgd(epsilon=8 / 255))
    assert all(check.passed for check in sound.checks if check.name == "bounds")


def test_probes_that_are_not_numbers_are_the_attack_s_failure(audited: Any) -> None:
    assessment = audited(Broken(epsilon=8 / 255))
    assert [u.attack for u in assessment.unavailable] == ["broken on none", "broken on mean3"]
    assert "NaN or infinite values" in assessment.unavailable[0].reason
