"""Mutated models: the toolkit accepts or refuses each one. No other error comes out, and nothing takes long.

`corpus/models` has files that failed once, each named by its target.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.model_targets import TARGETS, Target
from toolkit.errors import SixpixelsError

# How many inputs of each target fit into some seconds together.
INPUTS = {"verifier load": 100, "harden": 60, "harden with a detector": 30, "quantize": 30, "frozen graph": 60}
SLOWEST = 30
CORPUS = Path(__file__).parent / "corpus" / "models"


def survives(target: Target, content: bytes, folder: Path) -> None:
    start = sum(os.times()[:4])  # of the processor: a busy machine is no hang
    with contextlib.suppress(SixpixelsError):
        target[2](content, folder)
    assert sum(os.times()[:4]) - start < SLOWEST


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[0])
def test_only_the_toolkits_errors_come_out(target: Target, tmp_path: Path) -> None:
    for i in range(INPUTS.get(target[0], 3)):
        folder = tmp_path / str(i)
        folder.mkdir()
        survives(target, target[1](np.random.default_rng([i, len(target[0])])), folder)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_failed_once(path: Path, tmp_path: Path) -> None:
    name = path.stem.rsplit("-", 1)[0].replace("_", " ")
    survives(next(target for target in TARGETS if target[0] == name), path.read_bytes(), tmp_path)
