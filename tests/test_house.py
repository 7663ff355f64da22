"""The house style, checked by the field's usual tools, and who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the bottom up: a folder imports only from itself and from folders before it.
ORDER = (
    "errors", "files", "completion", "registry", "tables", "statistics", "faces", "networks", "verifiers", "defenses",
    "profiles", "attacks", "export", "audit", "risk", "doctor", "report",
)  # fmt: skip
ANYWHERE = {"fetch"}


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=lambda c: "-".join(c[:2])
)
def test_tools_find_nothing(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_folder_imports_only_downward() -> None:
    wrong = []
    for path in (ROOT / "toolkit").rglob("*.py"):
        own = path.relative_to(ROOT / "toolkit").with_suffix("").parts[0]
        if own in ANYWHERE or own == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toolkit."):
                other = (node.module or "").split(".")[1]
                if ORDER.index(other) > ORDER.index(own):
                    wrong.append(f"{path.relative_to(ROOT)}: imports toolkit.{other}")
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert "cli" not in modules, f"{path}: no module knows the command line"
    assert not wrong, "\n".join(wrong)


def test_help_answers_without_loading_tensorflow_or_onnxruntime() -> None:
    code = (
        "import sys, cli; from typer.testing import CliRunner; r = CliRunner().invoke(cli.app, ['--help']); "
        "assert r.exit_code == 0 and 'audit' in r.output, r.output; "
        "print([m for m in ('tensorflow', 'onnxruntime', 'keras', 'scipy', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
