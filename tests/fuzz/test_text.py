"""Text and data files from outside are accepted, or refused by an error of ours: never a traceback, never a hang."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.text_targets import SEEDS, TARGETS, Target
from toolkit.errors import SixpixelsError
from toolkit.text import LONGEST

CORPUS = sorted((Path(__file__).parent / "corpus" / "text").glob("*/*"))
# Together about ten seconds. `benchmarks/fuzz.py` tries many more.
MUTANTS = {"report": 50, "results": 50, "request": 100, "costs": 100, "manifest": 200}
# Of the processor: a busy machine is no hang.
MOST_SECONDS = 5


def run(target: Target, content: bytes, folder: Path) -> None:
    """Read a file. Whatever else than an error of ours comes out fails the test."""
    begun, message = time.process_time(), ""
    try:
        target.run(content, folder)
    except SixpixelsError as error:
        message = str(error)
    assert len(message) <= LONGEST
    assert message.isprintable()
    assert time.process_time() - begun < MOST_SECONDS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_mutant_gives_anything_but_an_error_of_ours(target: Target, tmp_path: Path) -> None:
    rng = np.random.default_rng(zlib.crc32(target.name.encode()))
    for number in range(MUTANTS.get(target.name, 300)):
        content = target.make_mutants(rng)
        try:
            run(target, content, tmp_path)
        except Exception:
            (tmp_path / f"failed-{number}").write_bytes(content)  # pytest says where the folder is
            raise


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_seed_is_accepted_and_mutants_are_the_same_again(target: Target, tmp_path: Path) -> None:
    """A seed that is refused would make all mutants of it useless."""
    for content in SEEDS[target.name][0]():
        target.run(content, tmp_path)
    first, second = ([target.make_mutants(np.random.default_rng(7)) for _ in range(5)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_failed_once_is_refused(path: Path, tmp_path: Path) -> None:
    (target,) = [one for one in TARGETS if one.name == path.parent.name]
    begun = time.process_time()
    with pytest.raises(SixpixelsError):
        target.run(path.read_bytes(), tmp_path)
    assert time.process_time() - begun < MOST_SECONDS
