"""Servers that drip, flood, lie and echo: an exchange ends in time, with one line, and keeps its secrets."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.certificates import Certificates, make_certificates
from tests.servers import dripped, raw_serving
from toolkit.errors import SixpixelsError
from toolkit.verifiers.remote import wire
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import read_remote
from toolkit.verifiers.remote.exchange import Server, Signed, bearer, retry_after
from toolkit.verifiers.remote.redaction import Secrets
from toolkit.verifiers.remote.wire import Answer

TIMEOUT = 0.4
TOKEN = 'eyJhbGciOiJIUzI1NiJ9.eyJ/c+3ViIjoi"MSJ9-x_Y=='
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"

DRIPPED: dict[str, tuple[bytes, bytes]] = {
    "nothing": (b"", b""),
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n", b"X-More: 1\r\n"),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: <a>\r\n"),
    "the status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (JSON, b"X"),
    "header lines": (JSON, b"X-More: 1\r\n"),
    "a body": (JSON + b"Content-Length: 10000000\r\n\r\n", b" "),
    "a body without length": (JSON + b"\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "a chunk's size": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-More: 1\r\n"),
}


def server_at(url: str, timeout: float = TIMEOUT) -> Server:
    return Server(url, timeout, bearer(TOKEN))


@contextlib.contextmanager
def ends_in_time() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < TIMEOUT + 4, "a busy machine is slow, and the servers here hang for 5 s and more"


def check_line(error: Exception) -> None:
    text = str(error)
    assert text.isprintable()
    assert len(text) < 600


@pytest.mark.parametrize("name", DRIPPED)
def test_a_server_that_drips_is_given_up_at_the_timeout(name: str) -> None:
    head, drop = DRIPPED[name]
    with raw_serving(partial(dripped, head=head, drop=drop)) as url, ends_in_time():
        with pytest.raises(TransientError, match=r"no answer from http://127.* in 0\.4 s") as caught:
            server_at(url).exchange("/infer", {"a": 1})
        check_line(caught.value)


def test_a_server_that_never_reads_is_given_up_at_the_timeout() -> None:
    with raw_serving(lambda _: time.sleep(8)) as url, ends_in_time(), pytest.raises(TransientError, match="no answer"):
        server_at(url).exchange("/infer", {"a": "x" * (64 << 20)})


def test_a_connection_that_is_never_accepted_is_given_up_at_the_timeout() -> None:
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fill the backlog; nobody accepts
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        with ends_in_time(), pytest.raises(TransientError, match=r"in 0\.4 s"):
            server_at(f"http://127.0.0.1:{full.getsockname()[1]}").ready("/")


def test_a_name_that_is_never_found_is_given_up_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    with ends_in_time(), pytest.raises(TransientError, match=r"in 0\.4 s"):
        server_at("https://slow.example").ready("/")


def test_a_handshake_that_drips_is_given_up_at_the_timeout() -> None:
    record = partial(dripped, head=b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", drop=b"\x03")
    with raw_serving(record) as url, ends_in_time(), pytest.raises(TransientError, match="no answer"):
        server_at(url.replace("http", "https")).ready("/")


def test_a_host_without_an_address_is_one_line() -> None:
    for host in ("a" * 64 + ".example", "none.invalid"):
        with pytest.raises(TransientError, match="no answer") as caught:
            server_at(f"http://{host}", 5).ready("/")
        check_line(caught.value)


def sent(content: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(content)

    return answer


MALFORMED: dict[str, bytes] = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/0.9": b"{}",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n{}",
    "a status of 5,000 digits": b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n{}",
    "a length of 5,000 digits": JSON + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
    "a length of letters": JSON + b"Content-Length: two\r\n\r\n{}",
    "a negative length": JSON + b"Content-Length: -2\r\n\r\n{}",
    "two lengths": JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk's size of letters": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk's size of 5,000 digits": CHUNKED + b"f" * 5000 + b"\r\n{}",
    "an unknown encoding": JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n{}",
    "NUL in a header": JSON + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "ESC in a status line": b"HTTP/1.1 200 \x1b[31mred\r\nNo header\r\n\r\n",
    "a header without a name": JSON + b": x\r\n\r\n{}",
    "a header of 1 MB": JSON + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n{}",
    "100,000 headers": JSON + b"X: a\r\n" * 100_000 + b"\r\n{}",
    "trailers of 1 MB": CHUNKED + b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * 200_000 + b"\r\n",
    "1,000 announcements": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + JSON + b"Content-Length: 2\r\n\r\n{}",
    "another protocol from here on": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n{}",
    "gzip": JSON + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    "a text of text": JSON + b'Content-Length: 4\r\n\r\n"{}"',
    "an integer of 5,000 digits": JSON + b"\r\n" + b'{"a": ' + b"1" * 5000 + b"}",
    "depth": JSON + b"\r\n" + b'{"a":' * 200_000,
    "UTF-16 cut short": JSON + b"\r\n" + b"\xff\xfe{",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_an_answer_that_is_no_answer_is_one_line(name: str) -> None:
    with raw_serving(sent(MALFORMED[name])) as url, pytest.raises((SixpixelsError, TransientError)) as caught:
        server_at(url, 10).exchange("/infer", {"a": 1})
    check_line(caught.value)
    assert "no answer" not in str(caught.value) or "ended" in str(caught.value) or "reset" in str(caught.value)


def test_what_honest_servers_send_is_an_answer() -> None:
    for content in (
        JSON + b"Content-Length: 2\r\n\r\n{}",
        JSON + b"\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        CHUNKED + b"1;name=x\r\n{\r\n1\r\n}\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + JSON + b"Content-Length: 2\r\n\r\n{}",
    ):
        with raw_serving(sent(content)) as url:
            assert server_at(url, 5).exchange("/x?y=1") == {}


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in capitals": str.upper,
    "in an address": lambda token: quote(token, safe=""),
    "in an address, twice": lambda token: quote(quote(token, safe=""), safe=""),
    "in JSON": json.dumps,
    "in JSON, every character": lambda token: "".join(f"\\u{ord(c):04x}" for c in token),
    "in HTML": lambda token: token.replace('"', "&quot;").replace("=", "&#x3d;").replace("+", "&#43;"),
    "in base64": lambda token: base64.b64encode(token.encode()).decode(),
    "in base64, with a name": lambda token: base64.b64encode(f"u:{token}".encode()).decode(),
    "in base64, with more": lambda token: base64.b64encode(f"me:{token}!".encode()).decode(),
    "in base64, for addresses": lambda token: base64.urlsafe_b64encode(token.encode()).decode().rstrip("="),
    "in base64, in lines": lambda token: base64.encodebytes((token * 3).encode()).decode(),
    "in hexadecimal": lambda token: token.encode().hex(),
    "over and over": lambda token: token * 400,
}


def core(form: str) -> set[str]:
    """Parts of a text that must not be seen."""
    return {form[i : i + 8].lower() for i in range(4, len(form) - 12)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "where",
    [
        b"HTTP/1.1 200 OK%s\r\nbad\r\n\r\n",
        b"HTTP/1.1 %s OK\r\n\r\n",
        JSON + b"X-Echo\0: %s\r\n\r\n",
        JSON + b"Content-Length: %s\r\n\r\n",
        CHUNKED + b"%s\r\n",
        b"HTTP/1.1 400 Bad\r\n\r\nyou sent Bearer %s",
        b"HTTP/1.1 200 OK\r\n\r\nyou sent Bearer %s",
        JSON + b'\r\n["%s"]',
    ],
)
def test_a_server_that_echoes_a_token_does_not_make_it_visible(form: str, where: bytes) -> None:
    echoed = FORMS[form](TOKEN)
    with raw_serving(sent(where % echoed.encode())) as url, pytest.raises((SixpixelsError, TransientError)) as caught:
        server_at(url, 5).exchange("/infer", {"a": 1})
    shown = str(caught.value).lower()
    assert not [part for part in core(echoed) | core(TOKEN) if part in shown], shown
    check_line(caught.value)


def test_secrets_are_hidden_and_nothing_else_is() -> None:
    secrets = Secrets(["s3cr/et+key", ""])
    assert secrets.hide("all of this stays; %41 \\u0041 &amp; \\n") == "all of this stays; %41 \\u0041 &amp; \\n"
    assert secrets.hide("key=s3cr%2Fet%2Bkey&x=1") == "key=[hidden]&x=1"
    assert secrets.hide("s3cr_et-key,S3CR/ET+KEY") == "[hidden],[hidden]"
    assert Secrets([]).hide("s3cr/et+key") == "s3cr/et+key"
    for cut in range(16_300, 16_400):  # where a long text is cut
        assert "s3cr/et" not in secrets.shown("s3cr/et+key" * 1500 + "s3cr/et+key"[: cut % 11])
        assert "s3c" not in secrets.shown(" " * cut + "s3cr/et+key" * 9)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1e9",
        "٣",
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "x" * 9000,
    ],
)
def test_a_wait_that_is_none_is_left_out(value: str) -> None:
    found = retry_after(Answer(503, {"retry-after": value}, b""))
    assert found in (None, 0.0, 3.0)
    assert retry_after(Answer(503, {"retry-after": "9" * 5000}, b"")) == math.inf


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:pass-word@example.org", "https://me:pass-word@example.org", "https://@example.org",
        "https://me:pass/word@example.org", "https://example.org/?", "https://example.org/#", "file:///etc/passwd",
        "https://example.org:0", "https://example.org:99999", "https://exa mple.org", "https://example.org\\@evil.org",
        "https://examplé.org", "https://example.org/\u202e", "javascript:alert(1)", "//example.org", "https:a.org",
        "http://127.0.0.1.example.org", "http://0.0.0.0", "http://2130706433", "https://[::1", "unix:///run/x.sock",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    path = tmp_path / "remote.toml"
    path.write_text(
        f"schema = 1\nkind = 'rekognition'\nname = 'x'\nregion = 'eu-west-1'\nurl = '{url}'\nthreshold = 80\n"
        "[input]\nwidth = 16\nheight = 16\n[limits]\ncalls_per_second = 1\nmax_calls = 1\n"
    )
    with pytest.raises(SixpixelsError, match=r"remote\.toml: url") as caught:
        read_remote(path)
    assert "pass-" not in str(caught.value)
    assert "me:" not in str(caught.value)
    check_line(caught.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_an_answer_over_tls_is_one_and_an_unknown_certificate_is_named(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(connection: socket.socket) -> None:
        with certificates.server_context().wrap_socket(connection, server_side=True) as secure:
            secure.recv(1 << 16)
            secure.sendall(JSON + b"Content-Length: 2\r\n\r\n{}")

    with raw_serving(answer) as url:
        address = url.replace("http", "https")
        with pytest.raises(SixpixelsError, match="certificate is not valid"):
            server_at(address, 5).exchange("/")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert server_at(address, 5).exchange("/") == {}
        with pytest.raises(SixpixelsError, match="certificate is not valid"):
            server_at(address.replace("127.0.0.1", "localhost"), 5).exchange("/")


def test_threads_that_share_a_server_hide_each_its_own_secret() -> None:
    def sign(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Signed:
        secret = f"secret-of-{json.loads(body)['name']}-only"
        return Signed({"X-Key": secret}, (secret,))

    def echo(connection: socket.socket) -> None:
        sent = connection.recv(1 << 16)
        time.sleep(0.2)  # both threads wait for their answers at once
        key = sent[sent.lower().index(b"x-key: ") :].split(b"\r\n")[0]
        connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\nyou sent " + key)

    with raw_serving(echo) as url:
        server, told = Server(url, 5, sign), {}

        def ask(name: str) -> None:
            with pytest.raises(SixpixelsError) as caught:
                server.exchange("/", {"name": name})
            told[name] = str(caught.value)

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("ann-ann-ann", "bob-bob-bob")]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
    assert set(told) == {"ann-ann-ann", "bob-bob-bob"}
    for text in told.values():
        assert "[hidden]" in text
        assert "-ann" not in text
        assert "-bob" not in text
