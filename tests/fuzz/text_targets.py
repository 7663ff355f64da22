"""Readers of text and data files, to be fuzzed: what makes mutants of a file, and what reads one.

`run` returns if the file is accepted, and raises an error of ours if it is refused. Anything else is a fault.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from tests.fuzz.mutate_text import Rng, mutants, mutate_bytes, mutate_csv, mutate_json, mutate_sqlite, mutate_toml
from tests.models import write_linear
from tests.risk.runs import Told, write
from toolkit.attacks.gaussian import ATTACK as GAUSSIAN
from toolkit.audit.crafting.craft import attack_parameters
from toolkit.audit.options import read_config
from toolkit.audit.results.export import export_results
from toolkit.audit.results.outcomes import FILE, Run, read_run
from toolkit.audit.results.record import is_of_nobody, read_record
from toolkit.audit.selection.candidates import candidates_of
from toolkit.audit.selection.latency import read_latency_ratios
from toolkit.audit.selection.select import Limits, select
from toolkit.commands.show import SafeConsole
from toolkit.errors import InsufficientError
from toolkit.faces.alignment import read_landmarks
from toolkit.faces.detection import PARTS
from toolkit.faces.pairs import embedded_pairs, load_pairs, read_people
from toolkit.files import bundled
from toolkit.profiles.profile import read_profile, shipped_profiles
from toolkit.report.assessment import print_assessment
from toolkit.report.risk import print_comparison, print_judgement
from toolkit.report.write import choose_formats
from toolkit.risk.compare import compare_runs
from toolkit.risk.findings import Report
from toolkit.risk.gate import judge_run
from toolkit.risk.policy import find_policy, read_policy, shipped_policies
from toolkit.risk.waivers import read_waivers
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.ledger import LEDGER, Ledger

FORMATS = choose_formats(["html", "markdown", "sarif", "junit", "json"])
TOLD = [
    Told("deepfool", "perfect", "none", dodged=3, impersonated=2),
    Told("deepfool", "zero", "mean3", dodged=1),
    Told("square", "query", "mean3", dodged=2, queries=300),
]
EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "remote"
WAIVERS = """schema = 1
[[waiver]]
finding = "square/query/mean3/dodging"
owner = "Ann"
reason = "a guard looks"
expires = 2030-01-31
"""
REMOTE = """schema = 1
kind = "open-inference"
name = "server"
url = "https://example.org"
protocol = "grpc"
model = "facenet"
batch = 8
[input]
name = "input"
height = 160
width = 160
layout = "NHWC"
channels = "RGB"
range = [0, 1]
[output]
name = "embedding"
size = 128
normalize = false
[decision]
metric = "cosine"
threshold = 0.4
maximum = 2.0
[alignment]
template = [[54.7, 73.9], [105.0, 73.5], [80.0, 102.5], [59.3, 131.9], [101.0, 131.5]]
[limits]
calls_per_second = 2.0
max_calls = 100
"""
CONFIG = """schema = 1
model = "facenet-mini"
attacks = ["pgd", "square"]
profiles = "none,mean3"
seed = 3
limit = 10
threshold = 0.5
certify = [0.1]
[set]
pgd.epsilon = "8/255"
square.budget = 500
"""
LFW = "1\t1\nann\t1\t2\nann\t1\tbob\t2\n"
LANDMARKS = ",".join(["image", "confidence", *(f"{part}_{axis}" for part in PARTS for axis in "xy")]) + (
    "\nann/ann_0001.jpg,0.9" + ",10.5" * 10 + "\nbob/bob_0001.jpg,0" + ",0" * 10 + "\n"
)


Read = Callable[[bytes, Path], None]
Mutate = Callable[[Rng, bytes], bytes]


class Target(NamedTuple):
    """A name, a function that makes a mutant, and a function that reads a file's content in a folder of its own."""

    name: str
    make_mutants: Callable[[Rng], bytes]
    run: Read


def _reads(file: str, *readers: Callable[[Path], object]) -> Read:
    def run(content: bytes, folder: Path) -> None:
        path = folder / file
        path.write_bytes(content)
        for read in readers:
            read(path)

    return run


@cache
def finished() -> dict[str, bytes]:
    """The files of a small finished run of the embedded faces."""
    with TemporaryDirectory() as name:
        folder = write(Path(name), TOLD, pairs=3, subgroups=["old", "young", ""] * 2)
        files = {file: (folder / file).read_bytes() for file in ("report.json", FILE)}
    pairs = load_pairs(embedded_pairs()).pairs[:3]
    manifest = read_manifest(bundled("models") / "facenet-mini")
    profile = read_profile(shipped_profiles()["mean3"])
    files["request.json"] = json.dumps({
        "schema": 1, "model": "facenet-mini", "model_sha256": manifest.sha256, "threshold": 0.5, "root": None,
        "source": "faces", "pairs": [[p.probe, p.reference, p.genuine] for p in pairs],
        "attacks": [["gaussian", attack_parameters(GAUSSIAN)]],
        "profiles": [["mean3", profile.sha256]], "knowledge": ["perfect"], "seed": 3, "group": None,
    }).encode()  # fmt: skip
    timings = [{"batch": 1, "p50": 1.5, "p99": 2.0, "memory": 1000}]
    files["costs.json"] = json.dumps({
        "schema": 1, "kind": "costs", "model": "m",
        "profiles": [{"profile": name, "timings": timings} for name in ("none", "mean3")],
    }).encode()  # fmt: skip
    return files


def _reads_run(file: str) -> Read:
    def run(content: bytes, folder: Path) -> None:
        for name in ("report.json", FILE):
            (folder / name).write_bytes(content if name == file else finished()[name])
        show(read_run(folder), folder)

    return run


