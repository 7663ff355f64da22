"""The wheel works from any folder, with its models and profiles inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_wheel_has_everything_and_runs_elsewhere(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    built = subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("sixpixels-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "import cli; assert 'site' in cli.__file__; cli.main()", *arguments]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    assert "mean3" in run("profiles", "list")
    assert {"facenet-mini", "dlib-resnet"} <= set(run("models", "list").split())
    shipped = site / "toolkit" / "shipped" / "models" / "facenet-mini"
    assert {"facenet-mini.onnx", "facenet-mini.weights.h5", "model.toml"} <= {p.name for p in shipped.iterdir()}
    assert (site / "toolkit" / "report" / "report.schema.json").is_file()
