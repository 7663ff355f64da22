"""Servers of gRPC that refuse, flood, hang and echo: each call ends in time, with one line, and keeps its token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.certificates import Certificates, make_certificates
from tests.servers import dripped, raw_serving
from tests.verifiers.remotes import connect
from toolkit.errors import InputError, SixpixelsError, UnavailableError
from toolkit.verifiers.remote import messages
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import read_remote

TOKEN = "s3cret-t0ken-of-gRPC"
SIDE = 16
TENSOR = {"name": "input", "datatype": "FP32", "shape": [-1, SIDE, SIDE, 3]}
Answer = Callable[[bytes, Any], bytes]


def message(kind: str, /, **fields: Any) -> bytes:
    return messages._classes()[kind](**fields).SerializeToString()


def model(**changes: Any) -> bytes:
    outputs = [{"name": "embedding", "datatype": "FP32", "shape": [-1, 2]}]
    return message("ModelMetadataResponse", **{"name": "m", "inputs": [TENSOR], "outputs": outputs, **changes})


def inferred(*, raw: list[bytes] | None = None, **changes: Any) -> bytes:
    tensor = {"name": "embedding", "datatype": "FP32", "shape": [1, 2], **changes}
    return message("ModelInferResponse", outputs=[tensor], raw_output_contents=raw or [])


FLOATS = np.array([0.25, -1], "<f4").tobytes()


class Handler(grpc.GenericRpcHandler):
    """Answers each method with bytes or by a function of the request and its context."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.seen = answers, []

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]

        def answer(request: bytes, context: Any) -> bytes:
            self.seen.append((method, dict(context.invocation_metadata())))
            given = self.answers[method]
            return given(request, context) if callable(given) else given

        return grpc.unary_unary_rpc_method_handler(answer)


def answers(**changes: Any) -> dict[str, Any]:
    usual = {"ServerReady": message("ServerReadyResponse", ready=True), "ModelMetadata": model()}
    return {**usual, "ModelInfer": inferred(raw=[FLOATS]), **changes}


@contextmanager
def serving(given: dict[str, Any], credentials: Any = None, **more: Any) -> Iterator[tuple[str, Handler]]:
    handler = Handler(given)
    server = grpc.server(ThreadPoolExecutor(4), [handler], options=[("grpc.max_send_message_length", -1)], **more)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"http{'' if credentials is None else 's'}://127.0.0.1:{port}", handler
    finally:
        server.stop(None)


def describe(folder: Path, url: str, *, top: str = 'token_env = "FAR_TOKEN"', timeout: float = 5) -> Path:
    path = folder / "remote.toml"
    path.write_text(
        f'schema = 1\nkind = "open-inference"\nprotocol = "grpc"\nname = "far"\nurl = "{url}"\nmodel = "m"\n{top}\n'
        f'[input]\nname = "input"\nheight = {SIDE}\nwidth = {SIDE}\nlayout = "NHWC"\nchannels = "RGB"\nrange = [0, 1]\n'
        '[output]\nname = "embedding"\nsize = 2\nnormalize = false\n'
        '[decision]\nmetric = "euclidean"\nthreshold = 0.1\nmaximum = 1.0\n'
        f"[limits]\ncalls_per_second = 1000\nmax_calls = 100\ntimeout = {timeout}\nretries = 0\n"
    )
    return path


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_TOKEN", TOKEN)


CROP = np.zeros((1, SIDE, SIDE, 3), np.float32)


def check_line(error: BaseException) -> None:
    text = str(error)
    assert text.isprintable()
    assert len(text) < 600
    assert TOKEN[:8] not in text
    assert error.__context__ is None or TOKEN[:8] not in str(error.__context__), "a traceback would show it"


def test_both_forms_of_numbers_are_read_and_the_token_is_sent(tmp_path: Path) -> None:
    listed = inferred(contents={"fp32_contents": [0.25, -1]})
    for given in (listed, inferred(raw=[FLOATS])):
        with serving(answers(ModelInfer=given)) as (url, handler):
            found = connect(describe(tmp_path, url)).embed(CROP)
        np.testing.assert_array_equal(found, [[0.25, -1]])
        assert [method for method, _ in handler.seen] == ["ServerReady", "ModelMetadata", "ModelInfer"]
        assert {metadata["authorization"] for _, metadata in handler.seen} == {f"Bearer {TOKEN}"}


def test_bytes_belong_to_the_output_in_their_place(tmp_path: Path) -> None:
    other = {"name": "score", "datatype": "FP32", "shape": [1]}
    mine = {"name": "embedding", "datatype": "FP32", "shape": [1, 2]}
    raw = [np.array([9], "<f4").tobytes(), FLOATS]
    with serving(answers(ModelInfer=message("ModelInferResponse", outputs=[other, mine], raw_output_contents=raw))) as (
        url,
        _,
    ):
        np.testing.assert_array_equal(connect(describe(tmp_path, url)).embed(CROP), [[0.25, -1]])