def show(run: Run, folder: Path) -> None:
    """Show a run in every way there is."""
    judgement = judge_run(run, "access-control", baseline=run)
    for one in FORMATS:
        one.render(Report(run, judgement.risk, judgement.verdict)).encode()
    page = SafeConsole(file=io.StringIO(), width=80)
    print_judgement(judgement, [], page)
    print_assessment(run.assessment, page, [])
    print_comparison(compare_runs([run, run], find_policy("watchlist")), page)
    export_results(run, folder / "all.csv")
    with suppress(InsufficientError):
        select(candidates_of(run, {}), run.genuine, Limits())


def _reads_costs(content: bytes, folder: Path) -> None:
    for name in ("report.json", FILE):
        (folder / name).write_bytes(finished()[name])
    (folder / "costs.json").write_bytes(content)
    read_latency_ratios(read_run(folder), folder / "costs.json")


def _reads_pairs(name: str) -> Read:
    def run(content: bytes, folder: Path) -> None:
        for image in ("ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob/bob_0001.jpg", "bob/bob_0002.jpg"):
            (folder / "images" / image).parent.mkdir(parents=True, exist_ok=True)
            (folder / "images" / image).touch()
        (folder / name).write_bytes(content)
        load_pairs(folder)

    return run


def _manifests() -> list[bytes]:
    with TemporaryDirectory() as name:
        linear = write_linear(Path(name), weights=np.zeros((12 * 16 * 16 // 4, 2), np.float32), side=16)
        small = linear.with_suffix(".toml").read_bytes()
    return [small, *_texts(bundled("models").glob("*/model.toml"))]


def _texts(paths: Iterable[Path]) -> list[bytes]:
    return [path.read_bytes() for path in sorted(paths)]


@cache
def _ledger() -> bytes:
    """A small ledger with lines of every kind."""
    with TemporaryDirectory() as name:
        path = Path(name) / LEDGER
        ledger = Ledger(path, "service")
        ledger.called()
        ledger.begin_canary({"pair": [0.25]})
        ledger.keep(["a", "b"], np.array([[0.5, 1.0], [2.0, np.nan]], np.float32))
        ledger.confirm()
        ledger.called()
        ledger.keep(["c"], np.array([0.75]), refused="a")
        ledger.void()
        ledger.close()
        return path.read_bytes()


def _mutate_lines(rng: Rng, content: bytes) -> bytes:
    """Mutate one line of a file of JSON lines, or the bytes of the whole file."""
    lines = content.splitlines(keepends=True)
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    at = int(rng.integers(len(lines)))
    lines[at] = mutate_json(rng, lines[at]) + b"\n"
    return b"".join(lines)


def _read_ledger(path: Path) -> None:
    Ledger(path, "service").close()


def _read_request(path: Path) -> None:
    is_of_nobody(path.parent)
    read_record(path.parent)


GROUPED = b"""probe,reference,label,group
images/ann/ann_0001.jpg,images/ann/ann_0002.jpg,same,20-39
images/ann/ann_0001.jpg,images/bob/bob_0001.jpg,different,
"""
CSV = b"probe,reference,label,fold\n" + b"".join(
    b"images/%s,images/%s,%s,1\n" % (probe, reference, label)
    for probe, reference, label in (
        (b"ann/ann_0001.jpg", b"ann/ann_0002.jpg", b"same"),
        (b"ann/ann_0001.jpg", b"bob/bob_0001.jpg", b"different"),
    )
)
# By the name of a target: files that are accepted, what changes them, and what reads them.
SEEDS: dict[str, tuple[Callable[[], list[bytes]], Mutate, Read]] = {
    "manifest": (_manifests, mutate_toml, _reads("a.toml", read_manifest)),
    "profile": (lambda: _texts(shipped_profiles().values()), mutate_toml, _reads("a.toml", read_profile)),
    "policy": (lambda: _texts(shipped_policies().values()), mutate_toml, _reads("a.toml", read_policy)),
    "waivers": (lambda: [WAIVERS.encode()], mutate_toml, _reads("a.toml", read_waivers)),
    "remote": (lambda: [REMOTE.encode(), *_texts(EXAMPLES.glob("*"))], mutate_toml, _reads("a.toml", read_remote)),
    "config": (lambda: [CONFIG.encode()], mutate_toml, _reads("a.toml", read_config)),
    "report": (lambda: [finished()["report.json"]], mutate_json, _reads_run("report.json")),
    "results": (lambda: [finished()[FILE]], mutate_sqlite, _reads_run(FILE)),
    "request": (lambda: [finished()["request.json"]], mutate_json, _reads("request.json", _read_request)),
    "costs": (lambda: [finished()["costs.json"]], mutate_json, _reads_costs),
    "pairs": (lambda: [CSV, GROUPED], mutate_csv, _reads_pairs("pairs.csv")),
    "lfw": (lambda: [LFW.encode()], mutate_csv, _reads_pairs("pairs.txt")),
    "people": (lambda: [b"1\n2\nann\t3\nbob\t4\n", b"2\nann\t3\nbob\t4"], mutate_csv, _reads("p.txt", read_people)),
    "ledger": (lambda: [_ledger()], _mutate_lines, _reads(LEDGER, _read_ledger)),
    "landmarks": (lambda: [LANDMARKS.encode()], mutate_csv, _reads("landmarks.csv", read_landmarks)),
}
TARGETS = [Target(name, mutants(seeds, mutate), run) for name, (seeds, mutate, run) in SEEDS.items()]
