"""The house style, checked by the field's usual tools, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up: a folder imports only from itself and from folders before it.
FLOORS = (
    "text", "errors", "threads", "processes", "plain", "quiet", "files", "progress", "pixels", "parameters", "registry",
    "completion", "tables", "statistics", "documents", "faces", "networks", "verifiers", "manifests", "defenses",
    "profiles", "attacks", "export", "audit", "risk", "doctor", "report", "fetch", "commands",
)  # fmt: skip
# The rooms of `audit` lie in the order of the data.
ROOMS = (
    "options", "schema", "plan", "suites", "clean", "crafting", "embedding", "parity", "replaying", "workers",
    "evaluate", "request", "results", "collect", "checks", "service", "run", "estimate", "service_estimate",
    "selection", "transfer",
)  # fmt: skip
# Each format from outside is parsed in one place, which knows its limits and turns its errors into ours. Beside it are
# listed the modules that read only what this toolkit itself has just written, and those that write.
DOORS: dict[str, set[str]] = {
    "tomllib.loads": {"tables"},
    "tomllib.load": set(),
    "tomlkit.parse": {"tables"},
    "json.loads": {"plain", "report/schemas", "audit/selection/cost", "audit/crafting/jobs", "verifiers/nursery"},
    "json.load": set(),
    "csv.reader": {"faces/lists"},
    "csv.DictReader": set(),
    "csv.writer": {"audit/results/export"},
    "sqlite3.connect": {"audit/results/outcomes"},
    "html.escape": {"text"},
    "print": {"commands/show"},
    "Console": {"commands/show"},
    "SafeConsole": {"commands/show"},
}  # fmt: skip
PARSERS = {"tomllib", "csv", "sqlite3", "pickle", "marshal", "shelve", "xml", "yaml", "configparser", "ast"}
# They write the format, or look at our own source.
WRITERS = {("report/formats/junit", "xml"), ("audit/crafting/code", "ast")}
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_ENTRY = 400, 60, 120


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=lambda c: "-".join(c[:2])
)
def test_tools_find_nothing(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path: Path) -> Iterator[str]:
    """The modules of the toolkit that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("toolkit", "cli"):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in ("toolkit", "cli"))


def modules(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a folder, and the name of the room in it that each belongs to."""
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).with_suffix("").parts[0]
        if room != "__init__":
            yield path, room


@pytest.mark.parametrize(("folder", "order"), [("toolkit", FLOORS), ("toolkit/audit", ROOMS)])
def test_a_folder_imports_only_downward(folder: str, order: tuple[str, ...]) -> None:
    prefix, wrong = folder.replace("/", ".") + ".", []
    for path, own in modules(ROOT / folder):
        for module in imported(path):
            assert module != "cli", f"{path}: no module knows the command line"
            if module.startswith(prefix):
                other = module.removeprefix(prefix).split(".")[0]
                if order.index(other) > order.index(own):
                    wrong.append(f"{path.relative_to(ROOT)}: imports {module}")
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_are_short() -> None:
    long = []
    for path in (ROOT / "toolkit").rglob("*.py"):
        source = path.read_text()
        if source.count("\n") > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines")
    assert (ROOT / "cli.py").read_text().count("\n") <= LONGEST_ENTRY
    assert not long, "\n".join(long)


def test_help_answers_without_loading_tensorflow_or_onnxruntime() -> None:
    code = (
        "import sys, cli; from typer.testing import CliRunner; r = CliRunner().invoke(cli.app, ['--help']); "
        "assert r.exit_code == 0 and 'audit' in r.output, r.output; "
        "print([m for m in ('tensorflow', 'onnxruntime', 'keras', 'scipy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_tensorflow_is_imported_silently_and_with_its_threads() -> None:
    """Whatever loads TensorFlow calls `import_tensorflow` first; defenses and profiles are given tensors of it."""
    loud = []
    for path in (ROOT / "toolkit").rglob("*.py"):
        own = path.relative_to(ROOT / "toolkit").parts[0]
        if own in ("networks", "defenses", "quiet.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if {name.split(".")[0] for name in names} & {"keras", "tf2onnx", "mtcnn"}:
                loud += [f"{path.name}:{node.lineno}"] * ("import_tensorflow()" not in path.read_text())
            if "tensorflow" in names and path.name != "profile.py":
                loud.append(f"{path.name}:{node.lineno}")
    assert not loud, loud


def called(tree: ast.AST) -> Iterator[str]:
    """The functions that a file calls, as it writes them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func)


def test_each_format_has_one_door_and_every_text_one_way_out() -> None:
    found: dict[str, set[str]] = {door: set() for door in DOORS}
    others = []
    for path in (ROOT / "toolkit").rglob("*.py"):
        own, tree = path.relative_to(ROOT / "toolkit").with_suffix("").as_posix(), ast.parse(path.read_text())
        for name in set(called(tree)) & set(DOORS):
            found[name].add(own)
        doors = {door.split(".")[0] for door, places in DOORS.items() if own in places}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in {"json", "tomllib", "csv", "sqlite3", "html"}:
                others.append(f"{own}: import the module {node.module}, so that calls of it can be seen here")
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            parsers = {name.split(".")[0] for name in names} & PARSERS - doors
            others += [f"{own}: imports {name}" for name in parsers if (own, name) not in WRITERS]
    assert {door: places - DOORS[door] for door, places in found.items()} == {door: set() for door in DOORS}
    assert not others, others
