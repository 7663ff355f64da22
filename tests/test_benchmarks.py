"""The benchmarks run, and our attacks succeed as often as those of other libraries; nothing here is about time."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import find_manifest

ROOT = Path(__file__).resolve().parents[1]
ATTACKS = ("pgd",)
# tests/attacks/test_real_faces.py stands beside Foolbox.
LIBRARIES = ("ours", "art")
MODES = ("batched", "singly")


@pytest.mark.slow
def test_ours_succeed_at_least_as_often_as_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    output = tmp_path / "attacks.json"
    asked = ["--quick", "--count", "2", "--attacks", ",".join(ATTACKS), "--libraries", ",".join(LIBRARIES)]
    program = importlib.import_module("attacks")

    def here(command: list[str], **_: object) -> None:
        """What the program starts in a process of its own, for each library, without loading TensorFlow again."""
        with mock.patch.object(sys, "argv", command[1:]):
            program.main()

    with mock.patch.dict(os.environ), mock.patch.object(program, "subprocess", SimpleNamespace(run=here)):
        here([sys.executable, "attacks.py", *asked, "-o", str(output)])
    rows = {(r["attack"], r["library"], r["mode"]): r for r in json.loads(output.read_text())["rows"]}
    assert len(rows) == len(ATTACKS) * len(LIBRARIES) * len(MODES)
    assert not [row for row in rows.values() if row["failed"]]
    for attack in ATTACKS:
        batched, singly = (rows[attack, "ours", mode] for mode in MODES)
        # A pair's result does not depend on its batch.
        assert [batched[k] for k in ("success", "forward")] == [singly[k] for k in ("success", "forward")]
        theirs = [rows[attack, library, mode] for library in LIBRARIES[1:] for mode in MODES]
        assert batched["success"] >= max(row["success"] for row in theirs) > 0
        assert batched["backward"] <= min(row["backward"] for row in theirs) + 1


def test_every_row_of_what_holds_can_be_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From any folder: the pages are printed in one of their own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    rows = [row.split(":") for row in importlib.import_module("holding").ROWS.split(",")]
    found = [(find_manifest(verifier), find_profile(profile)) for verifier, profile, *_ in rows]
    assert len({(manifest.name, profile.name) for manifest, profile in found}) == len(rows)
