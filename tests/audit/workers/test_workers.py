"""Who crafts, and what becomes of a run that is stopped, change nothing about its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests.audit.workers.runs import files
from tests.commands import refused, sixpixels
from tests.progress import Silent
from toolkit.attacks.base import Crafted
from toolkit.attacks.fgsm import Fgsm
from toolkit.attacks.pgd import Pgd
from toolkit.attacks.universal import Universal
from toolkit.audit.clean.bench import Bench, Verifiers
from toolkit.audit.clean.run import run_clean
from toolkit.audit.collect import InterruptedAuditError
from toolkit.audit.crafting.artifacts import decode_learned, decode_probes, encode_learned, encode_probes
from toolkit.audit.crafting.code import attack_code, code_modules
from toolkit.audit.crafting.craft import Series
from toolkit.audit.crafting.jobs import InProcess, Job, Parcel, Ticket, pack_job
from toolkit.audit.crafting.learn import learned
from toolkit.audit.crafting.series import CraftJob, series_steps
from toolkit.audit.replaying.certify import CertifyJob
from toolkit.audit.replaying.natural import NaturalJob
from toolkit.audit.replaying.presented import presented
from toolkit.audit.request import Request
from toolkit.audit.run import run_audit
from toolkit.audit.workers import ALONE, Workers, open_pool
from toolkit.audit.workers.processes import ProcessPool
from toolkit.audit.workers.workbench import _KINDS, Workbench
from toolkit.documents import to_json
from toolkit.errors import InputError, UnavailableError, UsageError
from toolkit.faces.corruptions import CORRUPTIONS
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.files import atomic_write, remove_stale_parts
from toolkit.pixels import to_unit
from toolkit.profiles.profile import Profile, find_profile
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.runtime import Execution
from toolkit.verifiers.scores import is_same

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("embeddings", "probes", "votes", "decisions")


def test_two_processes_find_what_one_does(asked: Request, alone: dict[str, bytes], tmp_path: Path) -> None:
    made = {kind: sum(name.endswith(f".{kind}") for name in alone) for kind in KINDS}
    # Several chunks of each kind, or there is nothing to share.
    assert made == {"embeddings": 2, "probes": 4 * 4, "votes": 2 * 4, "decisions": 2 * 4 * len(CORRUPTIONS)}
    assert files(asked, tmp_path, "2") == alone


def test_threads_of_one_process_find_what_one_does(asked: Request, alone: dict[str, bytes], tmp_path: Path) -> None:
    assert files(replace(asked, execution=Execution("cpu", threads=3)), tmp_path, "1") == alone


def test_a_worker_that_is_killed_is_replaced(jobs: tuple[Bench, list[CraftJob]]) -> None:
    bench, todo = jobs
    with ProcessPool(1, bench) as pool:
        tickets = [pool.submit(job) for job in todo]
        first = tickets[0]()
        (process,) = pool._processes
        process.kill()
        assert [first, *(ticket() for ticket in tickets[1:])] == [job.run(bench) for job in fresh(jobs)]
        assert len(pool._processes) == 2


def fresh(jobs: tuple[Bench, list[CraftJob]]) -> list[CraftJob]:
    """The same jobs, with random numbers that nobody has drawn yet."""
    from toolkit.audit.crafting.craft import pair_generator

    bench, todo = jobs
    return [
        replace(job, task=replace(job.task, generators=tuple(
            pair_generator(bench.seed, job.attack.name, one) for one in job.ids
        )))
        for job in todo
    ]  # fmt: skip


def test_a_packed_job_is_the_same_job(asked: Request, jobs: tuple[Bench, list[CraftJob]]) -> None:
    bench, (job, *_) = jobs
    decision, rows = asked.manifest.decision, np.arange(3)
    pairs = presented(
        job.known, asked.crops, run_clean(bench.deployed(job.known), asked.crops, decision), decision, rows
    )
    others: tuple[Job, ...] = (CertifyJob(asked.smoothings[0], pairs), *(NaturalJob(one, pairs) for one in CORRUPTIONS))
    for made in (job, *others):
        same = Workbench().run(pack_job(made, bench)) == made.run(bench)
        assert same, f"another artifact: {made.name}"


@dataclass(frozen=True)
class Counting:
    """Tells how many threads a product of matrices takes."""

    name: str = "counting"

    def run(self, bench: Verifiers) -> bytes:
        return repr({one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}).encode()

    def parcel(self) -> Parcel:
        return Parcel("counting", {}, {})


def test_a_worker_multiplies_matrices_on_one_thread(
    jobs: tuple[Bench, list[CraftJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_KINDS, "counting", lambda parcel, seed: Counting())
    with threadpool_limits(2, "blas"):
        assert Workbench().run(pack_job(Counting(), jobs[0])) == b"{1}"


def test_a_job_on_a_group_compares_with_everybody_in_it(asked: Request) -> None:
    bench, decision, none = Bench(asked.manifest, asked.execution, 0), asked.manifest.decision, find_profile("none")
    crops = replace(asked.crops, gallery=np.array([0, 7, 12]))
    clean = run_clean(bench.deployed(none), crops, decision)
    pairs = presented(none, crops, clean, decision, np.arange(len(crops.pairs)))
    unchanged = pairs.accepted(bench, np.arange(len(crops.pairs)), to_unit(pairs.pixels))
    assert unchanged.tolist() == is_same(decision, clean.distances).tolist()
    assert 0 < unchanged.sum() < len(unchanged), "both decisions must occur"


def test_a_worker_crafts_for_the_threshold_of_the_audit_and_not_for_that_of_the_file(
    jobs: tuple[Bench, list[CraftJob]],
) -> None:
    bench, (job, *_) = jobs
    decision = replace(job.task.decision, threshold=1.3 * job.task.decision.threshold)
    bench.manifest = replace(bench.manifest, decision=decision)
    stricter = replace(job, task=replace(job.task, decision=decision))
    here, there = stricter.run(bench), Workbench().run(pack_job(stricter, bench))
    same = here == there
    assert same, "another artifact"
    assert here != fresh(jobs)[0].run(bench), "the threshold must matter here"


@pytest.mark.usefixtures("facenet_network")
def test_gradients_are_the_same_in_another_process_and_another_thread(tmp_path: Path) -> None:
    manifest, known, attack = find_manifest("facenet-mini"), find_profile("none"), Pgd(steps=3)
    assert manifest.alignment is not None
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=8), 160, 160, manifest.alignment.template)
    bench = Bench(manifest, Execution("cpu", threads=2), 0)
    clean = run_clean(bench.deployed(known), crops, manifest.decision)
    series = Series(attack, known, "m", crops, manifest.decision, 0, tmp_path)
    (job,) = [step.job() for step in series_steps(series, clean, InProcess(bench))]
    assert isinstance(job, CraftJob)
    with ProcessPool(1, Bench(manifest, Execution("cpu", threads=1), 0)) as pool:
        there = pool.submit(job)()
    with open_pool(ALONE, bench) as pool:
        thread = pool.submit(fresh((bench, [job]))[0])()
    same = there == thread == job.run(bench)
    assert same, "another artifact"  # pytest would compare the bytes one by one


@pytest.mark.usefixtures("facenet_network")
def test_a_worker_trains_what_this_process_would(tmp_path: Path) -> None:
    manifest, attack = find_manifest("facenet-mini"), Universal(epochs=1, batch=4)
    assert manifest.alignment is not None
    crops = crop_pairs(load_pairs(embedded_pairs(), limit=8), 160, 160, manifest.alignment.template)
    bench = Bench(manifest, Execution("cpu", threads=1), 0)
    series = Series(attack, find_profile("none"), "m", crops, manifest.decision, 0, tmp_path / "here")
    here = learned(series, attack, np.inf, InProcess(bench))
    with ProcessPool(2, bench) as pool:
        there = learned(replace(series, folder=tmp_path / "there"), attack, np.inf, pool)
    assert not isinstance(here, InputError)
    np.testing.assert_array_equal(here, there)
    assert (here[0] != here[1]).any(), "each half of the people has its own"
    # What was trained is not trained again.
    np.testing.assert_array_equal(learned(series, attack, np.inf, Idle()), here)


class Idle:
    """A pool that may not be asked."""

    width = 1

    def submit(self, job: Job) -> Ticket:
        raise AssertionError(job.name)


def test_workers_refuse_what_is_not_what_the_audit_saw(
    asked: Request, jobs: tuple[Bench, list[CraftJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, (job, *_) = jobs
    made = replace(job, known=Profile("mine", "", job.known.defenses, ""))
    with pytest.raises(UnavailableError, match="mine is not in a file"):
        pack_job(made, bench)
    model = asked.manifest.model
    packed = pack_job(job, bench)
    content = model.read_bytes()
    try:
        model.write_bytes(content + b"\0")
        with pytest.raises(UnavailableError, match="a different file than the audit"):
            Workbench().run(packed)
        # What a process refuses comes back as what it is.
        with (
            ProcessPool(1, bench) as pool,
            pytest.raises(UnavailableError, match=r"is not an ONNX file|a different file"),
        ):
            pool.submit(job)()
    finally:
        model.write_bytes(content)
    described = asked.manifest.path
    text = described.read_text()
    try:
        described.write_text(text.replace("std = 1.0", "std = 0.5"))
        with pytest.raises(UnavailableError, match="a different manifest than the audit"):
            Workbench().run(packed)
    finally:
        described.write_text(text)
    with monkeypatch.context() as patched:
        patched.setattr("toolkit.audit.crafting.jobs.profile_code", lambda profile: ["of another version"])
        with pytest.raises(UnavailableError, match="different code of its defenses"):
            Workbench().run(packed)
    elsewhere = Bench(asked.manifest, Execution("directml", threads=1), 0)
    with ProcessPool(1, elsewhere) as pool, pytest.raises(UnavailableError, match="provider DmlExecutionProvider"):
        pool.submit(job)()


def test_workers_are_a_number_or_a_cluster(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ("here", "me:word@127.0.0.1:8786", "127.0.0.1:x", "127.0.0.1:8786/x", "[::1:8786", "")
    numbers = ("0", "-1", "two", "", "99999999999999999999", "tls://", "ray://here:1")
    for text in (*numbers, *(f"dask://{address}" for address in addresses)):
        with pytest.raises(UsageError, match="number of processes, or dask"):
            Workers(text)
    assert not Workers("16").is_cluster
    pytest.importorskip("distributed")
    monkeypatch.setattr("toolkit.audit.workers.dask._SECONDS_TO_CONNECT", 1)
    bench = Bench(asked.manifest, asked.execution, 0)
    with pytest.raises(UnavailableError, match="no scheduler answers"), open_pool(Workers("dask://127.0.0.1:9"), bench):
        pass


def test_a_cluster_elsewhere_is_called_with_tls_or_not_at_all(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    for host in ("scheduler", "10.0.0.1", "[fe80::1]", "127.0.0.1.example.org", "0.0.0.0"):
        with pytest.raises(UsageError, match=r"without TLS, anybody on the way can run code.*--dask-trust-network"):
            Workers(f"dask://{host}:8786")
        assert Workers(f"dask://{host}:8786", trust_network=True).is_cluster
        assert Workers(f"tls://{host}:8786", pem, pem).is_cluster
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert Workers(f"dask://{host}:8786").is_cluster
    with pytest.raises(UsageError, match="TLS needs --dask-ca and --dask-certificate"):
        Workers("tls://scheduler:8786", pem)
    for where in ("2", "dask://127.0.0.1:8786"):
        with pytest.raises(UsageError, match=r"are for tls://host:port"):
            Workers(where, pem, pem)
    given = ["audit", "--workers", "dask://scheduler:8786"]
    refused(sixpixels(*given), "without TLS", 4)
    assert "code on this computer" in " ".join(sixpixels("audit", "--help", env={"COLUMNS": "200"}).stdout.split())


def crafted_of(clean: np.ndarray) -> Crafted:
    rng = np.random.default_rng(1)
    probes = np.clip(clean / np.float32(255) + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32)
    n = len(clean)
    return Crafted(
        probes, np.arange(n) % 2 == 0, rng.integers(0, 256, clean.shape).astype(np.uint8), np.arange(n) % 3 == 0,
        rng.integers(0, 1 << 40, n),
    )  # fmt: skip


def test_artifacts_keep_8_bits_exactly_and_floats_to_14() -> None:
    clean = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    crafted = crafted_of(clean)
    found = decode_probes(encode_probes(crafted, clean), clean)
    assert found is not None
    for name in ("success", "success8", "probes8", "evaluations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(crafted, name))
    largest = np.abs(crafted.probes - clean / np.float32(255)).max()
    assert np.abs(found.probes - crafted.probes).max() < 0.51 * largest / 8191
    assert encode_probes(found, clean) == encode_probes(crafted, clean), "what is read back is what is written again"
    unchanged = replace(crafted, probes=(clean / np.float32(255)).astype(np.float32))
    kept = decode_probes(encode_probes(unchanged, clean), clean)
    assert kept is not None
    np.testing.assert_array_equal(kept.probes, unchanged.probes)


def in_8bit(crafted: Crafted) -> Crafted:
    return replace(crafted, probes=to_unit(crafted.probes8), success=crafted.success8)


def test_float_probes_that_are_8_bit_ones_are_kept_once() -> None:
    clean = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    crafted = in_8bit(crafted_of(clean))
    content = encode_probes(crafted, clean)
    assert len(content) < 0.6 * len(encode_probes(crafted_of(clean), clean))
    found = decode_probes(content, clean)
    assert found is not None
    for name in ("probes", "success", "probes8", "success8", "evaluations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(crafted, name))
    assert not replace(crafted, success=~crafted.success8).in_8bit


@pytest.mark.parametrize("form", [lambda crafted: crafted, in_8bit])
def test_any_damage_to_an_artifact_is_found(form: Callable[[Crafted], Crafted]) -> None:
    clean = np.zeros((2, 3, 4, 3), np.uint8)
    whole = encode_probes(form(crafted_of(clean)), clean)
    for at in range(len(whole)):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            assert decode_probes(bytes(damaged), clean) is None, (at, bit)
        assert decode_probes(whole[:at], clean) is None
    assert decode_probes(whole + b"\0", clean) is None
    assert decode_probes(whole, clean[:1]) is None, "of other pairs"
    learned = np.random.default_rng(0).random((2, 3, 4, 3)).astype(np.float32)
    content = encode_learned(learned)
    np.testing.assert_array_equal(decode_learned(content, learned.shape), learned)
    assert decode_learned(content, (2, 3, 4, 4)) is None
    assert decode_learned(whole, learned.shape) is None


def test_probes_are_named_by_the_code_that_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attack_code(Pgd()) != attack_code(Fgsm())
    package = tmp_path / "foreign_attacks"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "helper": "SCALE = 1\n",
        "main": "from .helper import SCALE\n\nclass Own:\n    name = 'own'\n",
    }.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    from foreign_attacks.main import Own  # type: ignore[import-not-found]

    before = attack_code(Own())
    assert attack_code(Own()) == before
    (package / "helper.py").write_text("SCALE = 2\n")
    assert attack_code(Own()) != before, "what it imports of its own package counts"


def test_probes_depend_on_what_attacks_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = [module for module in code_modules(Pgd()) if module.startswith("toolkit.")]
    assert {"toolkit.attacks.base", "toolkit.attacks.ladder", "toolkit.attacks.norms", "toolkit.pixels"} <= set(read)
    assert "toolkit.verifiers.scores" in read, "the distance is a part of every attack"


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with atomic_write(tmp_path / "a.probes") as stream:
        stream.write(b"x")
        (mine,) = tmp_path.glob(".*.part")
        left = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
        elsewhere = tmp_path / ".a.probes.00000000-1-ab.part"
        for path in (left, elsewhere):
            path.write_bytes(b"")
        remove_stale_parts(tmp_path)
        assert mine.exists()
        assert elsewhere.exists(), "who knows what lives on another machine"
        assert not left.exists()
    assert (tmp_path / "a.probes").read_bytes() == b"x"


def test_an_interrupted_audit_says_what_it_had_found(asked: Request, tmp_path: Path) -> None:
    class Impatient(Silent):
        def stage(self, name, total):  # type: ignore[no-untyped-def]
            def advance(count: int) -> None:
                self.done += count * name.startswith("gaussian")
                if self.done == 64:
                    raise KeyboardInterrupt

            return advance

    with pytest.raises(InterruptedAuditError) as stopped:
        run_audit(asked, tmp_path / "run", Impatient())
    partial = json.loads(to_json(stopped.value.partial))
    assert (partial["kind"], partial["interrupted"], partial["pairs"]) == ("partial", True, 97)
    assert {s["profile"] for s in partial["scenarios"]} == {"none", "mean3"}
    assert {s["attack"] for s in partial["scenarios"]} == {"gaussian"}
    assert {s["knowledge"] for s in partial["scenarios"]} == {"perfect", "zero"}, "not yet what knows mean3"
    for profile in ("none", "mean3"):
        mine = [s for s in partial["scenarios"] if s["profile"] == profile]
        assert sum(s["pairs"] for s in mine) == 64, "only pairs that were attacked"


def test_stopped_anywhere_and_continued_a_run_ends_the_same() -> None:
    command = [sys.executable, "benchmarks/kills.py", "--kills", "12"]  # 200 of them are the bar; they take minutes
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every run ended the same" in done.stdout
