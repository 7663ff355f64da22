"""A Dask cluster finds what one process does, whatever becomes of its scheduler and of its workers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.workers.runs import files
from tests.certificates import Certificates, make_certificates
from tests.clusters import Cluster, wait_until
from toolkit import __version__
from toolkit.audit.clean.bench import Bench
from toolkit.audit.crafting.series import CraftJob
from toolkit.audit.request import Request
from toolkit.audit.workers import Workers, open_pool
from toolkit.audit.workers.dask import DaskPool
from toolkit.audit.workers.workbench import Workbench
from toolkit.errors import InputError, UnavailableError

distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).resolve().parents[3]
COMMENT = ("import annotations\n", "import annotations  # changed\n")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_a_job_that_fails_is_not_tried_again(
    jobs: tuple[Bench, list[CraftJob]], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    tried = []

    class Broken(Workbench):
        def run(self, packed: bytes) -> bytes:
            tried.append(packed)
            raise ArithmeticError("always")

    monkeypatch.setattr("toolkit.audit.workers.dask._WORKBENCH", Broken())
    bench, (job, *_) = jobs
    with distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        where = Workers(cluster.scheduler_address.replace("tcp://", "dask://"))
        with (
            open_pool(where, bench) as pool,
            pytest.raises(UnavailableError, match=r"the cluster failed \(ArithmeticError: always\)"),
        ):
            pool.submit(job)()
    assert len(tried) == 1


def test_a_cluster_with_tls_finds_the_same_and_lets_nobody_else_in(
    asked: Request,
    alone: dict[str, bytes],
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distributed = pytest.importorskip("distributed")
    own = {"cert": str(certificates.certificate), "key": str(certificates.key)}
    parts = {f"tls_{who}_{what}": path for who in ("scheduler", "worker", "client") for what, path in own.items()}
    security = distributed.Security(require_encryption=True, tls_ca_file=str(certificates.ca), **parts)
    (tmp_path / "another").mkdir()
    other = make_certificates(tmp_path / "another")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tls://", security=security, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tls://")
        workers = Workers(address, certificates.ca, certificates.certificate, certificates.key)
        assert files(asked, tmp_path, workers) == alone
        monkeypatch.setattr("toolkit.audit.workers.dask._SECONDS_TO_CONNECT", 1)
        bench = Bench(asked.manifest, asked.execution, 0)
        for stranger in (
            Workers(address, other.ca, certificates.certificate, certificates.key),
            Workers(address, certificates.ca, other.certificate, other.key),
            Workers(address.replace("tls://", "dask://")),
        ):
            with pytest.raises(UnavailableError, match="no scheduler answers"), open_pool(stranger, bench):
                pass
    for wrong in (certificates.key, tmp_path / "none.pem"):
        broken = Workers(address, wrong, certificates.certificate, certificates.key)
        with pytest.raises(InputError, match="cannot be used for TLS"), open_pool(broken, bench):
            pass


def in_the_middle(run: Path, act: Callable[[], object]) -> threading.Thread:
    """Do something on another thread when an audit has written some artifacts."""

    def wait_and_act() -> None:
        wait_until(lambda: len(list((run / "probes").glob("*.probes"))) >= 3)
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def test_a_cluster_that_loses_a_worker_finds_the_same(
    asked: Request, alone: dict[str, bytes], certificates: Certificates, tmp_path: Path
) -> None:
    with Cluster(certificates).start(workers=2) as cluster:
        other = in_the_middle(tmp_path / "run", cluster.kill_a_worker)
        found = files(asked, tmp_path, cluster.as_workers)
        other.join()
    same = found == alone
    assert same, "another result"


def test_a_scheduler_that_is_killed_and_started_again_gets_the_rest_of_the_jobs(
    asked: Request, alone: dict[str, bytes], certificates: Certificates, tmp_path: Path
) -> None:
    with Cluster(certificates).start(workers=4) as cluster:

        def restart() -> None:
            cluster.kill_scheduler()
            cluster.kill_workers()
            cluster.start(workers=2)

        other = in_the_middle(tmp_path / "run", restart)
        found = files(asked, tmp_path, cluster.as_workers)
        other.join()
    same = found == alone
    assert same, "another result"


def test_a_scheduler_may_come_back_after_dask_has_given_up(
    jobs: tuple[Bench, list[CraftJob]], certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.audit.workers.dask._SECONDS_TO_CONNECT", 4)
    bench, (job, *_) = jobs
    with Cluster(certificates).start(workers=1) as cluster, open_pool(cluster.as_workers, bench) as pool:
        assert isinstance(pool, DaskPool)
        cluster.kill_scheduler()
        cluster.kill_workers()
        wait_until(lambda: pool._client.status == "closed")
        assert pool.width == 2
        cluster.start(workers=1)
        same = pool.submit(job)() == job.run(bench)
        assert same, "another artifact"


def test_an_audit_ends_when_its_cluster_stays_away(
    asked: Request, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"_SECONDS_TO_CONNECT": 1, "_SECONDS_TO_RETURN": 1, "_SECONDS_TO_LOOK": 0.1}.items():
        monkeypatch.setattr(f"toolkit.audit.workers.dask.{name}", seconds)
    with Cluster(certificates).start(workers=1) as cluster:
        other = in_the_middle(tmp_path / "run", cluster.kill_workers)
        with pytest.raises(UnavailableError, match="has had no worker for 1 seconds"):
            files(asked, tmp_path, cluster.as_workers)
        other.join()
        cluster.add_workers(1)
        shutil.rmtree(tmp_path / "run")
        other = in_the_middle(tmp_path / "run", cluster.kill_scheduler)
        # Whichever is noticed first: without a scheduler there are no workers.
        with pytest.raises(UnavailableError, match=r"no scheduler answers|has had no worker"):
            files(asked, tmp_path, cluster.as_workers)
        other.join()


def changed(folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of the toolkit with one change."""
    for part in ("toolkit", "models", "profiles"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.onnx", "*.h5", "*.keras", "*.npz"))
    file = folder / "toolkit" / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (("__init__.py", f'"{__version__}"', '"0.0.1"'), f"has sixpixels 0.0.1, but the audit has {__version__}"),
        (("attacks/noise.py", *COMMENT), "gaussian: this worker and the audit have different code of this attack"),
        (("defenses/mean.py", *COMMENT), "different code of its defenses"),
    ],
    ids=["version", "attack", "defense"],
)
def test_a_worker_with_other_code_ends_the_audit_with_its_name(
    asked: Request,
    certificates: Certificates,
    tmp_path: Path,
    change: tuple[str, str, str],
    refusal: str,
) -> None:
    with Cluster(certificates).start(workers=0) as cluster:
        cluster.add_workers(1, "old-rig", changed(tmp_path / "other", *change))
        with pytest.raises(UnavailableError, match=rf"worker old-rig-0 \(tls://127\.0\.0\.1:\d+\): .*{refusal}"):
            files(asked, tmp_path, cluster.as_workers)
