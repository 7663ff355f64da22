"""The documents say what is so: reference pages are those of the schemas, commands parse, examples can be read."""

from __future__ import annotations

import itertools
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

import cli
from tests.commands import script
from toolkit.audit.options import read_config
from toolkit.errors import InputError
from toolkit.files import bundled
from toolkit.report.reference import describe
from toolkit.tables import Table
from toolkit.verifiers import manifest
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.schema import manifest_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FULL = """schema = 1
name = "full"
[model]
file = "x.onnx"
sha256 = "00"
license = "MIT"
provenance = "made up"
[input]
name = "input"
height = 16
width = 16
layout = "NHWC"
channels = "RGB"
range = [0, 1]
standardization = "fixed"
mean = 0.5
std = [1, 1, 1]
[output]
name = "embedding"
size = 4
normalize = true
[decision]
metric = "cosine"
threshold = 0.5
maximum = 2.0
[alignment]
template = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
[checkpoint]
file = "x.h5"
format = "keras-weights"
sha256 = "00"
network = { name = "inception-resnet-v1" }
[detector]
output = "attack_score"
threshold = 1.0
false_alarm = 0.05
"""


def test_the_reference_is_what_the_schemas_say_now() -> None:
    pages: dict[Path, str] = script("make_reference").pages()
    assert set((ROOT / "docs" / "reference").glob("*.md")) == set(pages)
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"run python docs/make_reference.py ({path.name})"


def test_the_severities_are_what_the_scale_says_now() -> None:
    text = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    assert script("make_gate").page(text) == text, "run python docs/make_gate.py"


def test_a_schema_is_described_with_all_its_keys_at_every_depth() -> None:
    inner = {"type": "object", "properties": {"deep": {"type": "integer", "minimum": 3}}, "required": ["deep"]}
    schema = {
        "title": "T",
        "type": "object",
        "properties": {
            "one": {"enum": ["a", "b"], "description": "x | y"},
            "many": {"type": "array", "items": inner},
            "link": {"$ref": "#/$defs/rate"},
            "maybe": {"anyOf": [inner, {"type": "null"}]},
        },
        "$defs": {"rate": {"type": "object", "properties": {"trials": {"type": "integer"}}}},
    }
    text = describe(schema)
    assert "| `one` | one of `a`, `b` |  | x \\| y |" in text
    assert "| `link` | [rate](#rate) |" in text
    assert "## many" in text
    assert "## maybe" in text
    assert text.count("| `deep` | whole number (at least 3) | yes |") == 2
    assert "## rate" in text
    assert "| `trials` |" in text


def test_the_manifest_schema_has_the_keys_that_the_reader_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, set[str]] = {}
    done = Table.done
    monkeypatch.setattr(Table, "done", lambda table: (asked.update({table.name: set(table.asked)}), done(table))[1])
    (tmp_path / "model.toml").write_text(FULL)
    read_manifest(tmp_path)
    schema = manifest_schema()
    assert asked.pop("") == set(schema["properties"])
    assert {name: set(schema["properties"][name]["properties"]) for name in asked} == asked
    assert len(asked) == 7
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema).validate
    for path in (tmp_path / "model.toml", *bundled("models").glob("*/model.toml")):
        check(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("line", FULL.splitlines())
def test_what_the_reader_needs_the_schema_needs(tmp_path: Path, line: str) -> None:
    if line.startswith("["):
        return
    text = FULL.replace(f"{line}\n", "", 1)
    (tmp_path / "model.toml").write_text(text)
    try:
        read_manifest(tmp_path)
        reads = True
    except InputError:
        reads = False
    # With its last key gone a table is empty, and for the reader as good as not there.
    valid = jsonschema.Draft202012Validator(manifest_schema()).is_valid(tomllib.loads(text))
    assert valid == reads or line.startswith("template")


def test_the_largest_side_is_the_schemas() -> None:
    assert manifest_schema()["properties"]["input"]["properties"]["width"]["maximum"] == manifest.LARGEST_SIDE


def commands(text: str) -> list[list[str]]:
    """The lines of a page's shell blocks that call sixpixels."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = itertools.chain(*(block.replace("\\\n", " ").splitlines() for block in blocks))
    # What the shell does with the output is no argument.
    return [shlex.split(re.split(r" [|>] ", line)[0], comments=True) for line in lines if line.startswith("sixpixels ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_parse(page: Path) -> None:
    found = commands(page.read_text(encoding="utf-8"))
    assert found or page.name in ("api.md", "results.md", "benchmarks.md"), f"{page.name} shows no command"
    for words in found:
        parse(words)


def parse(words: list[str]) -> None:
    """Have the real parser take a command, without running it."""
    command: Any = typer.main.get_command(cli.app)
    rest = words[1:]
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(command.make_context("sixpixels", list(rest)), rest)
    command.make_context(name, rest).close()


def test_the_steps_of_the_example_workflow_are_commands() -> None:
    steps = re.findall(r"- run: (sixpixels .*)", (ROOT / "docs" / "ci-example.yml").read_text())
    assert [step.split()[1] for step in steps] == ["doctor", "audit", "gate"]
    for step in steps:
        if step.split()[1] in typer.main.get_command(cli.app).commands:  # type: ignore[attr-defined]
            parse(shlex.split(step))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "ARCHITECTURE.md"], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_of_an_audit_file_can_be_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(schema = 1\n.*?)```", (ROOT / "docs" / "audit.md").read_text(), re.DOTALL)
    (tmp_path / "audit.toml").write_text(example)
    assert read_config(tmp_path / "audit.toml")["profiles"]
