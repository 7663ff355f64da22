"""What clean pairs say does not depend on who embeds the crops, nor on where an interrupted command was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands import refused, sixpixels
from tests.models import write_people
from toolkit.audit.clean.bench import Bench
from toolkit.audit.embedding import EmbedJob
from toolkit.audit.evaluate import (
    Spread,
    calibrate_profile,
    calibrate_verifier,
    clean_runs,
    evaluate_verifier,
)
from toolkit.audit.selection.cost import measure_profiles
from toolkit.audit.workers import Workers
from toolkit.defenses.noise import Noise
from toolkit.documents import to_json
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.profiles.harden import harden_verifier
from toolkit.profiles.profile import Profile, find_profile
from toolkit.profiles.vote import Vote
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution

CPU = Execution("cpu", threads=1)


@pytest.fixture
def verifier(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people", photos=20)


def evaluated(model: Path, spread: Spread | None) -> Any:
    return to_json(evaluate_verifier(model, model.parent, execution=CPU, spread=spread))


def calibrated(model: Path, spread: Spread | None) -> Any:
    return calibrate_verifier(model, 0.5, "mean3", model.parent, spread=spread)


def costs(model: Path, spread: Spread | None) -> Any:
    found = measure_profiles(model, ["mean3"], model.parent, repeats=2, execution=CPU, spread=spread)
    # Nobody measures the same milliseconds twice.
    return [replace(profile, timings=()) for profile in found.profiles]


def alarms(model: Path, spread: Spread | None) -> Any:
    own = model.parent / "own.toml"
    shutil.copy(find_profile("detector").source, own)
    found = calibrate_profile(own, model, 0.2, model.parent, spread=spread)
    return found, own.read_bytes()


MEASURES: list[Callable[[Path, Spread | None], Any]] = [evaluated, calibrated, costs, alarms]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crops each job embeds in this process."""
    counts: list[int] = []
    run = EmbedJob.run

    def counted(job: EmbedJob, bench: Any) -> bytes:
        counts.append(len(job.pixels))
        return run(job, bench)

    monkeypatch.setattr(EmbedJob, "run", counted)
    # Several jobs, or there is nothing to continue.
    monkeypatch.setattr("toolkit.audit.embedding.BATCH", 16)
    return counts


@pytest.mark.parametrize("measure", MEASURES)
def test_a_command_continues_where_it_was(
    verifier: Path, tmp_path: Path, embedded: list[int], measure: Callable[[Path, Spread | None], Any]
) -> None:
    alone = measure(verifier, None)
    once = list(embedded)
    assert len(once) > 2
    embedded.clear()
    spread = Spread(work=tmp_path / "made" / "work")
    assert measure(verifier, spread) == alone
    assert embedded == once
    embedded.clear()
    assert measure(verifier, spread) == alone
    assert not embedded
    lost, damaged, *_ = sorted((tmp_path / "made" / "work").iterdir())
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert measure(verifier, spread) == alone
    assert len(embedded) == 2


@pytest.mark.parametrize("measure", MEASURES)
def test_two_processes_find_what_one_does(
    verifier: Path, embedded: list[int], measure: Callable[[Path, Spread | None], Any]
) -> None:
    alone = measure(verifier, None)
    embedded.clear()
    assert measure(verifier, Spread(Workers("2"))) == alone
    assert not embedded, "this process embeds nothing"


def test_another_verifier_or_seed_does_not_continue(verifier: Path, tmp_path: Path, embedded: list[int]) -> None:
    spread = Spread(work=tmp_path / "work")
    evaluated(verifier, spread)
    manifest = read_manifest(verifier)
    for bench in (
        Bench(replace(manifest, input=replace(manifest.input, std=(0.5, 0.5, 0.5))), CPU, 0),
        Bench(manifest, CPU, 1),
    ):
        embedded.clear()
        crops = crop_pairs(load_pairs(verifier.parent), 16, 16, None)
        clean_runs(bench, [Profile("none", "", (), "")], crops, spread)
        assert sum(embedded) == len(crops.images)


@pytest.mark.parametrize(
    "profile", [Profile("noisy", "", (Noise(0.1),), ""), replace(find_profile("vote25"), draws=8, vote=Vote(0.3, 0.9))]
)
def test_what_a_hardened_file_draws_depends_on_the_seed_alone(verifier: Path, tmp_path: Path, profile: Profile) -> None:
    """An interrupted command could not continue otherwise."""
    hardened = harden_verifier(verifier, profile, tmp_path / "hardened.onnx").path

    def distances(seed: int) -> list[float]:
        crops = crop_pairs(load_pairs(verifier.parent), 16, 16, None)
        bench = Bench(read_manifest(hardened), CPU, seed)
        return clean_runs(bench, [Profile("none", "", (), "")], crops)[0].distances.tolist()

    assert distances(0) == distances(0) != distances(1)


def test_the_command_takes_workers_and_a_folder(verifier: Path, tmp_path: Path) -> None:
    asked = ("evaluate", verifier, "--pairs", verifier.parent, "--json", "--quiet")
    alone, work = sixpixels(*asked), tmp_path / "work"
    assert alone.returncode == 0, alone.stderr
    assert sixpixels(*asked, "--work", work, "--workers", "2").stdout == alone.stdout
    assert list(work.glob("*.embeddings"))
    assert sixpixels(*asked, "--work", work).stdout == alone.stdout
    refused(sixpixels(*asked, "--workers", "none"), "give a number of processes", 4)
