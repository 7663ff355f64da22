"""The README's five minutes: every command as printed, in order, from a bare file and a folder of people."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests import exports
from tests.commands import ROOT, sixpixels
from tests.served.running import Served, describe
from toolkit.audit.results.outcomes import read_run
from toolkit.files import bundled
from toolkit.verifiers.manifest import read_manifest

PEOPLE = 8
# What shortens the audits, and changes no command: users have these variables too.
SHORT = {"SIXPIXELS_ATTACKS": "gaussian", "SIXPIXELS_LIMIT": "8", "SIXPIXELS_PROVIDER": "cpu"}
# Gradients of an exported file take their time. They are crafted once, for the service.
WITH_GRADIENTS = {**SHORT, "SIXPIXELS_ATTACKS": "fgsm,gaussian", "SIXPIXELS_LIMIT": "4"}
# A verdict is no failure of the command: nothing shown better, too few pairs for a bound, or a gate that does not pass.
VERDICTS = {"select": {0, 3}, "calibrate": {0, 3}, "gate": {0, 1, 3}, "guess": {0, 3}}


def tour() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## Five minutes") : text.index("**In Python**")]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def bare(tmp_path: Path, served: Served) -> Path:
    """A folder with a verifier that somebody exported in another way, without a manifest, and people."""
    images = bundled("models") / "nobody" / "faces" / "images"
    for person in sorted(images.iterdir())[:PEOPLE]:
        shutil.copytree(person, tmp_path / "people" / person.name)
    shutil.copy(images.parent / "landmarks.csv", tmp_path)
    mini = bundled("models") / "facenet-mini" / "facenet-mini.onnx"
    changes = (exports.other_layout, exports.scaled(0, 1))
    exports.export(mini, "NHWC", 160, tmp_path / "verifier.onnx", *changes)
    describe(tmp_path, served, "grpc", "hardened", "concurrency = 2").rename(tmp_path / "remote.toml")
    return tmp_path


def test_every_command_of_the_tour_runs_as_printed(bare: Path) -> None:
    commands = tour()
    assert [words[:3] for words in commands[:1]] == [["sixpixels", "manifest", "guess"]]
    assert len(commands) == 13
    for words in commands:
        around = WITH_GRADIENTS if words[-1] == "service" else SHORT
        done = sixpixels(*words[1:], cwd=bare, env={**os.environ, **around})
        name = words[2] if words[1] in ("manifest", "profiles") else words[1]
        assert done.returncode in VERDICTS.get(name, {0}), f"{shlex.join(words)}: {done.stdout[-2000:]}{done.stderr}"
        assert "Traceback" not in done.stderr
    manifest = read_manifest(bare / "verifier.onnx")
    assert (manifest.input.layout, manifest.input.channels) == ("NCHW", "RGB")
    for run in ("audited", "candidates", "service"):
        assert (bare / run / "report.json").is_file()
    assert list((bare / "audited").glob("transfer-*.json"))
    attacked = read_run(bare / "service").assessment
    assert {(s.attack, s.knowledge) for s in attacked.scenarios} == {("fgsm", "zero"), ("gaussian", "perfect")}