NONSENSE: dict[str, tuple[bytes, str]] = {
    "no message": (b"\xff" * 9, "not a ModelInferResponse"),
    "text": (b"<html>", "not a ModelInferResponse"),
    "nothing": (b"", "answers"),
    "another output": (inferred(name="logits", raw=[FLOATS]), "answers"),
    "another type": (inferred(datatype="FP64", raw=[FLOATS]), "FP64"),
    "another shape": (inferred(shape=[2, 1], raw=[FLOATS]), "answers"),
    "a negative shape": (inferred(shape=[-1, -2], raw=[FLOATS]), "answers"),
    "too few bytes": (inferred(raw=[FLOATS[:-1]]), "numbers"),
    "too many bytes": (inferred(raw=[FLOATS * 2]), "numbers"),
    "bytes of another output": (inferred(raw=[FLOATS, FLOATS]), "bytes of 2"),
    "no numbers": (inferred(), "numbers"),
    "too many numbers": (inferred(contents={"fp32_contents": [1, 2, 3]}), "numbers"),
    "NaN": (inferred(contents={"fp32_contents": [1, float("nan")]}), "finite"),
    "infinite": (inferred(raw=[np.array([1, np.inf], "<f4").tobytes()]), "finite"),
    "control characters": (inferred(datatype="\x1b[31m\u202eFP32"), "answers"),
    "the token": (inferred(datatype=f"you sent {TOKEN}"), "hidden"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(tmp_path: Path, name: str) -> None:
    content, expected = NONSENSE[name]
    with serving(answers(ModelInfer=content)) as (url, _):
        far = connect(describe(tmp_path, url))
        with pytest.raises(InputError, match=expected) as caught:
            far.service.embeddings(CROP)
    check_line(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (model(name="another"), "describes 'another'"),
        (model(inputs=[]), r"inputs are \[\]"),
        (model(inputs=[{**TENSOR, "datatype": "UINT8"}]), "UINT8"),
        (model(inputs=[{**TENSOR, "shape": [2**62, SIDE, SIDE, 3]}]), "shape"),
        (model(outputs=[]), "no output 'embedding'"),
        (b"\xff\xff", "not a ModelMetadataResponse"),
        (model(name=TOKEN), "hidden"),
    ],
)
def test_another_model_is_refused_before_a_face_is_sent(tmp_path: Path, content: bytes, expected: str) -> None:
    with serving(answers(ModelMetadata=content)) as (url, handler):
        with pytest.raises(InputError, match=expected) as caught:
            connect(describe(tmp_path, url))
        assert "ModelInfer" not in dict(handler.seen)
    check_line(caught.value)


def refusing(code: str, details: str = f"you sent Bearer {TOKEN}", **trailing: str) -> Answer:
    def answer(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(tuple((key.replace("_", "-"), value) for key, value in trailing.items()))
        context.abort(grpc.StatusCode[code], details)
        raise AssertionError

    return answer


STATUS: dict[str, tuple[type[Exception], str]] = {
    **dict.fromkeys(("UNAUTHENTICATED", "PERMISSION_DENIED"), (UnavailableError, "denies access")),
    **dict.fromkeys(("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "OUT_OF_RANGE"), (InputError, "refuses")),
    **dict.fromkeys(("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN", "DATA_LOSS", "CANCELLED"),
                    (TransientError, "says")),
}  # fmt: skip


@pytest.mark.parametrize("code", STATUS)
def test_a_status_says_whether_to_ask_again_and_its_text_keeps_the_token(tmp_path: Path, code: str) -> None:
    error, expected = STATUS[code]
    with serving(answers(ModelInfer=refusing(code))) as (url, handler):
        far = connect(describe(tmp_path, url))
        with pytest.raises(error, match=rf"{expected}.*{code}.*\[hidden\]") as caught:
            far.service.embeddings(CROP)
        assert [method for method, _ in handler.seen].count("ModelInfer") == 1, "gRPC itself repeats nothing"
    check_line(caught.value)


def test_a_wait_is_what_the_server_asks_for(tmp_path: Path) -> None:
    for value, wait in (("2500", 2.5), ("-1", None), ("soon", None)):
        busy = refusing("UNAVAILABLE", grpc_retry_pushback_ms=value)
        with serving(answers(ModelInfer=busy)) as (url, _):
            far = connect(describe(tmp_path, url))
            with pytest.raises(TransientError) as caught:
                far.service.embeddings(CROP)
        assert caught.value.wait == wait


def test_a_server_that_is_not_ready_is_asked_again(tmp_path: Path) -> None:
    for given in (message("ServerReadyResponse"), b""):
        with serving(answers(ServerReady=given)) as (url, _), pytest.raises(UnavailableError, match="not ready"):
            connect(describe(tmp_path, url))


def test_an_answer_that_is_too_large_is_not_received(tmp_path: Path) -> None:
    with serving(answers(ModelInfer=inferred(raw=[b"\0" * (2 << 20)]))) as (url, _):
        far = connect(describe(tmp_path, url))
        with pytest.raises(InputError, match="too large") as caught:
            far.service.embeddings(CROP)
    check_line(caught.value)


def test_a_compressed_answer_is_not_unfolded(tmp_path: Path) -> None:
    """It would pass the limit of size, which gRPC holds before it unfolds."""
    large = inferred(raw=[b"\0" * (64 << 20)])
    folding = serving(answers(ModelInfer=large), compression=grpc.Compression.Gzip)
    with folding as (url, _), pytest.raises(SixpixelsError) as caught:
        connect(describe(tmp_path, url, timeout=20)).embed(CROP)
    check_line(caught.value)


def silent(_: bytes, context: Any) -> bytes:
    time.sleep(2)
    return b""


@pytest.mark.parametrize("method", ["ServerReady", "ModelMetadata", "ModelInfer"])
def test_a_method_that_hangs_is_given_up_at_the_timeout(tmp_path: Path, method: str) -> None:
    with serving(answers(**{method: silent})) as (url, _):
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=r"no answer from .* in 0\.4 s"):
            connect(describe(tmp_path, url, timeout=0.4)).embed(CROP)
        assert time.monotonic() - begun < 1.9


@pytest.mark.parametrize(
    ("head", "drop"),
    [(b"", b""), (b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n"), (b"\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\0")],
)
def test_a_server_that_drips_is_given_up_at_the_timeout(tmp_path: Path, head: bytes, drop: bytes) -> None:
    with raw_serving(lambda connection: dripped(connection, head, drop)) as url:
        begun = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            connect(describe(tmp_path, url, timeout=0.4))
        assert time.monotonic() - begun < 4
    check_line(caught.value)


def test_proxies_of_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(answers()) as (url, _):
        assert connect(describe(tmp_path, url)).embed(CROP).shape == (1, 2)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_other_machines_are_reached_over_tls_with_a_valid_certificate(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = grpc.ssl_server_credentials([(certificates.key.read_bytes(), certificates.certificate.read_bytes())])
    with serving(answers(), own) as (url, handler):
        with pytest.raises(UnavailableError, match="certificate is not valid") as caught:
            connect(describe(tmp_path, url))
        check_line(caught.value)
        assert not handler.seen
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert connect(describe(tmp_path, url)).embed(CROP).shape == (1, 2)


def test_threads_may_share_a_channel(tmp_path: Path) -> None:
    def brightness(request: bytes, _: Any) -> bytes:
        (content,) = messages._classes()["ModelInferRequest"].FromString(request).raw_input_contents
        return inferred(raw=[np.frombuffer(content, "<f4")[:2].tobytes()])

    with serving(answers(ModelInfer=brightness)) as (url, _), ThreadPoolExecutor(8) as pool:
        service = connect(describe(tmp_path, url)).service
        found = list(pool.map(lambda level: service.embeddings(CROP + np.float32(level))[0, 0], range(40)))
    np.testing.assert_array_equal(found, range(40))


def test_a_batch_that_the_server_makes_too_large_is_not_made(tmp_path: Path) -> None:
    path = describe(tmp_path, "http://127.0.0.1:9")
    text = path.read_text().replace(f"height = {SIDE}", "height = 2048").replace(f"width = {SIDE}", "width = 2048")
    tensor = {**TENSOR, "shape": [256, 2048, 2048, 3]}
    with serving(answers(ModelMetadata=model(inputs=[tensor]))) as (url, _):
        path.write_text(text.replace("http://127.0.0.1:9", url))
        with pytest.raises(InputError, match=r"256 crops of 2048 x 2048 pixels, 12288 MB"):
            connect(path)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Paths:
        cafile = str(tmp_path)

    monkeypatch.setattr("ssl.get_default_verify_paths", Paths)
    with pytest.raises(UnavailableError, match="cannot be read"):
        connect(describe(tmp_path, "https://example.org"))


@pytest.mark.parametrize(
    ("url", "top", "expected"),
    [
        ("http://example.org:8001", "", "without encryption"),
        ("https://example.org/prefix", "", "must have no path for gRPC"),
        ("https://example.org", "binary = true", "only for HTTP"),
        ("https://example.org", "protocols = 'grpc'", "not a known key"),
    ],
)
def test_a_file_that_cannot_mean_grpc_is_refused(tmp_path: Path, url: str, top: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_remote(describe(tmp_path, url, top=top))


def test_without_grpcio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UnavailableError, match=r"sixpixels\[grpc\]"):
        connect(describe(tmp_path, "https://example.org"))
