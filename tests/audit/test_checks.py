"""The sanity checks that need gradients are jobs: anybody does them, nobody does them twice."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.audit.workers.runs import files
from tests.models import write_people
from tests.progress import Silent
from toolkit.attacks.apgd import Apgd
from toolkit.attacks.base import Crafted, Task
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.fmn import Fmn
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.artifacts import decode_found, encode_found
from toolkit.audit.crafting.jobs import Job, pack_job
from toolkit.audit.parity import ParityJob
from toolkit.audit.replaying.gradients import Checks, GradientJob
from toolkit.audit.replaying.reruns import Rerun
from toolkit.audit.replaying.sanity import Check
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.audit.workers.workbench import Workbench
from toolkit.errors import InputError
from toolkit.profiles.profile import Profile, find_profile

ROOT = Path(__file__).resolve().parents[2]
# In this ball, it misses most pairs: there is something to look for without a bound, and from another start.
WEAK = Apgd(epsilon=4 / 255, steps=3)


@pytest.fixture
def asked(request_: Request) -> Request:
    """With gradient attacks, some of whose pairs do not fall."""
    none = (find_profile("none"),)
    return replace(request_, attacks=(WEAK, Fmn(steps=6)), profiles=none, knowledge=("perfect",))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that are done in this process, in their order."""
    kept: list[Job] = []
    for kind in (ParityJob, GradientJob, Rerun):

        def run(job: Job, bench: Bench, inside: object = kind.run) -> bytes:
            kept.append(job)
            return inside(job, bench)  # type: ignore[operator]

        monkeypatch.setattr(kind, "run", run)
    return kept


def found(run: dict[str, bytes]) -> int:
    return sum(name.endswith(".found") for name in run)


def test_workers_find_what_one_process_does(asked: Request, tmp_path: Path) -> None:
    alone = files(asked, tmp_path / "alone", "1")
    assert found(alone) > 4
    assert files(asked, tmp_path / "two", "2") == alone
    assert files(replace(asked, execution=replace(asked.execution, threads=2)), tmp_path / "threads", "1") == alone


def test_each_kind_of_job_travels(asked: Request, tmp_path: Path, done: list[Job]) -> None:
    run_audit(asked, tmp_path / "run", Silent())
    bench = Bench(asked.manifest, asked.execution, asked.seed)
    assert {type(job) for job in done} == {ParityJob, GradientJob, Rerun}
    made = {path.read_bytes() for path in (tmp_path / "run" / "probes").glob("*.found")}
    # What was drawn is not drawn again: a job that travels begins anew.
    assert {Workbench().run(pack_job(job, bench)) for job in list(done)} == made


def test_an_audit_that_continues_checks_nothing_twice(asked: Request, tmp_path: Path, done: list[Job]) -> None:
    first = files(asked, tmp_path, "1")
    assert len(done) == found(first), "nor does the first one, which does some of them early"
    done.clear()
    assert files(asked, tmp_path, "1") == first
    assert not done
    (damaged,) = [path for path in (tmp_path / "run" / "probes").glob("*.found") if b"parity" in _text(path)][:1]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert files(asked, tmp_path, "1") == first
    assert len(done) == 1


def _text(path: Path) -> bytes:
    return repr(decode_found(path.read_bytes(), Checks)).encode()


