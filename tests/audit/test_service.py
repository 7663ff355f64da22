"""Audits of services: the same as of the file that they serve, each answer paid for once, and changes noticed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.commands import ROOT, refused, sixpixels
from tests.models import write_linear, write_people
from tests.servers import Answer, Seen, Server, Triton, answered, serving
from toolkit import AuditOptions, audit_verifier
from toolkit.audit.results.outcomes import Run, read_run
from toolkit.audit.service_estimate import plan_service_audit
from toolkit.errors import UnavailableError, UsageError
from toolkit.report.schemas import report_schema
from toolkit.verifiers.manifest import read_manifest
from toolkit.verifiers.remote.ledger import LEDGER, Ledger

SIDE = 16
ATTACKS = ("gaussian", "square", "cgba")
SETTINGS = ("square.budget=40", "cgba.budget=100", "gaussian.levels=8", "gaussian.draws=2")
INFER = "/v2/models/linear/infer"


@dataclass
class World:
    """Three people, a verifier that knows them apart, a server of it, and its `remote.toml`."""

    folder: Path
    model: Path
    server: Server
    runs: str = "runs"

    def describe(self, limits: str = "", name: str = "remote.toml") -> Path:
        manifest = read_manifest(self.model)
        path = self.folder / name
        path.write_text(
            f'schema = 1\nkind = "open-inference"\nname = "far"\nurl = "{self.server.url}"\nmodel = "linear"\n'
            f'batch = 4\n[input]\nname = "input"\nheight = {SIDE}\nwidth = {SIDE}\nlayout = "NHWC"\n'
            f'channels = "RGB"\nrange = [0, 1]\n[output]\nname = "embedding"\nsize = 2\nnormalize = false\n'
            f'[decision]\nmetric = "euclidean"\nthreshold = {manifest.decision.threshold}\nmaximum = 1.0\n'
            f"[limits]\ncalls_per_second = 10000\nmax_calls = 100000\nretries = 1\n{limits}\n"
        )
        return path

    def options(self, run: str, remote: Path | None, **more: Any) -> AuditOptions:
        model = {"model": str(self.model)} if remote is None else {"remote": remote}
        return AuditOptions(
            **{"attacks": ATTACKS, "settings": SETTINGS, **model, **more},
            pairs=self.folder, limit=12, profiles=("none",), provider="cpu", threads=1,
            run=self.folder / self.runs / run,
        )  # fmt: skip

    def audit(self, run: str, remote: Path | None = None, **more: Any) -> Run:
        return audit_verifier(self.options(run, remote, **more))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("service")
    model = write_people(folder, SIDE, 4)
    with serving(Triton(model, "linear")) as server:
        yield World(folder, model, server)


@pytest.fixture(scope="module")
def whole(served: World) -> tuple[Run, int]:
    """An audit that nothing interrupted, and how many requests the server saw of it."""
    return served.audit("whole", served.describe("canary = 20")), len(served.server.seen)


@pytest.fixture
def world(served: World, whole: tuple[Run, int], request: pytest.FixtureRequest) -> Iterator[World]:
    """The world with a folder of runs of its own. What the test does to the server is undone."""
    answer = served.server.answer
    del served.server.seen[:]
    yield replace(served, runs=f"{request.node.name[-40:]}")
    served.server.answer = answer


def same_report(a: Run, b: Run) -> bool:
    one, two = (json.loads((run.folder / "report.json").read_text()) for run in (a, b))
    return bool({**one, "run": ""} == {**two, "run": ""})


def scenarios(run: Run) -> list[Any]:
    return [(s.attack, s.knowledge, s.goal, s.asr, s.asr_float, s.median_l2) for s in run.assessment.scenarios]


def same_outcomes(a: Run, b: Run) -> bool:
    return all(
        np.array_equal(getattr(x, name), getattr(y, name))
        for x, y in zip(a.outcomes, b.outcomes, strict=True)
        for name in ("success", "l2", "queries")
    )


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_audit_of_a_service_is_that_of_the_file_that_it_serves(world: World, concurrency: int) -> None:
    near = world.audit("near")
    far = world.audit("far", world.describe(f"concurrency = {concurrency}"))
    assert scenarios(far) == scenarios(near)
    assert same_outcomes(far, near)
    assert far.assessment.clean == near.assessment.clean
    jsonschema.validate(json.loads((far.folder / "report.json").read_text()), report_schema())
    assert far.assessment.target.provider == "remote"
    assert far.assessment.service is not None
    assert far.assessment.service.requests == len(Ledger(far.folder / LEDGER, far.request.service.identity))


def crops_of(seen: Seen) -> list[str]:
    """The names in the ledger of the crops of an inference."""
    arrays = [np.array(t["data"], np.float32).reshape(t["shape"]) for t in seen.document["inputs"]]
    return [hashlib.sha256(crop.tobytes()).hexdigest()[:32] for batch in arrays for crop in batch]


def asked_twice(server: Server, ledger: Path) -> int:
    """How many crops of the ledger were sent more than once, without those of the canaries, which begin."""
    sent = [crops_of(seen) for seen in server.seen if seen.path == INFER]
    canaries = {crop for crops in sent[:6] for crop in crops}
    known = {key for line in ledger.read_text().splitlines() for key in json.loads(line).get("keys", ())}
    times = Counter(crop for crops in sent for crop in crops)
    return sum(times[key] - 1 for key in known - canaries)


def test_no_answer_is_paid_for_twice_and_a_finished_audit_asks_nothing_again(world: World) -> None:
    remote = world.describe()
    first = world.audit("far", remote)
    assert asked_twice(world.server, first.folder / LEDGER) == 0
    calls = len(world.server.seen)
    again = world.audit("far", remote)
    assert len(world.server.seen) - calls <= 2 + 3, "the metadata and one check of the canaries"
    assert (again.folder / "report.json").read_bytes() == (first.folder / "report.json").read_bytes()


class Stop:
    """Answers like the server until the n-th inference, and then does something else."""

    def __init__(self, server: Server, after: int, then: Callable[[Seen], Answer]) -> None:
        self.server, self.left, self.then, self.answer = server, after, then, server.answer
        server.answer = self

    def __call__(self, seen: Seen) -> Answer:
        if seen.path != INFER:
            return self.answer(seen)
        self.left -= 1
        return self.then(seen) if self.left < 0 else self.answer(seen)

    def undo(self) -> None:
        self.server.answer = self.answer


def test_a_swapped_model_is_noticed_and_what_it_answered_is_not_used(world: World, whole: tuple[Run, int]) -> None:
    other = write_linear(world.folder, weights=np.ones((SIDE * SIDE * 3, 2)) / 900, side=SIDE, name="other")
    stop = Stop(world.server, 40, Triton(other, "linear"))
    with pytest.raises(UnavailableError, match=r"the service has changed.*answers since the last check are not used"):
        world.audit("far", world.describe("canary = 10"))
    assert json.loads((world.folder / world.runs / "far" / "partial.json").read_text())["interrupted"]
    with pytest.raises(UnavailableError, match="the service has changed"):
        world.audit("far", world.describe("canary = 10"))
    stop.undo()
    far = world.audit("far", world.describe("canary = 10"))
    assert same_report(far, whole[0])


def test_a_cache_that_hides_a_change_is_noticed(world: World) -> None:
    """It answers what it was asked before, and asks another model about everything else."""
    kept: dict[str, Answer] = {}
    other = write_linear(world.folder, weights=np.ones((SIDE * SIDE * 3, 2)) / 900, side=SIDE, name="other")
    models = [world.server.answer, Triton(other, "linear")]
    count = 0

    def answer(seen: Seen) -> Answer:
        nonlocal count
        if seen.path != INFER:
            return models[0](seen)
        count += 1
        key = json.dumps(seen.document)
        if key not in kept:
            kept[key] = models[count > 60](seen)
        return kept[key]

    world.server.answer = answer
    with pytest.raises(UnavailableError, match="changed, and a cache hides it"):
        world.audit("far", world.describe("canary = 10"))


def test_a_service_that_does_not_look_at_the_images_is_refused_at_once(world: World) -> None:
    first = world.server.answer
    kept: list[Answer] = []

    def answer(seen: Seen) -> Answer:
        if seen.path != INFER:
            return first(seen)
        kept.append(first(seen))
        return kept[0]

    world.server.answer = answer
    with pytest.raises(UnavailableError, match=r"gives the same answer .* to different faces"):
        world.audit("far", world.describe())


def test_the_limit_of_calls_is_never_passed_and_a_higher_one_goes_on(world: World, whole: tuple[Run, int]) -> None:
    needed = whole[1]
    few = world.describe("", "few.toml")
    few.write_text(few.read_text().replace("max_calls = 100000", f"max_calls = {needed // 2}"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"calls of limits\.max_calls are used up"):
            world.audit("far", few)
    assert len(world.server.seen) == needed // 2
    far = world.audit("far", world.describe())
    assert same_report(far, whole[0])


def test_a_cost_is_never_passed(world: World) -> None:
    with pytest.raises(UnavailableError, match=r"20 calls cost 2\.00 USD, and one more would exceed limits\.max_cost"):
        world.audit("far", world.describe('price = 0.1\ncurrency = "USD"\nmax_cost = 2.0'))
    assert len(world.server.seen) == 20


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_service_that_begins_to_refuse_stops_the_audit_and_what_it_answered_is_kept(
    world: World, whole: tuple[Run, int], status: int
) -> None:
    stop = Stop(world.server, 30, lambda _: answered({}, status))
    with pytest.raises(UnavailableError, match=str(status)):
        world.audit("far", world.describe())
    stop.undo()
    far = world.audit("far", world.describe())
    assert same_report(far, whole[0])


def test_an_audit_killed_three_times_makes_each_call_once(world: World, whole: tuple[Run, int]) -> None:
    """A call that is under way when the process dies is lost; all others were kept."""
    remote = world.describe("concurrency = 2")
    needed = whole[1]
    run = world.folder / world.runs / "far"
    command = [
        sys.executable, ROOT / "cli.py", "audit", "--remote", remote, "--pairs", world.folder, "--limit", "12",
        "--attacks", ",".join(ATTACKS), *(f"--set={s}" for s in SETTINGS), "--run", run, "--quiet",
        "--provider", "cpu", "--threads", "1",
    ]  # fmt: skip
    for kill in (needed // 4, needed // 2, 3 * needed // 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def die(_: Seen, process: subprocess.Popen[bytes] = process) -> Answer:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return answered({}, 503)

        stop = Stop(world.server, kill - len([s for s in world.server.seen if s.path == INFER]), die)
        assert process.wait(120) == -signal.SIGKILL
        stop.undo()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert same_report(read_run(run), whole[0])
    in_flight = 3 * 2 * 4  # of each kill, two calls of four crops
    assert asked_twice(world.server, run / LEDGER) <= in_flight


@dataclass
class Comparing:
    """A JSON service that compares two photographs by the verifier's own distance. It finds no face in a black one."""

    weights: Any
    threshold: float
    different: Counter[bytes] = field(default_factory=Counter)
    calls: int = 0

    def __call__(self, seen: Seen) -> Answer:
        self.calls += 1
        probe, reference = (self.image(seen.document[key]) for key in ("probe", "reference"))
        if not probe.any() or not reference.any():
            return answered({"error": "no face"}, 422)
        d = float(np.linalg.norm((probe.ravel() / 255.0 - reference.ravel() / 255.0) @ self.weights))
        if d >= self.threshold:
            self.different[reference.tobytes()] += 1
        return answered({"distance": d, "same": d < self.threshold})

    def image(self, text: str) -> Any:
        content = np.frombuffer(base64.b64decode(text), np.uint8)
        return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


