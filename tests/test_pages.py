"""Pages show what benchmarks and audits print: every place has its commands, and printing changes the place alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import script

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pages() -> Any:
    return script("make_pages")


def test_every_place_of_a_page_has_its_commands(pages: Any) -> None:
    found = []
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        page = path.read_text()
        for name, content in re.findall(r"<!-- printed: (\S+) -->\n(.*?)\n<!-- end -->", page, re.DOTALL):
            found.append((name, str(path.relative_to(ROOT))))
            assert pages.replaced(page, name, content) == page
    assert sorted(found) == sorted((name, page) for name, place in pages.PLACES.items() for page in place.pages)
    with pytest.raises(ValueError, match="one place for nothing"):
        pages.replaced("", "nothing", "")


def test_an_empty_place_is_filled_and_its_neighbors_stay(pages: Any) -> None:
    page = "<!-- printed: a -->\n<!-- end -->\n<!-- printed: b -->\nold\n<!-- end -->\n"
    filled = "<!-- printed: a -->\nnew\n<!-- end -->\n<!-- printed: b -->\nold\n<!-- end -->\n"
    assert pages.replaced(page, "a", "new") == filled


def test_programs_know_the_options_of_their_commands(pages: Any) -> None:
    for command in (command for place in pages.PLACES.values() for command in place.commands):
        program, *words = command.split()
        # The first two pass all options on to the command line, which other tests of the pages read.
        if program not in ("sixpixels", "benchmarks/audit.py"):
            source = (ROOT / program).read_text()
            assert not [w for w in words if w.startswith("--") and f'"{w}"' not in source], command


def test_a_page_names_the_command_of_a_part_that_it_shows(pages: Any) -> None:
    for name, place in pages.PLACES.items():
        if place.part is not None:
            for path in place.pages:
                page = re.sub(r"\s+", " ", (ROOT / path).read_text())
                for command in place.commands:
                    words = command if command.startswith("sixpixels") else f"python {command}"
                    assert words in page, f"{path} shows {name} without its command"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "measure.py"
    path.write_text("import sys; print('WARNING: noise\\n\\nfirst\\nlast', sys.argv[1:])")
    return path


def test_a_benchmark_stands_in_its_place_with_command_and_machine(pages: Any, program: Path, tmp_path: Path) -> None:
    whole, short = (pages.Place(("page.md",), (f"{program} ../shared",), last=last) for last in (0, 1))
    block = pages.block_of(whole, sys.executable, tmp_path)
    lines = block.splitlines()
    assert lines[:2] == ["```text", f"$ python {program} ../shared"]
    assert "first" in lines
    assert "last ['../shared']" in lines
    assert not [line for line in lines if "WARNING" in line]
    assert re.fullmatch(r"\d+ cores? of .*, Python [\d.]+, \d{4}-\d\d-\d\d, revision .*", lines[-2])
    assert "first" not in pages.block_of(short, sys.executable, tmp_path)
    (tmp_path / "page.md").write_text("before\n<!-- printed: engine -->\nold\n<!-- end -->\nafter\n")
    (tmp_path / "engine.txt").write_text(block)
    pages.PLACES["engine"] = whole
    pages.assemble(tmp_path, ["engine", "kills"], tmp_path)
    assert (tmp_path / "page.md").read_text() == f"before\n<!-- printed: engine -->\n{block}\n<!-- end -->\nafter\n"


def test_a_part_of_a_report_is_what_lies_between_two_lines(pages: Any, program: Path, tmp_path: Path) -> None:
    lines = ["head", "b begins", "inside", "", "c ends", "more"]
    assert pages.part_of(lines, "b", "c") == ["b begins", "inside"]
    assert pages.part_of(lines, "b", "") == lines[1:]
    for first, after in (("x", "c"), ("b", "x"), ("c", "b")):
        with pytest.raises(ValueError, match="no line begins with"):
            pages.part_of(lines, first, after)
    place = pages.Place(("page.md",), (f"{program} 1", str(program)), part=("first", ""))
    assert pages.block_of(place, sys.executable, tmp_path) == "```text\nfirst\nlast []\n```"
    place = pages.Place(("page.md",), (str(program),), part=("first", "last"), fenced=False)
    assert pages.block_of(place, sys.executable, tmp_path) == "first"


def test_a_command_that_fails_ends_the_printing(pages: Any, program: Path, tmp_path: Path) -> None:
    program.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="status 3"):
        pages.block_of(pages.Place(("page.md",), (str(program),)), sys.executable, tmp_path)
