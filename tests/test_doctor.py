"""The doctor finds what is broken by trying it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from toolkit.files import bundled

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "cli.py", "doctor", *more],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_this_installation_works_in_every_part_and_tensorflow_is_not_imported_to_know() -> None:
    import onnxruntime

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    code = "import atexit, sys; atexit.register(lambda: sys.stderr.write(str('tensorflow' in sys.modules))); "
    code += "import cli; sys.argv = ['sixpixels', 'doctor', '--json']; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 15
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "False", done.stderr
    findings = {f["about"]: f for f in json.loads(done.stdout)["findings"]}
    assert len(findings) >= 12, done.stdout
    assert findings["CPUExecutionProvider"]["status"] == "ok"
    assert set(onnxruntime.get_available_providers()) <= set(findings)
    assert all(f["remedy"] for f in findings.values() if f["status"] != "ok")
    # All shipped profiles are built.
    profiles = findings["profiles"]
    assert profiles["status"] == "ok"
    assert profiles["detail"].startswith(str(len(list(bundled("profiles").glob("*.toml")))))


def test_a_damaged_model_a_broken_profile_and_a_missing_face_are_found(tmp_path: Path) -> None:
    for name in ("toolkit", "profiles", "models"):
        skipped = shutil.ignore_patterns("__pycache__", "red30*", "*.weights.h5")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skipped)
    shutil.copy(ROOT / "cli.py", tmp_path)
    model = tmp_path / "models/facenet-mini/facenet-mini.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(bytes(content))
    (tmp_path / "profiles/mean3.toml").write_text("schema = 1\nname = 'mean3'\n[[defense]]\nname = 'meen'\n")
    next((tmp_path / "models/nobody/faces/images").rglob("*.jpg")).write_bytes(b"no image")
    done = run(tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    failed = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("failed")]
    assert ["model", "facenet-mini"] in failed
    assert failed[-1][0] == "profiles"
    assert any(about == "faces" for about, _ in failed)
    assert "something that audits need is broken" in done.stdout
    assert "Traceback" not in done.stderr