@pytest.fixture
def comparing(world: World) -> Iterator[tuple[World, Comparing]]:
    model = onnx.load(world.model)
    weights = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.dims[0] == SIDE * SIDE * 3)
    service = Comparing(weights, read_manifest(world.model).decision.threshold)
    with serving(service) as server:
        yield replace(world, server=server), service


def describe_json(world: World, answer: str, limits: str = "", name: str = "json.toml") -> Path:
    path = world.folder / name
    path.write_text(
        f'schema = 1\nkind = "json"\nname = "far"\nurl = "{world.server.url}"\n[request]\npath = "/compare"\n'
        f'body = "json"\nimage = "base64"\nprobe = "/probe"\nreference = "/reference"\n[answer]\n{answer}\n'
        f"no_face = [{{ status = 422 }}]\n[input]\nwidth = {SIDE}\nheight = {SIDE}\n"
        f"[limits]\ncalls_per_second = 10000\nmax_calls = 100000\n{limits}\n"
    )
    return path


DISTANCE = 'distance = "/distance"\nrange = [0, 1]\nthreshold = 0.12'
DECISION = 'decision = "/same"'


def test_what_a_service_answers_decides_which_attacks_run(comparing: tuple[World, Comparing]) -> None:
    world, _ = comparing
    graded = world.audit("graded", describe_json(world, DISTANCE))
    alone = world.audit("alone", describe_json(world, DECISION))
    assert {s.attack for s in graded.assessment.scenarios} == set(ATTACKS)
    assert {s.attack for s in alone.assessment.scenarios} == {"gaussian", "cgba"}
    [missing] = alone.assessment.unavailable
    assert (missing.attack, alone.assessment.complete) == ("square", False)
    assert "gives the decision alone" in missing.reason
    # Attacks that see decisions only find the same through both.
    by_decisions = [[s for s in scenarios(run) if s[0] != "square"] for run in (graded, alone)]
    assert by_decisions[0] == by_decisions[1]
    assert any(s.asr.successes for s in graded.assessment.scenarios if s.attack == "cgba")


