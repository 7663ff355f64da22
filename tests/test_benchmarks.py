"""The benchmark beside other libraries runs, ours succeed as often, and the page has a place for each benchmark.

Nothing here is about time.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest

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


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("printed")


def test_the_page_has_one_place_for_each_benchmark(printed: ModuleType) -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    places = re.findall(r"<!-- printed: (\S+) -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    assert sorted(name for name, _ in places) == sorted(printed.BENCHMARKS)
    for name, content in places:
        assert printed.replaced(page, name, content) == page
    with pytest.raises(ValueError, match="one place for nothing"):
        printed.replaced(page, "nothing", "")


def test_commands_of_the_page_have_options_that_their_programs_know(printed: ModuleType) -> None:
    for benchmark in printed.BENCHMARKS.values():
        for command in benchmark.commands:
            program, *words = command.split()
            source = (ROOT / program).read_text()
            # This one passes all options on to `sixpixels audit`.
            options = [word for word in words if word.startswith("--") and program != "benchmarks/audit.py"]
            assert not [option for option in options if f'"{option}"' not in source], command


def test_a_benchmark_stands_in_the_page_with_its_command_and_its_machine(
    printed: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "measure.py"
    program.write_text("import sys; print('WARNING: noise\\n\\nfirst\\nlast', sys.argv[1:])")
    whole, short = (printed.Benchmark((f"{program} {{lfw}}",), last=last) for last in (0, 1))
    data = {"lfw": str(tmp_path / "faces")}
    block = printed.run(whole, data, sys.executable)
    lines = block.splitlines()
    assert lines[0] == "```text"
    assert lines[1] == f"$ python {program} faces", "data are named without the folders of a machine"
    assert "first" in lines
    assert f"last ['{data['lfw']}']" in lines
    assert re.fullmatch(r"\d+ cores of .*, Python [\d.]+, \d{4}-\d\d-\d\d, revision .*", lines[-2])
    assert "first" not in printed.run(short, data, sys.executable)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- printed: engine -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(printed, "PAGE", page)
    (tmp_path / "engine.txt").write_text(block)
    printed.assemble(tmp_path, ["engine", "audit"])
    assert page.read_text() == f"before\n<!-- printed: engine -->\n{block}\n<!-- end -->\nafter\n"
    program.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="status 3"):
        printed.run(whole, data, sys.executable)
