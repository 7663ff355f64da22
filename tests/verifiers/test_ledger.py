"""The ledger: what was answered is known again after a kill, and a damaged or foreign file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InputError, SixpixelsError
from toolkit.verifiers.remote.ledger import Ledger


def filled(path: Path) -> Ledger:
    ledger = Ledger(path, "service")
    for i in range(3):
        ledger.called()
        ledger.keep([f"a{i}", f"b{i}"], np.array([[i, 0.5], [np.nan, -i]], np.float32))
    ledger.begin_canary({"pair": 0})
    ledger.confirm()
    ledger.called()
    ledger.keep(["pair"], np.array([0.25]), "person")
    return ledger


def test_what_was_kept_is_known_again_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = filled(path)
    first.close()
    again = Ledger(path, "service")
    assert (again.calls, len(again), again.refusals, again.canary) == (4, 7, {"person": 1}, {"pair": 0})
    for key in ("a0", "b2", "pair"):
        before, after = first.get(key), again.get(key)
        assert before is not None
        assert after is not None
        assert before.tobytes() == after.tobytes()
    assert again.get("c") is None


def test_an_answer_that_is_known_stays_as_it_is(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "answers.jsonl")
    ledger.keep(["pair"], np.array([0.75]))
    answer = ledger.get("pair")
    assert answer is not None
    assert answer[0] == 0.25


def test_what_nobody_confirmed_is_forgotten_with_its_refusals(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    assert filled(path).void() == 1
    ledger = Ledger(path, "service")
    assert ledger.get("pair") is None
    assert ledger.get("a0") is not None
    assert (ledger.refusals, ledger.calls) == ({"person": 0}, 4)


def test_a_line_that_was_cut_by_a_kill_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 60, -7):
        path.write_bytes(whole[:cut])
        ledger = Ledger(path, "service")
        assert ledger.get("pair") is None
        ledger.keep(["pair"], np.array([0.5]))
        ledger.close()
        answer = Ledger(path, "service").get("pair")
        assert answer is not None
        assert answer[0] == 0.5


def test_the_answers_of_another_service_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path).close()
    with pytest.raises(InputError, match="answers of another service"):
        Ledger(path, "other")


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "1",
        '{"call": "x"}',
        '{"keys": ["a"], "type": "<f4", "answers": ["AA=="]}',
        '{"keys": ["a"], "type": "O", "answers": ["AAAAAA=="]}',
        '{"keys": ["a", "b"], "type": "<f4", "answers": ["AAAAAA=="]}',
        '{"keys": [1], "type": "<f4", "answers": ["AAAAAA=="]}',
        '{"keys": ["a"], "type": "<f4", "answers": ["%"]}',
        '{"canary": 1}',
        "not JSON",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path).close()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, line, ""]))
    with pytest.raises(InputError, match=rf"line {len(lines) + 1}"):
        Ledger(path, "service")


def test_any_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    filled(path).close()
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            Ledger(path, "service").close()
        except SixpixelsError as error:
            assert str(path) in str(error)  # noqa: PT017 - it may also be accepted


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.verifiers.remote.ledger._LONGEST_LINE", 1000)
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"schema": 1, "service": "service"}) + "\n" + "x" * 5000)
    with pytest.raises(InputError, match="line 2 is too long"):
        Ledger(path, "service")


def test_a_ledger_too_large_for_the_memory_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with path.open("wb") as stream:
        stream.truncate((2 << 30) + 1)
    with pytest.raises(InputError, match="is larger than 2 GiB; choose another run folder"):
        Ledger(path, "service")