def test_probes_that_a_service_of_photographs_gets_are_the_8_bit_ones(comparing: tuple[World, Comparing]) -> None:
    world, service = comparing
    run = world.audit("far", describe_json(world, DISTANCE), attacks=("gaussian",), settings=("gaussian.draws=2",))
    near = world.audit("near", attacks=("gaussian",), settings=("gaussian.draws=2",))
    assert [s.asr for s in run.assessment.scenarios] == [s.asr for s in near.assessment.scenarios]
    np.testing.assert_allclose(run.clean[0].distances, near.clean[0].distances, atol=1e-6)
    assert service.calls == len(world.server.seen)


def test_nobody_is_locked_out(comparing: tuple[World, Comparing]) -> None:
    world, service = comparing
    free = world.audit("free", describe_json(world, DISTANCE))
    assert max(service.different.values()) > 20
    service.different.clear()
    locked = world.audit("locked", describe_json(world, DISTANCE, "lockout = 12\nconcurrency = 4"))
    canaries = 6 * 2  # the stranger is asked in every check
    assert sorted(service.different.values())[-2] <= 12
    assert max(service.different.values()) <= 12 + canaries + 8
    assert locked.assessment.service.requests < free.assessment.service.requests


def test_pairs_without_a_face_are_left_out_with_the_reason(comparing: tuple[World, Comparing]) -> None:
    world, _ = comparing
    black = world.folder / "c" / "3.png"
    content = black.read_bytes()
    cv2.imwrite(str(black), np.zeros((SIDE, SIDE, 3), np.uint8))
    try:
        run = world.audit("far", describe_json(world, DISTANCE), attacks=("gaussian",), settings=())
    finally:
        black.write_bytes(content)
    assert run.assessment.left_out
    assert all("c/3.png" in line and "finds no face" in line for line in run.assessment.left_out)
    assert run.assessment.genuine + run.assessment.impostor == 12 - len(run.assessment.left_out)