def test_what_depends_on_no_result_is_done_before_the_checks(
    asked: Request, tmp_path: Path, done: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else workers would wait for the last chunk, and then for the longest check."""
    from toolkit.audit.checks import GradientChecks

    early: list[int] = []
    run = GradientChecks.run

    def watched(checks: GradientChecks, *given: object) -> list[Check]:
        early.append(len(done))
        return run(checks, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(GradientChecks, "run", watched)
    run_audit(asked, tmp_path / "run", Silent())
    before, after = done[: early[0]], done[early[0] :]
    assert [type(job) for job in before] == [ParityJob] + [Rerun] * 4
    # Twice the steps of both, half and twice the ball of one.
    attacks = [job.job.attack for job in before if isinstance(job, Rerun)]
    assert attacks == [
        replace(WEAK, steps=6), replace(WEAK, epsilon=2 / 255), replace(WEAK, epsilon=8 / 255), Fmn(steps=12)
    ]  # fmt: skip
    assert all(isinstance(job, GradientJob) or job.drawn != job.job.attack.name or job.job.attack.epsilon == 1.0
               for job in after if isinstance(job, Rerun | GradientJob))  # fmt: skip
    assert any(isinstance(job, GradientJob) for job in after)


def test_other_pixels_models_seeds_and_attacks_are_checked_anew(asked: Request, tmp_path: Path) -> None:
    def names(request: Request, run: str) -> set[str]:
        run_audit(request, tmp_path / run, Silent())
        return {path.name for path in (tmp_path / run / "probes").glob("*.found")}

    base, manifest = names(asked, "base"), asked.manifest
    brighter = replace(asked.crops, images=np.minimum(asked.crops.images[:] + 1, 255).astype(np.uint8))
    other = replace(manifest, input=replace(manifest.input, std=(0.5, 0.5, 0.5)))
    assert not base & names(replace(asked, crops=brighter), "pixels")
    assert not base & names(replace(asked, manifest=other), "model")
    # Neither draws: parity compares the same, and all else is drawn anew.
    assert len(base & names(replace(asked, seed=4), "seed")) == 1
    fewer = names(replace(asked, attacks=(replace(WEAK, steps=4),)), "attack")
    assert len(base & fewer) <= 2, "parity, and gradients whose crafted probes happen to be the same"


def test_whoever_cannot_have_gradients_hears_so_before_all_is_crafted(
    asked: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise InputError("the checkpoint is broken; copy it again")

    crafted: list[int] = []
    craft = Fgsm.craft

    def counted(attack: Fgsm, model: object, task: Task) -> Crafted:
        crafted.append(len(task))
        return craft(attack, model, task)  # type: ignore[arg-type]

    monkeypatch.setattr(ParityJob, "run", broken)
    monkeypatch.setattr(Fgsm, "craft", counted)
    many = replace(asked, attacks=tuple(Fgsm(levels=levels) for levels in (2, 3, 4, 5)))
    with pytest.raises(InputError, match="the checkpoint is broken"):
        run_audit(many, tmp_path / "run", Silent())
    assert len(crafted) <= 1


def test_an_audit_with_workers_never_loads_tensorflow_itself(tmp_path: Path) -> None:
    """It takes seconds, during which the workers would wait."""
    model = write_people(tmp_path)
    code = (
        "import sys\n"
        "from toolkit.audit.options import AuditOptions\n"
        "from toolkit.audit.run import audit_verifier\n"
        f"run = audit_verifier(AuditOptions(model={str(model)!r}, pairs={str(tmp_path / 'pairs.csv')!r}, "
        f"attacks='fmn,universal', profiles='none,mean3', workers='2', run={str(tmp_path / 'run')!r}))\n"
        "assert run.assessment.parity is not None\n"
        "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert len(list((tmp_path / "run").rglob("*.learned"))) == 4, "for two profiles, of two halves of the people"


def test_a_result_survives_its_artifact_and_no_other_kind_does() -> None:
    checks = Checks((Check("gradient", "none", True, "fine"), Check("stable", "é\u202e", False, "no")))
    sealed = encode_found(checks)
    assert decode_found(sealed, Checks) == checks
    assert decode_found(sealed[:-1], Checks) is None
    assert decode_found(sealed, Wrong) is None


class Wrong(Profile):
    """Needs what no check has."""


def test_numbers_that_are_not_finite_are_refused() -> None:
    from toolkit.audit.replaying.reruns import Margins

    with pytest.raises(InputError, match="margins"):
        encode_found(Margins((True,), (float("nan"),), ((0.0,),)))
    assert decode_found(encode_found(Margins((True,), (1 / 3,), ((0.1, 1e-300),))), Margins) == Margins(
        (True,), (1 / 3,), ((0.1, 1e-300),)
    )
