"""One small audit, whoever works on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.workers.runs import files
from tests.models import write_people
from toolkit.attacks.gaussian import Gaussian
from toolkit.attacks.hop_skip_jump import HopSkipJump
from toolkit.audit.clean.bench import Bench
from toolkit.audit.clean.run import run_clean
from toolkit.audit.crafting.craft import Series
from toolkit.audit.crafting.jobs import InProcess
from toolkit.audit.crafting.series import CraftJob, series_steps
from toolkit.audit.replaying.certify import Smoothing
from toolkit.audit.request import Request
from toolkit.audit.suites import NATURAL
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.profiles.profile import find_profile
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.runtime import Execution


@pytest.fixture(scope="package")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Request:
    folder = tmp_path_factory.mktemp("people")
    manifest, pairs = read_manifest(write_people(folder, photos=20)), load_pairs(folder)
    return Request(
        manifest=manifest,
        crops=crop_pairs(pairs, 16, 16, None),
        pairs_source="people",
        attacks=(Gaussian(levels=10, draws=2), HopSkipJump(budget=60)),
        profiles=(find_profile("none"), find_profile("mean3")),
        knowledge=("zero", "perfect"),
        seed=3,
        execution=Execution("cpu", threads=1),
        suite=NATURAL,
        smoothings=(Smoothing(0.1, samples=40, confidence=0.9),),
    )


@pytest.fixture(scope="package")
def alone(asked: Request, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files(asked, tmp_path_factory.mktemp("alone"), "1")


@pytest.fixture
def jobs(asked: Request, tmp_path: Path) -> tuple[Bench, list[CraftJob]]:
    """Those of one attack on one profile."""
    bench, known = Bench(asked.manifest, asked.execution, asked.seed), find_profile("mean3")
    clean = run_clean(bench.deployed(known), asked.crops, asked.manifest.decision)
    series = Series(asked.attacks[1], known, "m", asked.crops, asked.manifest.decision, asked.seed, tmp_path)
    made = [step.job() for step in series_steps(series, clean, InProcess(bench))]
    return bench, [job for job in made if isinstance(job, CraftJob)]
