"""The command line as a user has it: real processes, one line for every error, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.commands import ROOT, process, refused, sixpixels
from tests.models import write_linear
from toolkit.audit.plan import GOALS
from toolkit.audit.results.outcomes import read_run
from toolkit.report.schemas import report_schema

SIDE = 16


def audit(work: Path, *more: object) -> list[object]:
    return ["audit", work / "linear.onnx", "--pairs", work / "people", "--run", work / "run", "--attacks",
            "gaussian,uniform", "--provider", "cpu", *more]  # fmt: skip


def test_audit_prints_a_report_that_fits_and_writes_a_valid_one(work: Path) -> None:
    for width in (80, 100, 120):
        done = sixpixels(*audit(work), env={**os.environ, "COLUMNS": str(width)})
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= width
        assert "\x1b" not in done.stdout
        for expected in ("OVERALL", "ASR % [95 %]", "gaussian", "mean3", "perfect", "CPUExecutionProvider"):
            assert expected in done.stdout
        assert "…" not in done.stdout
    jsonschema.validate(json.loads((work / "run" / "report.json").read_text()), report_schema())


def test_without_unicode_the_report_is_ascii(work: Path) -> None:
    done = process(*audit(work), env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_certificates_are_one_more_result(work: Path) -> None:
    few = ("--limit", 8, "--profiles", "none,mean3", "--knowledge", "perfect")
    asked = audit(work, *few, "--certify", "0.02,0.1", "--certify-samples", "200", "--format", "terminal,html")
    done = sixpixels(*asked, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\u2026" not in done.stdout
    assert "certified, %" in done.stdout
    assert "<h2>Certified</h2>" in (work / "run" / "report.html").read_text()
    report = json.loads((work / "run" / "report.json").read_text())
    jsonschema.validate(report, report_schema())
    asked_for = [(p, sigma, goal) for p in ("none", "mean3") for sigma in (0.02, 0.1) for goal in GOALS]
    assert [(c["profile"], c["sigma"], c["goal"]) for c in report["certification"]] == asked_for
    run = read_run(work / "run")
    correct = sum(int(((c.same == run.genuine) & run.genuine).sum()) for c in run.certificates)
    assert correct == sum(c["correct"]["successes"] for c in report["certification"] if c["goal"] == "dodging")
    # 2 profiles, 2 noises, 200 draws and the 100 that choose the decision.
    assert json.loads(sixpixels(*asked, "--dry-run", "--json").stdout)["noisy_images"] == len(run.pairs) * 2 * 2 * 300
    refused(sixpixels(*audit(work), "--certify", "0"), "above 0", 4)


def test_faces_are_in_a_later_report_only_where_they_are_asked_for(work: Path) -> None:
    assert sixpixels(*audit(work)).returncode == 0
    page = work / "run" / "report.html"
    asked = ("report", work / "run", "--format", "html", "--quiet")
    for more, pictures in (((), 0), (("--with-faces",), 2)):
        done = sixpixels(*asked, *more)
        assert done.returncode == 0, done.stderr
        assert page.read_text().count("<img") == pictures
    shutil.rmtree(work / "run" / "probes")
    refused(sixpixels(*asked, "--with-faces"), "has no probes to show")
    (work / "people" / "a" / "0.png").unlink()
    refused(sixpixels(*asked, "--with-faces"), "image.* is missing")
    assert sixpixels(*asked).returncode == 0, "what does not show faces needs none"


def test_brackets_in_a_path_are_no_markup(work: Path) -> None:
    people = work / "[/bold] [red]"
    people.parent.mkdir()
    (work / "people").rename(people)
    run = ("--pairs", people, "--run", work / "[/dim]", "--attacks", "uniform", "--provider", "cpu")
    for command in (("audit", work / "linear.onnx", *run), ("evaluate", work / "linear.onnx", "--pairs", people)):
        done = sixpixels(*command, "--limit", "8", env={**os.environ, "COLUMNS": "200"})
        assert done.returncode == 0, done.stderr
        assert "[/bold] [red]" in done.stdout
    assert sixpixels("report", work / "[/dim]").returncode == 0


def test_json_on_standard_output_is_pure_and_the_same_file(work: Path) -> None:
    done = sixpixels(*audit(work, "--json"))
    assert json.loads(done.stdout) == json.loads((work / "run" / "report.json").read_text())
    assert done.stderr == ""
    rows = sixpixels("results", "export", work / "run", "-o", work / "all.csv")
    assert rows.stdout.endswith(f"all.csv: {len((work / 'all.csv').read_text().splitlines()) - 1} rows\n")


def make_opaque(work: Path) -> None:
    """The verifier again, but with an operator that gives no gradients."""
    weights = np.stack([np.full(SIDE * SIDE * 3, 1 / (SIDE * SIDE * 3))] * 2, 1)
    write_linear(work, weights=weights, side=SIDE, threshold=0.12, opaque=True)


def test_a_gradient_attack_without_gradients_is_incomplete_not_silent(work: Path) -> None:
    make_opaque(work)
    done = sixpixels(*audit(work), "--attacks", "gaussian,fgsm")
    assert done.returncode == 0
    assert "INCOMPLETE" in done.stdout
    assert "fgsm was not run" in done.stdout
    assert "Einsum" in done.stdout
    refused(sixpixels(*audit(work), "--attacks", "fgsm"), "nothing to run", 4)


def test_without_a_checkpoint_gradients_come_from_the_onnx_file(work: Path) -> None:
    done = sixpixels(*audit(work), "--attacks", "deepfool")
    assert done.returncode == 0, done.stderr
    assert "gradients from the ONNX file itself" in " ".join(done.stdout.split())
    assert "INCOMPLETE" not in done.stdout


def test_evaluate(work: Path) -> None:
    done = sixpixels("evaluate", work / "linear.onnx", "--pairs", work / "people", "--json")
    report = json.loads(done.stdout)
    assert report["clean"]["accuracy"]["value"] > 0.5
    assert report["clean"]["at_fmr"][1][1] is None, "12 impostor pairs say nothing about an FMR of 1e-3"
    assert "too few impostor pairs" in sixpixels("evaluate", work / "linear.onnx", "--pairs", work / "people").stdout


def test_wrong_words_are_usage_errors_with_the_nearest_right_one(work: Path) -> None:
    setting = ("--attacks", "square", "--set", "square.bugdet=9")
    refused(sixpixels(*audit(work), *setting), "did you mean 'budget'", 4)
    refused(sixpixels(*audit(work), "--attacks", "gausian"), "did you mean 'gaussian'", 4)
    refused(sixpixels(*audit(work), "--profiles", "meen3"), "did you mean 'mean3'", 4)
    refused(sixpixels(*audit(work), "--knowledge", "some"), "unknown knowledge", 4)
    refused(sixpixels(*audit(work), "--limit", "0"), "limit", 4)
    refused(sixpixels(*audit(work), "--folds", "x"), "--folds", 4)
    refused(sixpixels(*audit(work), "--suite", "papers"), "did you mean 'paper'", 4)
    refused(sixpixels(*audit(work), "--workers", "many"), "--workers 'many': give a number", 4)
    refused(sixpixels("audit", "--no-such-option"), "no-such-option", 4)


def test_bad_input_is_one_line(work: Path) -> None:
    people = work / "people"
    refused(sixpixels("audit", work / "none.onnx", "--pairs", people), "no such model")
    refused(sixpixels(*audit(work), "--pairs", work / "nowhere"), "no such folder")
    refused(sixpixels(*audit(work), "--require-provider", "cuda"), "CUDAExecutionProvider is required")
    (people / "pairs.csv").write_text("a/0.png,a/1.png,alike\n")
    refused(sixpixels(*audit(work)), r"pairs\.csv:1: 'alike' is not a label")
    (people / "pairs.csv").write_text("")
    refused(sixpixels(*audit(work)), "has no pairs", 3)
    (people / "pairs.csv").unlink()
    image = people / "a" / "0.png"
    image.write_bytes(image.read_bytes()[:60])
    refused(sixpixels(*audit(work)), r"0\.png: is not a complete")
    shutil.rmtree(work / "run", ignore_errors=True)
    (work / "linear.onnx").write_bytes(b"junk")
    refused(sixpixels(*audit(work)), r"linear\.onnx")
    assert not (work / "run").exists()


def test_a_full_disk_leaves_nothing_half_written(work: Path) -> None:
    def small_files() -> None:
        # A write past the limit fails as on a full disk, once the signal for it is ignored.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = process(*audit(work), preexec_fn=small_files)
    refused(done, os.strerror(errno.EFBIG))
    assert not list((work / "run").rglob("*.part"))
    assert not list((work / "run").rglob("*.probes"))


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_audit_continues_and_ends_the_same(work: Path, kill: signal.Signals) -> None:
    whole = audit(work, "-q")
    whole[whole.index("--run") + 1] = work / "whole" / "run"
    assert sixpixels(*whole).returncode == 0
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *map(str, audit(work, "-q"))], stderr=subprocess.PIPE, text=True
    )
    probes = work / "run" / "probes"
    until = time.monotonic() + 60
    while time.monotonic() < until and not list(probes.glob("*.probes")):
        time.sleep(0.005)
    process.send_signal(kill)
    _, errors = process.communicate(timeout=60)
    if kill == signal.SIGINT and process.returncode != 0:
        assert process.returncode == 130
        assert "interrupted" in errors
        assert "Traceback" not in errors
        assert json.loads((work / "run" / "partial.json").read_text())["interrupted"]
    assert sixpixels(*audit(work)).returncode == 0
    assert not (work / "run" / "partial.json").exists()
    resumed, whole = ((folder / "report.json").read_text() for folder in (work / "run", work / "whole" / "run"))
    same = resumed == whole
    assert same, "another report"


def test_lists_and_version() -> None:
    assert "mean3" in sixpixels("profiles", "list").stdout
    assert "size = 3" in sixpixels("profiles", "show", "mean3").stdout
    assert "facenet-mini" in sixpixels("models", "list").stdout
    assert re.match(r"sixpixels \d+\.\d+", sixpixels("--version").stdout)


def test_a_stricter_threshold_is_farther_for_impostors_and_nearer_for_dodgers(work: Path) -> None:
    asked = ["linear.onnx", "--pairs", "people", "--run", "sweep", "--attacks", "deepfool", "--profiles", "none"]
    asked += ["--provider", "cpu", "--thresholds", "0.06,0.12,0.09"]
    found = json.loads(sixpixels("sweep", *asked, "--json", cwd=work).stdout)["rows"]
    assert [row["threshold"] for row in found] == [0.12, 0.09, 0.06]
    sizes = {
        goal: [s["median_rms"] for row in found for s in row["strongest"] if s["goal"] == goal]
        for goal in ("impersonation", "dodging")
    }
    # Of a linear embedding the smallest perturbation is the distance to the threshold.
    assert sizes["impersonation"] == sorted(sizes["impersonation"])
    assert sizes["dodging"] == sorted(sizes["dodging"], reverse=True)
    assert all(size[0] != size[2] for size in sizes.values())
    # A threshold's run is like any other, also for who looks for its probes.
    request = json.loads((work / "sweep" / "0.06" / "request.json").read_text())
    assert request["threshold"] == 0.06
    replayed = sixpixels("replay", "sweep/0.06", "--on", "linear.onnx", "--json", cwd=work)
    assert replayed.returncode == 0, replayed.stderr
    done = sixpixels("sweep", *asked, cwd=work, env={**os.environ, "COLUMNS": "80"})
    assert "\u2026" not in done.stdout
    refused(sixpixels("sweep", *asked, "--thresholds", "0.1,x", cwd=work), "numbers separated by commas", 4)
    refused(sixpixels("sweep", *asked, "--thresholds", "9", cwd=work), "between 0 and", 4)


def test_power_is_told_before_pairs_are_collected() -> None:
    assert "59, " in sixpixels("power", "--claim", "0.05").stdout
    assert json.loads(sixpixels("power", "--only-first", "0.2", "--only-second", "0.05", "--json").stdout)["pairs"] > 85
    refused(sixpixels("power"), "give --claim", 4)


def test_a_dry_run_touches_nothing_and_its_file_gives_the_same_audit(work: Path) -> None:
    before = sorted(work.rglob("*"))
    done = sixpixels(*audit(work, "--dry-run", "--limit", 6, "--knowledge", "perfect"))
    assert done.returncode == 0, done.stderr
    assert sorted(work.rglob("*")) == before
    for expected in ("4 scenarios", "crafted once, replayed", "gaussian", "total time", "disk for probes"):
        assert expected in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    plan, given = work / "audit.toml", audit(work, "--limit", 6, "--knowledge", "perfect")
    assert json.loads(sixpixels(*given, "--dry-run", "--json", "--save", plan).stdout)["size"]["genuine"] == 3
    direct = sixpixels(*given, "--json")
    from_file = sixpixels("audit", "--config", plan, "--json", cwd=work.parent)
    assert from_file.returncode == 0, from_file.stderr
    assert json.loads(from_file.stdout) == json.loads(direct.stdout)
    refused(sixpixels(*given, "--save", work / "other.toml"), "--dry-run", 4)
    refused(sixpixels(*given, "--dry-run", "--save", plan), "does not exist yet", 4)


def test_config_show_says_where_every_value_comes_from(work: Path) -> None:
    (work / "audit.toml").write_text('schema = 1\nthreads = 2\npairs = "people"\nlimit = 8\n')
    environment = {**os.environ, "SIXPIXELS_LIMIT": "6", "SIXPIXELS_CONFIG": str(work / "audit.toml")}
    done = sixpixels("config", "show", "--seed", 3, env=environment)
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in done.stdout.splitlines()}
    assert lines["seed"] == "3 command line"
    assert lines["limit"] == "6 environment (SIXPIXELS_LIMIT)"
    assert lines["threads"] == f"2 {work / 'audit.toml'}"
    assert lines["pairs"] == f"{work / 'people'} {work / 'audit.toml'}"
    assert lines["suite"] == "standard default"
    refused(sixpixels("config", "show", "--config", work / "none.toml"), "cannot be read")
    (work / "audit.toml").write_text("schema = 1\nprofile = 'mean3'\n")
    refused(
        sixpixels("audit", "--config", work / "audit.toml"), r"profile is not a known key; did you mean 'profiles'\?"
    )
