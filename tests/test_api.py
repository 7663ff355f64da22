"""The Python API: the examples of its page run, nothing heavy is loaded too early, and results are the command's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toolkit
from tests.commands import ROOT, sixpixels
from tests.models import write_people
from toolkit import AuditOptions, attack_verifier, audit_verifier, embed_crops, find_manifest, to_json
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.pgd import Pgd
from toolkit.errors import UsageError

PAGE = ROOT / "docs" / "api.md"


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page speaks of, as working folder."""
    linear = write_people(tmp_path)
    for suffix in (".onnx", ".toml"):
        linear.with_suffix(suffix).rename(tmp_path / f"verifier{suffix}")
    manifest = tmp_path / "verifier.toml"
    manifest.write_text(manifest.read_text().replace("linear.onnx", "verifier.onnx"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_page_run(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # the examples of one page go on from each other
    printed = capsys.readouterr().out
    for expected in (
        "clean accuracy",
        "gaussian mean3 zero dodging",
        "report.sarif",
        "eligible pairs",
        "hardened.onnx",
    ):
        assert expected in printed
    assert (people / "audited" / "report.html").is_file()


def test_the_page_names_everything_that_is_exported() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## Everything that is exported")[1]
    assert set(re.findall(r"`(\w+)`", table)) >= set(toolkit.__all__)
    for name in toolkit.__all__:
        assert getattr(toolkit, name).__doc__, f"{name} has no docstring"


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, toolkit; assert 'audit_verifier' in dir(toolkit); toolkit.AuditOptions; "
        "print([m for m in ('tensorflow', 'keras', 'onnxruntime', 'scipy', 'cv2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_command_and_the_function_give_the_same(people: Path) -> None:
    options = AuditOptions(
        "verifier.onnx", "pairs.csv", limit=12, attacks=("gaussian",), profiles=("none",), run="a/run"
    )
    ours = json.loads(to_json(audit_verifier(options).assessment))
    given = ["--pairs", "pairs.csv", "--limit", 12, "--attacks", "gaussian", "--profiles", "none", "--run", "b/run"]
    assert json.loads(sixpixels("audit", "verifier.onnx", *given, "--json").stdout) == ours
    for file in ("report.json", "results.sqlite"):
        same = (people / "a" / "run" / file).read_bytes() == (people / "b" / "run" / file).read_bytes()
        assert same, file


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "limit: must be at least 1"),
        ({"seed": "x"}, "seed: must be a whole number"),
        ({"threshold": True}, "threshold: must be a number"),
        ({"folds": ("a",)}, "folds: must be a whole number"),
    ],
)
def test_options_are_checked_when_they_are_made(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AuditOptions(**wrong)  # type: ignore[arg-type]


def test_options_take_paths_as_texts_and_lists_with_commas() -> None:
    options = AuditOptions(pairs="pairs.csv", run=Path("run"), profiles="none, mean3", attacks=["pgd"])  # type: ignore[arg-type]
    assert (options.pairs, options.run) == (Path("pairs.csv"), Path("run"))
    assert (options.profiles, options.attacks) == (("none", "mean3"), ("pgd",))


def pairs_of(people: Path, genuine: bool) -> tuple[np.ndarray, np.ndarray]:
    crops = toolkit.crop_for(find_manifest("verifier.onnx"), toolkit.load_pairs(people / "pairs.csv", limit=16))
    rows = np.array([pair.genuine == genuine for pair in crops.pairs])
    return crops.images[crops.index[rows, 0]], crops.images[crops.index[rows, 1]]


def test_one_call_attacks_and_is_judged_on_the_deployed_verifier(people: Path) -> None:
    probes, references = pairs_of(people, genuine=True)
    result = attack_verifier("verifier.onnx", probes, references, "dodging", Pgd(epsilon=32 / 255))
    assert result.success[result.eligible].all()
    assert result.eligible.any()
    delta = (result.probes.astype(np.float64) - probes) / 255
    np.testing.assert_allclose(result.l2, np.sqrt((delta**2).sum(axis=(1, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(result.linf, np.abs(delta).max(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(result.pixels, (delta != 0).any(axis=3).sum(axis=(1, 2)))
    np.testing.assert_allclose(result.rms, 255 * np.sqrt((delta**2).mean(axis=(1, 2, 3))), rtol=1e-5)
    assert result.linf.max() <= 32 / 255 + 1e-6
    # Independently: the distances of the probes' embeddings are beyond the threshold.
    mine, theirs = (embed_crops("verifier.onnx", images) for images in (result.probes, references))
    assert (np.linalg.norm(mine - theirs, axis=1)[result.success] >= 0.12).all()


def test_references_may_be_embeddings_and_crops_floats(people: Path) -> None:
    probes, references = pairs_of(people, genuine=False)
    gaussian = Gaussian(levels=4)
    first = attack_verifier("verifier.onnx", probes, references, "impersonation", gaussian)
    embeddings = embed_crops("verifier.onnx", references)
    second = attack_verifier("verifier.onnx", probes / 255, embeddings, "impersonation", gaussian)
    np.testing.assert_array_equal(first.probes, second.probes)
    # A pair's result does not depend on the pairs after it.
    alone = attack_verifier("verifier.onnx", probes[:1], references[:1], "impersonation", gaussian)
    np.testing.assert_array_equal(alone.probes, first.probes[:1])


def test_a_wrong_array_is_refused_with_its_name(people: Path) -> None:
    probes, references = pairs_of(people, genuine=True)
    for crops, others, message in (
        (probes[:, :8], references, "crops have the shape"),
        (probes.astype(np.float32), references, "uint8, or floats from 0 to 1"),
        (probes, references[1:], "one reference for each crop"),
        (probes, np.zeros((len(probes), 5)), "embeddings of references"),
    ):
        with pytest.raises(UsageError, match=message):
            attack_verifier("verifier.onnx", crops, others, "dodging", "gaussian")
    with pytest.raises(UsageError, match="unknown goal"):
        attack_verifier("verifier.onnx", probes, references, "hiding", "gaussian")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="other people first"):
        attack_verifier("verifier.onnx", probes, references, "dodging", "universal")
