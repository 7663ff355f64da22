"""Mutated answers of servers: each is used, or refused with one line that shows no secrets. About ten seconds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import http_targets, service_targets
from tests.fuzz.http_targets import TOKEN, Target
from toolkit.errors import SixpixelsError

TARGETS = [*http_targets.TARGETS, *service_targets.TARGETS]
INPUTS = 400
MOST_SECONDS = 5
CORPUS = sorted((Path(__file__).parent / "corpus" / "http").glob("*/*"))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[0])
def test_every_mutant_is_used_or_refused(target: Target, tmp_path: Path) -> None:
    _, make, run = target
    used = 0
    for number in range(INPUTS):
        content, begun = make(np.random.default_rng(number)), time.monotonic()
        try:
            run(content, tmp_path)
            used += 1
        except SixpixelsError:
            pass
        except Exception:
            (tmp_path / f"failed-{number}").write_bytes(content)  # pytest says where the folder is
            raise
        assert time.monotonic() - begun < MOST_SECONDS, number
    assert 0 < used < INPUTS, "mutants that are all refused, or all used, try nothing"
    assert not list(tmp_path.iterdir())


def test_some_mutants_send_the_token_back_and_all_are_the_same_again() -> None:
    for _, make, _ in TARGETS:
        made = [[make(np.random.default_rng(number)) for number in range(100)] for _ in range(2)]
        assert made[0] == made[1]
        assert any(TOKEN.encode() in content for content in made[0])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_failed_once_is_refused(path: Path, tmp_path: Path) -> None:
    (run,) = [run for name, _, run in TARGETS if name == path.parent.name]
    with pytest.raises(SixpixelsError):
        run(path.read_bytes(), tmp_path)