def test_attacks_by_gradients_are_crafted_on_a_local_verifier_and_transferred(world: World) -> None:
    attacks, settings = ("fgsm", "momentum-l2", "gaussian"), ("momentum-l2.epsilon=8.0",)
    alone = world.audit("alone", world.describe(), attacks=attacks, settings=settings)
    assert {u.attack for u in alone.assessment.unavailable} == {"fgsm", "momentum-l2"}
    assert all("--source" in u.reason for u in alone.assessment.unavailable)
    far = world.audit("far", world.describe(), attacks=attacks, settings=settings, sources=(str(world.model),))
    found = {(s.attack, s.goal): s for s in far.assessment.scenarios}
    assert {(s.knowledge, s.known) for s in found.values() if s.attack != "gaussian"} == {("zero", "linear")}
    near = world.audit("near", attacks=("momentum-l2",), settings=settings)
    for s in near.assessment.scenarios:  # the service runs the very model that the probes were crafted on
        assert found[s.attack, s.goal].asr == s.asr
        assert s.asr.successes
    assert far.assessment.service.sources == ("linear",)
    assert far.assessment.target.gradients_from == "linear"
    assert far.assessment.complete


def test_a_plan_calls_nobody_and_counts_enough_calls(world: World, whole: tuple[Run, int]) -> None:
    planned = plan_service_audit(world.options("far", world.describe("price = 0.01\ncurrency = 'EUR'")))
    assert not world.server.seen
    assert whole[1] <= planned.calls
    assert planned.calls <= 4 * whole[1], "the bound is of some use"
    assert planned.cost == f"{planned.calls * 0.01:.2f} EUR"
    assert planned.seconds == planned.calls / 10000
    assert planned.fits
    arguments = ["audit", "--remote", world.describe(), "--pairs", world.folder, "--limit", "12", "--dry-run"]
    shown = sixpixels(*arguments, "--attacks", ",".join(ATTACKS), *(f"--set={s}" for s in SETTINGS)).stdout
    assert re.search(rf"all\s+{planned.calls:,}\b", shown), shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not world.server.seen


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "facenet-mini.onnx"}, "--model and --remote exclude"),
        ({"profiles": ("mean3",)}, "--profiles and --remote exclude"),
        ({"group": 3}, "--group and --remote exclude"),
        ({"certify": (0.1,)}, "--certify and --remote exclude"),
        ({"workers": "2"}, "--workers and --remote exclude"),
        ({"suite": "paper"}, "--suite paper and --remote exclude"),
    ],
)
def test_what_does_not_fit_to_a_service_is_refused(world: World, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        audit_verifier(AuditOptions(remote=world.describe(), pairs=world.folder, **more))
    assert not world.server.seen


def test_local_verifiers_to_craft_on_need_a_service(world: World) -> None:
    with pytest.raises(UsageError, match="--source works only with --remote"):
        audit_verifier(AuditOptions(model=str(world.model), pairs=world.folder, sources=("facenet-mini",)))


def test_the_report_names_the_service_and_a_replay_of_its_run_is_refused(world: World, whole: tuple[Run, int]) -> None:
    done = sixpixels("report", whole[0].folder)
    assert done.returncode == 0, done.stderr
    assert "embedding, to" in done.stdout
    assert "/v2/models/linear" in re.sub(r"\s", "", done.stdout)
    refused(sixpixels("replay", whole[0].folder, "--on", world.model), "this run attacked a service")
