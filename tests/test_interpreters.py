"""No interpreter is started in a folder of somebody else in a way that runs what lies there."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.commands import sixpixels
from tests.models import write_linear, write_people
from toolkit.audit.selection.cost import _memory

ROOT = Path(__file__).resolve().parents[1]
OURS = ("cli.py", "toolkit", "benchmarks", "docs", "models")
STARTERS = {"multiprocessing", "pty", "runpy"}
NAMES = ("json", "numpy", "onnxruntime", "sitecustomize", "resource", "toolkit", "cli", "typing")


def starts(path: Path) -> Iterator[tuple[int, str]]:
    """Every command of a Python file that begins with the interpreter: its line, and its next word."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.List | ast.Tuple) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
            yield node.lineno, ast.unparse(node.elts[1]) if len(node.elts) > 1 else "nothing"


def files() -> Iterator[Path]:
    for part in OURS:
        yield from [ROOT / part] if part.endswith(".py") else (ROOT / part).rglob("*.py")


def test_interpreters_start_without_the_working_folder() -> None:
    """A script's own folder comes first on its path; for -c and -m, the working folder would, but for -P or -I."""
    found = {f"{path.relative_to(ROOT)}:{line}": word for path in files() for line, word in starts(path)}
    assert len(found) >= 5, "the rule has nothing to look at"
    assert not {place: word for place, word in found.items() if word not in ("'-P'", "'-I'", "__file__")}


def test_no_file_starts_interpreters_in_another_way() -> None:
    wrong = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            text = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            # Pipes alone start nothing.
            names = [name for name in names if name != "multiprocessing.connection"]
            if {name.split(".")[0] for name in names} & STARTERS or text.startswith(
                ("os.system", "os.exec", "os.spawn")
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if any(keyword.arg == "shell" for keyword in getattr(node, "keywords", [])):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: a shell")
    assert not wrong


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose modules leave a file `ran` behind when they are imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    text = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(7)\n"
    for name in NAMES:
        (folder / f"{name}.py").write_text(text)
    (folder / "toolkit").mkdir()
    (folder / "toolkit" / "__init__.py").write_text(text)
    return folder


def test_workers_run_nothing_of_the_working_folder(hostile: Path, tmp_path: Path) -> None:
    model = write_people(tmp_path / "people", photos=4)
    what = "--attacks gaussian --profiles none --provider cpu --threads 1 --workers 2 -q --run"
    done = sixpixels("audit", model, "--pairs", model.parent, *what.split(), tmp_path / "run", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def measured(folder: Path) -> int | None:
    model = write_linear(folder, weights=np.ones((16 * 16 * 3, 2)), side=16)
    graph = next(model.parent.glob("*.onnx")).read_bytes()
    return _memory(graph, np.zeros((1, 16, 16, 3), np.float32), "CPUExecutionProvider")


def test_measuring_memory_runs_nothing_of_the_working_folder(hostile: Path, tmp_path: Path) -> None:
    with contextlib.chdir(hostile):
        assert measured(tmp_path) is not None
    assert not (tmp_path / "ran").exists()


def test_pythonpath_is_the_users_own_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')")
    monkeypatch.setenv("PYTHONPATH", str(own))
    assert measured(tmp_path) is not None
    assert (tmp_path / "ran").exists()
