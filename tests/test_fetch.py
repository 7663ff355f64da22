"""Downloads, against a real server on this machine: cut connections, wrong bytes, hostile archives."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.servers import raw_serving
from toolkit import fetch as module
from toolkit.errors import InputError, UnavailableError, UsageError
from toolkit.faces.pairs import load_pairs
from toolkit.fetch import Download, fetch, fetch_data, fetch_model, unpack
from toolkit.verifiers.manifest import read_manifest

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut` closes the first connection after that many bytes; `ranges` False ignores Range."""

    files: dict[str, bytes]
    cut: int | None = None
    ranges = True
    seen: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.seen.append(asked)
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(content[start : start + cut] if cut else content[start:])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.seen = {"file.bin": CONTENT}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def base(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def download(server: Server, content: bytes = CONTENT, limit: int = 1 << 24) -> Download:
    return Download(f"{base(server)}/file.bin", "file.bin", hashlib.sha256(content).hexdigest(), limit)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = fetch(download(server), tmp_path, lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    fetch(download(server), tmp_path)
    assert len(server.seen) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_continued_or_begun_anew(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut, server.ranges = 300_000, ranges
    assert fetch(download(server), tmp_path).read_bytes() == CONTENT
    assert server.seen == [None, "bytes=300000-"]


def test_a_part_of_an_earlier_process_is_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:5])
    assert fetch(download(server), tmp_path).read_bytes() == CONTENT
    assert server.seen == ["bytes=5-"]


def test_a_part_that_is_too_long_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(download(server), tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sha256"):
        fetch(download(server, b"other"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_endless_file_is_stopped(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="larger than the 1000 bytes"):
        fetch(download(server, limit=1000), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_network_it_says_what_to_bring(server: Server, tmp_path: Path) -> None:
    gone = Download("http://127.0.0.1:9/file.bin", "file.bin", "ab" * 32, 1000)
    with pytest.raises(UnavailableError, match=f"put it at {tmp_path / 'file.bin'}.*{'ab' * 32}"):
        fetch(gone, tmp_path)
    server.files.clear()
    with pytest.raises(UnavailableError, match="the server says 404"):
        fetch(download(server), tmp_path)
    assert len(server.seen) == 1, "a file that is not there is not asked for again"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_one_line(server: Server, tmp_path: Path, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(answer)

    with raw_serving(talk) as url, pytest.raises((InputError, UnavailableError)):
        fetch(Download(f"{url}/file.bin", "file.bin", "ab" * 32, 1000), tmp_path)
    assert not (tmp_path / "file.bin").exists()


def test_a_mirror_is_a_server(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(CONTENT)
    for address in (tmp_path.as_uri(), "ftp://127.0.0.1", "data:x"):
        with pytest.raises(UsageError, match="a mirror must have"):
            fetch(Download(f"{address}/file.bin", "file.bin", "ab" * 32, 1000), tmp_path / "to")


def test_a_model_gets_a_manifest(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, model in module.MODELS.items():
        weights = Download("", model.weights.filename, hashlib.sha256(CONTENT).hexdigest(), 1 << 24)
        monkeypatch.setitem(module.MODELS, key, module.replace(model, weights=weights))
        server.files[weights.filename] = CONTENT
    for name in ("facenet", "20170512-110547"):
        manifest = read_manifest(fetch_model(name, tmp_path, base=base(server)))
        assert manifest.checkpoint is not None
        assert manifest.checkpoint.path.read_bytes() == CONTENT
    assert manifest.input.standardization == "per-image"
    with pytest.raises(UsageError, match="did you mean 'facenet'"):
        fetch_model("facnet", tmp_path)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_lfw_is_unpacked_to_what_pairs_are_read_from(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("Ann/Ann_0001", "Ann/Ann_0002", "Bob/Bob_0001")
    images = archive(*[(tarfile.TarInfo(f"lfw/{name}.jpg"), b"jpeg") for name in names])
    pairs = b"1\nAnn\t1\t2\nAnn\t1\tBob\t1\n"
    server.files |= {"lfw.tgz": images, "pairs.txt": pairs}
    for name, content in (("lfw.tgz", images), ("pairs.txt", pairs)):
        known = Download("", name, hashlib.sha256(content).hexdigest(), 1 << 20)
        if name == "lfw.tgz":
            monkeypatch.setitem(module.DATA, "lfw", known)
        else:
            monkeypatch.setattr(module, "_PAIRS", known)
    folder = fetch_data("lfw", tmp_path, base=base(server))
    assert len(load_pairs(folder).pairs) == 2


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "truncated"])
def test_hostile_archives_leave_nothing(tmp_path: Path, kind: str) -> None:
    member = tarfile.TarInfo({"parent": "../evil", "absolute": "/tmp/evil"}.get(kind, "lfw/evil"))
    if kind == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content = archive((member, b"" if kind == "link" else b"x" * 5000))
    path = tmp_path / "in" / "a.tgz"
    path.parent.mkdir()
    path.write_bytes(content[:40] if kind == "truncated" else content)
    if kind == "absolute":  # its leading slash is stripped, and the file stays inside
        unpack(path, tmp_path / "in" / "images")
    else:
        with pytest.raises(InputError, match=r"a\.tgz"):
            unpack(path, tmp_path / "in" / "images")
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "in").glob(".*"))
