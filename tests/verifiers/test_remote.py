"""Remote verifiers against real local servers: the same numbers as here, and no fault that goes unnoticed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import write_linear
from tests.servers import Answer, Rekognition, Server, Triton, answered, aws_error, serving
from tests.verifiers.remotes import Asked, Time, connect
from toolkit.attacks.base import Task
from toolkit.attacks.gaussian import Gaussian
from toolkit.errors import InputError, UnavailableError
from toolkit.faces.crops import crop_pairs
from toolkit.faces.pairs import embedded_pairs, load_pairs
from toolkit.pixels import to_unit
from toolkit.verifiers.manifest import find_manifest, read_manifest
from toolkit.verifiers.remote import exchange
from toolkit.verifiers.remote.calls import TokenBucket
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.limits import Limits
from toolkit.verifiers.runtime import Execution, RuntimeVerifier
from toolkit.verifiers.scores import distances

SIDE = 16
CPU = Execution("cpu", threads=1)
INPUT = f"""\
name = "input"
height = {SIDE}
width = {SIDE}
layout = "NCHW"
channels = "BGR"
range = [0, 255]
mean = [1, 2, 3]"""
OUTPUT = 'name = "embedding"\nsize = 2\nnormalize = false'
DECISION = 'metric = "euclidean"\nthreshold = 0.1\nmaximum = 1.0'


def describe(
    folder: Path,
    url: str,
    *,
    top: str = 'model = "linear"\nbatch = 3',
    input_: str = INPUT,
    output: str = OUTPUT,
    decision: str = DECISION,
    limits: str = "calls_per_second = 1000\nmax_calls = 1000\ntimeout = 5\nretries = 2",
    more: str = "",
) -> Path:
    path = folder / "remote.toml"
    path.write_text(
        f'schema = 1\nkind = "open-inference"\nname = "far"\nurl = "{url}"\n{top}\n[input]\n{input_}\n'
        f"[output]\n{output}\n[decision]\n{decision}\n[limits]\n{limits}\n{more}\n"
    )
    return path


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, 2)) / 1000
    more = {"layout": "NCHW", "channels": "BGR", "range": [0, 255], "mean": [1, 2, 3]}
    return write_linear(tmp_path, weights=weights, side=SIDE, threshold=0.1, **more)


@pytest.fixture
def triton(linear: Path) -> Iterator[Server]:
    with serving(Triton(linear, "linear")) as server:
        yield server


def crops(count: int = 7, seed: int = 1) -> Any:
    return to_unit(np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8))


def test_remote_distances_of_a_real_verifier_are_the_local_ones(tmp_path: Path) -> None:
    manifest = find_manifest("facenet-mini")
    text = manifest.path.read_text()
    tables = text[text.index("[input]") :]
    pairs = load_pairs(embedded_pairs(), limit=4)
    spec = manifest.input
    set_ = crop_pairs(pairs, spec.width, spec.height, manifest.alignment.template)
    with serving(Triton(manifest.model, "mini")) as server:
        path = tmp_path / "remote.toml"
        path.write_text(
            f'schema = 1\nkind = "open-inference"\nname = "far"\nurl = "{server.url}/"\nmodel = "mini"\nbatch = 3\n'
            f"{tables}\n[limits]\ncalls_per_second = 100\nmax_calls = 20\n"
        )
        remote = connect(path)
        far = remote.embed(to_unit(set_.images))
    near = RuntimeVerifier(manifest, execution=CPU).embed(to_unit(set_.images))
    assert np.linalg.norm(far, axis=1) == pytest.approx(1, abs=1e-5), "normalized as the file says"
    both = [distances(manifest.decision.metric, e[set_.index[:, 0]], e[set_.index[:, 1]]) for e in (far, near)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert remote.caller.calls == 2 + -(-len(set_.images) // 3)


def test_layout_channels_and_range_are_those_of_the_file(linear: Path, triton: Server, tmp_path: Path) -> None:
    far = connect(describe(tmp_path, triton.url))
    near = RuntimeVerifier(read_manifest(linear), execution=CPU)
    np.testing.assert_array_equal(far.embed(crops()), near.embed(crops()))
    assert far.embed(crops(0)).shape == (0, 2)
    with pytest.raises(InputError, match=r"takes \(N, 16, 16, 3\)"):
        far.embed(crops()[:, :8])
    for count in (0, 4):
        with pytest.raises(InputError, match=f"takes 1 to 3 crops in one call, not {count}"):
            far.service.embeddings(crops(count))


def test_an_attack_on_the_runtime_alone_can_be_made_on_it(linear: Path, triton: Server, tmp_path: Path) -> None:
    far, near = connect(describe(tmp_path, triton.url)), RuntimeVerifier(read_manifest(linear), execution=CPU)
    decision = near.manifest.decision

    def task() -> Task:
        generators = tuple(np.random.default_rng(i) for i in range(3))
        return Task(crops(3), near.embed(crops(3)), np.ones(3, np.bool_), decision, generators)

    attack = Gaussian(levels=5, draws=1)
    np.testing.assert_array_equal(attack.craft(far, task()).probes8, attack.craft(near, task()).probes8)
    assert attack.craft(far, task()).success8.all()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_server_with_a_fixed_batch_gets_full_ones(tmp_path: Path, batch: int) -> None:
    weights = np.ones((SIDE * SIDE * 3, 2)) / 1000
    path = write_linear(tmp_path, weights=weights, side=SIDE, batch=batch, layout="NCHW")
    with serving(Triton(path, "linear")) as server:
        found = connect(describe(tmp_path, server.url)).embed(crops(7))
        assert {s.document["inputs"][0]["shape"][0] for s in server.seen if s.document} == {batch}
    assert found.shape == (7, 2)


def output(**changes: Any) -> Answer:
    tensor = {"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 0.2], **changes}
    return answered({"outputs": [{key: value for key, value in tensor.items() if value is not None}]})


NONSENSE: dict[str, tuple[Answer, str]] = {
    "no JSON": ((200, {}, b"<html>\x1b[31mred"), "is not JSON"),
    "a list": (answered([1, 2]), "not a JSON object"),
    "nothing": ((200, {}, b""), "is not JSON"),
    "deep": ((200, {}, b"[" * 200_000), "is not JSON|not a JSON object"),
    "no outputs": (answered({"outputs": {"embedding": []}}), "no list of outputs"),
    "another output": (output(name="logits"), "answers"),
    "another type": (output(datatype="INT8"), "INT8"),
    "another shape": (output(shape=[2, 2]), "answers"),
    "too few numbers": (output(data=[0.1]), "numbers"),
    "too many numbers": (output(data=[0.1] * 3), "numbers"),
    "no data": (output(data=None), "numbers"),
    "texts": (output(data=["1", "2"]), "numbers"),
    "ragged": (output(data=[[1.0], [1.0, 2.0]]), "numbers"),
    "booleans": (output(data=[True, False]), "numbers"),
    "NaN": (output(data=[0.1, float("nan")]), "must be finite"),
    "infinite": (output(data=[0.1, float("-inf")]), "must be finite"),
    "beyond float32": (output(data=[0.1, 1e300]), "beyond float32"),
    "huge integer": (output(data=[1, 10**400]), "at most 64 bits"),
    "long texts": (output(data=["x" * 60_000] + ["y"] * 100_000), "numbers"),
    "tables": (output(data=[{}, {}]), "numbers"),
    "rows that do not fit": (output(data=[[0.1], [0.2]]), "numbers"),
    "a long shape": (output(shape=[1] * 100_000), "answers"),
    "an integer of 5,000 digits": ((200, {}, b'{"outputs": [' + b"1" * 5000 + b"]}"), "is not JSON"),
    "control characters": (output(datatype="\x1b[31m\u202eFP32"), "answers"),
    "an error": (answered({"error": "out of memory"}, 400), "out of memory"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_and_not_asked_for_again(triton: Server, tmp_path: Path, name: str) -> None:
    answer, message = NONSENSE[name]
    far = connect(describe(tmp_path, triton.url))
    triton.faults = [answer]
    with pytest.raises(InputError, match=message) as caught:
        far.embed(crops(1))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert far.caller.calls == 3
    assert far.embed(crops(1)).shape == (1, 2), "and the verifier is as good as before"


def test_a_body_that_is_announced_too_large_is_not_read(triton: Server, tmp_path: Path) -> None:
    far = connect(describe(tmp_path, triton.url))
    triton.faults = [(200, {"Content-Length": str(exchange.LARGEST_ANSWER + 1)}, b"")]
    begun = time.monotonic()
    with pytest.raises(InputError, match="at most"):
        far.embed(crops(1))
    assert time.monotonic() - begun < 3, "it would wait for the body until the timeout"


def test_a_body_without_an_announced_size_is_cut_off(
    triton: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LARGEST_ANSWER", 100_000)
    far = connect(describe(tmp_path, triton.url))

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 10_000)

    triton.faults = [endless]
    with pytest.raises(InputError, match="more than 100000 bytes"):
        far.embed(crops(1))


def silent(handler: Any) -> None:
    time.sleep(1.5)


def dripping(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(30):
        time.sleep(0.05)
        handler.wfile.write(b" ")


def broken(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"outputs"')


def hung_up(handler: Any) -> None:
    handler.connection.close()


@pytest.mark.parametrize("fault", [silent, dripping, broken, hung_up])
def test_no_answer_is_asked_for_again_and_then_reported(
    triton: Server, tmp_path: Path, fault: Callable[[Any], None]
) -> None:
    limits = "calls_per_second = 1000\nmax_calls = 1000\ntimeout = 0.4\nretries = 1"
    far = connect(describe(tmp_path, triton.url, limits=limits))
    triton.faults = [fault]
    assert far.embed(crops(1)).shape == (1, 2)
    triton.faults = [fault, fault]
    with pytest.raises(UnavailableError, match=r"remote\.toml: no answer from .*, after 2 attempts"):
        far.embed(crops(1))
    assert far.caller.calls == 2 + 2 + 2


def test_a_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9.*after 3 attempts"):
        connect(describe(tmp_path, "http://127.0.0.1:9"))


def test_pauses_double_are_spread_and_honor_what_the_server_asks(triton: Server, tmp_path: Path) -> None:
    time_ = Time()
    far = connect(describe(tmp_path, triton.url), time_)
    del time_.slept[:]
    triton.faults = [answered({}, 500), answered({}, 503)]
    far.embed(crops(1))
    pauses = [pause for pause in time_.slept if pause > 0.01]
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0
    date = formatdate(time.time() + 60, usegmt=True)
    for header, low, high in (("7", 7, 7), (date, 50, 60), ("soon", 0.25, 0.5), ("0", 0.25, 0.5)):
        del time_.slept[:]
        triton.faults = [answered({}, 429, Retry_After=header)]
        far.embed(crops(1))
        assert low <= max(time_.slept) <= high, header
    triton.faults = [answered({}, 429, Retry_After="86400")]
    with pytest.raises(UnavailableError, match="asks to wait 86400 s"):
        far.embed(crops(1))
    triton.faults = [answered({}, 502)] * 3
    with pytest.raises(UnavailableError, match="says 502, after 3 attempts"):
        far.embed(crops(1))


def test_calls_are_counted_and_end(triton: Server, tmp_path: Path) -> None:
    limits = "calls_per_second = 1000\nmax_calls = 4\nretries = 2"
    far = connect(describe(tmp_path, triton.url, limits=limits))
    triton.faults = [answered({}, 500)]
    far.embed(crops(1))
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"4 calls of limits\.max_calls are used up"):
            far.embed(crops(1))
    assert len(triton.seen) == far.caller.calls == 4


def test_a_rate_is_held_over_any_time() -> None:
    time_ = Time()
    bucket = TokenBucket(4.0, clock=time_.clock, sleep=time_.sleep)
    begun = []
    for i in range(12):
        bucket.take()
        begun.append(time_.now)
        time_.now += 5.0 if i == 5 else 0.01  # idle time is no credit
    gaps = np.diff(begun)
    assert gaps[5] == pytest.approx(5.0)
    np.testing.assert_allclose(np.delete(gaps, 5), 0.25, atol=1e-6)
    burst = TokenBucket(1.0, 3, time_.clock, time_.sleep)
    del time_.slept[:]
    for _ in range(3):
        burst.take()
    assert not time_.slept


def test_a_redirect_is_refused_and_nobody_else_hears_of_it(
    linear: Path, triton: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_TOKEN", "secret")
    far = connect(describe(tmp_path, triton.url, top='model = "linear"\ntoken_env = "FAR_TOKEN"'))
    with serving(Triton(linear, "linear")) as other:
        for status in (301, 302, 303, 307, 308):
            triton.faults = [(status, {"Location": f"{other.url}/v2/models/linear/infer"}, b"")]
            with pytest.raises(InputError, match=rf"redirects \({status}\)"):
                far.embed(crops(1))
        assert not other.seen


def test_a_token_comes_from_the_environment_and_stays_secret(
    triton: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = describe(tmp_path, triton.url, top='model = "linear"\ntoken_env = "FAR_TOKEN"')
    monkeypatch.delenv("FAR_TOKEN", raising=False)
    with pytest.raises(UnavailableError, match="token_env names FAR_TOKEN, which is not set"):
        connect(path)
    monkeypatch.setenv("FAR_TOKEN", "se\ncret")
    with pytest.raises(InputError, match="FAR_TOKEN") as caught:
        connect(path)
    assert "cret" not in str(caught.value)
    assert not triton.seen
    monkeypatch.setenv("FAR_TOKEN", "secret")
    far = connect(path)
    assert {seen.headers["Authorization"] for seen in triton.seen} == {"Bearer secret"}
    triton.faults = [answered({"error": "no"}, 401)]
    with pytest.raises(UnavailableError, match=r"denies access \(401\)") as caught:
        far.embed(crops(1))
    assert "secret" not in str(caught.value)


def edit(key: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata[key][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("inputs", name="x"), r"inputs are \['x'\]"),
        (edit("inputs", shape=[-1, SIDE, SIDE, 3]), "shape"),
        (edit("inputs", shape=[3, SIDE, SIDE]), "shape"),
        (edit("inputs", shape="any"), "shape"),
        (edit("inputs", shape=[True, 3, SIDE, SIDE]), "shape"),
        (edit("inputs", shape=[10**9, 3, SIDE, SIDE]), "shape"),
        (edit("inputs", shape=[10**400, 3, SIDE, SIDE]), "shape"),
        (edit("inputs", shape=[0, 3, SIDE, SIDE]), "shape"),
        (edit("inputs", datatype="UINT8"), "UINT8"),
        (edit("outputs", name="logits"), "no output 'embedding'"),
        (edit("outputs", shape=[-1, 512]), "shape"),
        (lambda metadata: metadata.update(name="another"), "describes 'another', not 'linear'"),
        (lambda metadata: metadata.pop("inputs"), "no list of inputs"),
        (lambda metadata: metadata.update(outputs=["embedding"]), "no list of outputs"),
    ],
)
def test_another_model_than_the_file_says_is_refused(
    linear: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with serving(Triton(linear, "linear", change)) as server:
        with pytest.raises(InputError, match=message):
            connect(describe(tmp_path, server.url))
        assert not any(seen.document for seen in server.seen), "no face was sent"


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata, token: metadata.update(name=token),
        lambda metadata, token: metadata["inputs"][0].update(name=[token]),
        lambda metadata, token: metadata["inputs"][0].update(datatype=token),
        lambda metadata, token: metadata["inputs"][0].update(shape=[token, {token: 1}]),
    ],
)
def test_a_server_that_describes_its_model_with_the_token_does_not_make_it_visible(
    linear: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any], str], None]
) -> None:
    monkeypatch.setenv("FAR_TOKEN", "s3cret-t0ken")
    with serving(Triton(linear, "linear", lambda metadata: change(metadata, "s3cret-t0ken"))) as server:
        with pytest.raises(InputError, match=r"\[hidden\]") as caught:
            connect(describe(tmp_path, server.url, top='model = "linear"\ntoken_env = "FAR_TOKEN"'))
        assert "s3cret" not in str(caught.value)


def test_a_model_that_is_not_there_and_a_server_that_is_not_ready(triton: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"says 404 \(.*no model"):
        connect(describe(tmp_path, triton.url, top='model = "../other"\nversion = "2"'))
    assert triton.seen[-1].path == "/v2/models/..%2Fother/versions/2", "a name cannot leave its place in the address"
    for status in (400, 503):
        triton.faults = [answered({}, status)] * 3
        with pytest.raises(UnavailableError, match=r"not ready.*after 3 attempts"):
            connect(describe(tmp_path, triton.url))
    triton.faults = [answered({}, 403)]
    with pytest.raises(UnavailableError, match=r"denies access \(403\)"):
        connect(describe(tmp_path, triton.url))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "http://example.org"}, r"url sends faces to example\.org without encryption"),
        ({"url": "ftp://example.org"}, "url must start with https"),
        ({"url": "https://"}, "url must start with https"),
        ({"url": "https://me:word@example.org"}, "url must have no user"),
        ({"url": "https://example.org/?key=1"}, "url must have no user"),
        ({"url": "https://example.org:port"}, "url is not a valid address"),
        ({"top": ""}, "model is missing"),
        ({"top": 'model = " "'}, "model is empty"),
        ({"top": 'model = "m"\nbatch = 0'}, "batch must be from 1 to 256"),
        ({"top": 'model = "m"\ntoken = "secret"'}, "token is not a known key"),
        ({"limits": "max_calls = 5"}, "limits.calls_per_second is missing"),
        ({"limits": "calls_per_second = 1"}, "limits.max_calls is missing"),
        ({"limits": "calls_per_second = 0\nmax_calls = 5"}, "limits.calls_per_second must be from"),
        ({"limits": "calls_per_second = 1\nmax_calls = 5\nretries = 99"}, "limits.retries must be from 0 to 10"),
        ({"limits": "calls_per_second = 1\nmax_calls = 5\nburst = 9"}, "limits.burst is not a known key"),
        ({"decision": 'metric = "l2"\nthreshold = 1\nmaximum = 2'}, "decision.metric must be one of"),
        ({"more": "[alignment]\ntemplate = [[1, 2]]"}, "alignment.template must be five"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = describe(tmp_path, **{"url": "https://example.org", **change})
    with pytest.raises(InputError, match=rf"remote\.toml: {message}"):
        read_remote(path)


@pytest.mark.parametrize(
    "url", ["https://example.org/prefix/", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9"]
)
def test_faces_go_over_https_or_stay_here(tmp_path: Path, url: str) -> None:
    remote = read_remote(describe(tmp_path, url))
    assert remote.url == url.rstrip("/")
    assert read_remote(describe(tmp_path, "http://example.org", top='model = "m"\nallow_http = true')).name == "far"


def rekognition(folder: Path, url: str, retries: int = 2, max_calls: int = 100, time_: Time | None = None) -> Asked:
    path = folder / "remote.toml"
    path.write_text(
        f'schema = 1\nkind = "rekognition"\nname = "amazon"\nregion = "eu-west-1"\nurl = "{url}"\nthreshold = 90\n'
        f"[input]\nwidth = {SIDE}\nheight = {SIDE}\n"
        f"[limits]\ncalls_per_second = 1000\nmax_calls = {max_calls}\nretries = {retries}\ntimeout = 2"
    )
    return connect(path, time_)


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    for key, value in (
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none")),
    ):
        monkeypatch.setenv(key, value)
    with serving(Rekognition()) as server:
        yield server


def flat(*levels: int) -> Any:
    return np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels])


def test_similarities_are_the_services_and_crops_arrive_without_loss(amazon: Server, tmp_path: Path) -> None:
    verifier = rekognition(tmp_path, amazon.url)
    probes = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    found = verifier.compare(np.concatenate([probes, flat(100)]), flat(50, 85))
    assert found[1] == 100 - 85
    source, target = amazon.answer.images[:2]
    np.testing.assert_array_equal(source, flat(50)[0])
    np.testing.assert_array_equal(target, probes[0])


def test_no_face_fails_its_pair_alone(amazon: Server, tmp_path: Path) -> None:
    verifier = rekognition(tmp_path, amazon.url)
    found = verifier.compare(flat(0, 100, 100), flat(100, 0, 100))
    np.testing.assert_array_equal(found, [np.nan, np.nan, 0])
    assert verifier.caller.calls == len(amazon.seen) == 3, "and is not asked for again"


def test_throttling_is_waited_for_and_every_call_is_counted(amazon: Server, tmp_path: Path) -> None:
    verifier = rekognition(tmp_path, amazon.url, max_calls=6)
    amazon.faults = [aws_error("ThrottlingException", "slow down"), aws_error("InternalServerError", "oops", 500)]
    assert verifier.compare(flat(100), flat(100)) == [0]
    amazon.faults = [aws_error("ProvisionedThroughputExceededException", "slow down")] * 3
    with pytest.raises(UnavailableError, match=r"slow down.*after 3 attempts"):
        verifier.compare(flat(101), flat(100))
    with pytest.raises(UnavailableError, match="used up"):
        verifier.compare(flat(102), flat(100))
    assert verifier.caller.calls == len(amazon.seen) == 6


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (aws_error("AccessDeniedException", "not you"), UnavailableError, "denies access"),
        (aws_error("ImageTooLargeException", "too large"), InputError, "rejects the request"),
        ((200, {}, b"<html>"), InputError, "Rekognition"),
        (answered({"FaceMatches": [{"Similarity": 250.0}]}), InputError, "between 0 and 100"),
        (answered({"FaceMatches": [{"Similarity": float("nan")}]}), InputError, "must be finite"),
        (answered({"FaceMatches": [{}]}), InputError, "between 0 and 100"),
        (answered({"FaceMatches": [{"Similarity": 10**400}]}), InputError, "at most 64 bits"),
        (answered({"FaceMatches": [{"Similarity": True}]}), InputError, "between 0 and 100"),
        (answered({"FaceMatches": [[]]}), InputError, "between 0 and 100"),
        (answered({"FaceMatches": {"Similarity": 1}}), InputError, "without faces"),
        (answered({"FaceMatches": ["x" * 10_000] * 3}), InputError, "between 0 and 100"),
        (answered({"__type": ["x"]}, 400), InputError, "rejects the request"),
        (answered([], 418), InputError, "rejects the request"),
        ((302, {"Location": "http://169.254.169.254/"}, b""), InputError, r"redirects \(302\)"),
        (aws_error("com.amazonaws#AccessDeniedException", "not you"), UnavailableError, "denies access"),
    ],
)
def test_refusals_and_nonsense_of_the_service(
    amazon: Server, tmp_path: Path, answer: Answer, error: type[Exception], message: str
) -> None:
    verifier = rekognition(tmp_path, amazon.url)
    amazon.faults = [answer]
    with pytest.raises(error, match=message):
        verifier.compare(flat(100), flat(100))
    assert verifier.caller.calls == 1


def test_requests_are_signed_and_the_signature_stays_secret(
    amazon: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEBYaD==")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    seen: list[Any] = []

    def echo(handler: Any) -> None:
        length = int(handler.headers["Content-Length"])
        seen.append(dict(handler.headers))
        text = json.dumps([seen[-1], "wJalrXUtnFEMI/K7MDENG", length]).encode()
        handler.send_response(400)
        handler.end_headers()
        handler.wfile.write(b"." * 60 + text[text.index(b'"Authorization"') :])

    verifier = rekognition(tmp_path, amazon.url)
    amazon.faults = [echo]
    with pytest.raises(InputError, match=r"rejects the request .*\[hidden\]") as caught:
        verifier.compare(flat(100), flat(100))
    headers, shown = seen[0], str(caught.value)
    given = dict(part.split("=", 1) for part in headers["Authorization"].split(" ", 1)[1].split(", "))
    signature, names = given["Signature"], given["SignedHeaders"].split(";")
    assert not [s for s in (signature, "AKIDEXAMPLE", "wJalr", "FwoGZ", signature[:16], signature[-16:]) if s in shown]
    request = AWSRequest(
        "POST",
        f"{amazon.url}/",
        {name: headers[next(h for h in headers if h.lower() == name)] for name in names},
        json.dumps(amazon.seen[-1].document).encode(),
    )
    request.context["timestamp"] = headers["X-Amz-Date"]
    auth = SigV4Auth(
        Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "FwoGZXIvYXdzEBYaD=="), "rekognition", "eu-west-1"
    )
    assert {"host", "x-amz-date", "x-amz-security-token", "x-amz-target"} <= set(names)
    assert auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request) == signature


def test_a_service_that_drips_is_given_up_at_the_timeout(amazon: Server, tmp_path: Path) -> None:
    def continues(handler: Any) -> None:
        for _ in range(100):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\nX-More: 1\r\n")
            time.sleep(0.05)

    verifier = rekognition(tmp_path, amazon.url, retries=0)
    amazon.faults = [continues]
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match=r"no answer from .* in 2 s"):
        verifier.compare(flat(100), flat(100))
    assert time.monotonic() - begun < 3


def test_a_service_that_hangs_and_credentials_that_are_missing(
    amazon: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = rekognition(tmp_path, "http://127.0.0.1:9", retries=1)
    with pytest.raises(UnavailableError, match=r"no answer from http://127.*after 2 attempts"):
        verifier.compare(flat(100), flat(100))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UnavailableError, match="needs credentials"):
        rekognition(tmp_path, amazon.url).compare(flat(100), flat(100))
    assert not amazon.seen


def test_the_examples_of_the_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "remote.md").read_text()
    examples = [block for block in page.split("```") if block.startswith("toml\nschema = 1\nkind")]
    assert len(examples) == 3
    for example in examples:
        (tmp_path / "remote.toml").write_text(example.removeprefix("toml\n"))
        assert read_remote(tmp_path / "remote.toml").limits.max_calls == 1000


def test_limits_are_what_the_file_says(tmp_path: Path) -> None:
    remote = read_remote(describe(tmp_path, "https://example.org", limits="calls_per_second = 2\nmax_calls = 5"))
    assert remote.limits == Limits(2.0, 5, 10.0, 4)
