"""Downloads of published weights and face pairs: resumed, limited in size, and checked by SHA-256 before use."""

from __future__ import annotations

import http.client
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.errors import InputError, UnavailableError, UsageError
from toolkit.files import check_sha256, sha256, write_bytes
from toolkit.registry import unknown

Progress = Callable[[int, int | None], None]

_BLOCK = 1 << 18
_TIMEOUT_SECONDS = 30
_TRIES = 4
_RELEASE = "https://github.com/faustomorales/keras-facenet/releases/download/v0.3.1/"
_FIGSHARE = "https://ndownloader.figshare.com/files/"
# A length with more digits is no length.
_MOST_DIGITS = 20
_MOST_MEMBERS = 100_000
_LARGEST_UNPACKED = 4 << 30


@dataclass(frozen=True)
class Download:
    """A published file: its address, name, SHA-256, and largest size in bytes."""

    url: str
    filename: str
    sha256: str
    limit: int


@dataclass(frozen=True)
class PublishedModel:
    """Published FaceNet weights (MIT license, D. Sandberg), converted to Keras layer by layer."""

    weights: Download
    embedding_size: int
    standardization: str
    trained_on: str


def _weights(name: str, digest: str) -> Download:
    return Download(f"{_RELEASE}{name}-weights.h5", f"{name}-weights.h5", digest, 200 << 20)


_FIXED = "mean = 127.5\nstd = 128.0"
MODELS = {
    "20180402-114759": PublishedModel(
        _weights("20180402-114759", "8b71e7045497e841c00ee568f031d1a4d30908fceadf6884aef2dec4d545202b"),
        512,
        _FIXED,
        "VGGFace2, 99.65 % on LFW as published",
    ),
    "20180408-102900": PublishedModel(
        _weights("20180408-102900", "af526097bd89ff84dda94dc071ff39c4cf39922cf0a9d9dea652853cda9616be"),
        512,
        _FIXED,
        "CASIA-WebFace, 99.05 % on LFW as published",
    ),
    "20170512-110547": PublishedModel(
        _weights("20170512-110547", "668e950140ad76f1e21e3a2bc1d3ad9c673734ea8ea1abbf4ecc44d1dbdd400b"),
        128,
        'standardization = "per-image"',
        "MS-Celeb-1M, 99.2 % on LFW as published",
    ),
}
_MODEL_ALIASES = {"facenet": "20180402-114759"}

_PAIRS = Download(
    f"{_FIGSHARE}5976006", "pairs.txt", "ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592", 1 << 20
)
DATA = {
    "lfw": Download(
        f"{_FIGSHARE}5976018",
        "lfw.tgz",
        "055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
        400 << 20,
    ),
    "lfw-funneled": Download(
        f"{_FIGSHARE}5976015",
        "lfw-funneled.tgz",
        "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
        400 << 20,
    ),
}

# FaceNet was evaluated on MTCNN boxes with a margin of 44 pixels, resized to 182 and cropped to 160. The template holds
# the median positions of the five landmarks in such crops of LFW, so that aligned crops resemble those crops.
_TEMPLATE = "[[52.2, 65.1], [109.0, 64.1], [81.2, 91.2], [56.5, 114.4], [107.6, 113.5]]"

_MANIFEST = """\
schema = 1
name = "facenet-{name}"

[model]
# `sixpixels export` makes this file from the checkpoint.
file = "facenet.onnx"
license = "MIT"
provenance = "FaceNet {name} by D. Sandberg, Inception-ResNet-v1 trained on {trained_on}"

[checkpoint]
file = "{file}"
format = "keras-weights"
sha256 = "{digest}"

[checkpoint.network]
name = "inception_resnet_v1"
embedding_size = {size}
width = 1.0

[input]
name = "input"
height = 160
width = 160
layout = "NHWC"
channels = "RGB"
range = [0, 255]
{standardization}

[output]
name = "embeddings"
size = {size}
normalize = true

[decision]
metric = "squared-euclidean"
threshold = 0.99
maximum = 4.0

[alignment]
template = {template}
"""


def fetch_model(name: str, folder: Path, progress: Progress | None = None, base: str | None = None) -> Path:
    """Download published FaceNet weights and write their manifest.

    Args:
        name: `facenet` or the name of a published version.
        folder: the parent folder of the model's own folder.
        progress: called with the bytes done and the total bytes, or None if the total is unknown.
        base: address of a mirror, or None for the original address.

    Returns:
        The model's folder.

    Raises:
        UsageError: there is no such model.
        UnavailableError: the server cannot be reached. The message says how to download the file by hand.
        InputError: the file has a wrong hash, is too large, or cannot be written.
    """
    key = _MODEL_ALIASES.get(name, name)
    if key not in MODELS:
        raise UsageError(unknown("model", name, [*_MODEL_ALIASES, *MODELS]))
    model, target = MODELS[key], folder / key
    fetch(_mirrored(model.weights, base), target, progress)
    text = _MANIFEST.format(
        name=key,
        trained_on=model.trained_on,
        file=model.weights.filename,
        digest=model.weights.sha256,
        size=model.embedding_size,
        standardization=model.standardization,
        template=_TEMPLATE,
    )
    write_bytes(target / "model.toml", text.encode())
    return target


def fetch_data(name: str, folder: Path, progress: Progress | None = None, base: str | None = None) -> Path:
    """Download and unpack LFW and its pairs. Arguments and errors are those of `fetch_model`.

    Returns:
        A folder that `load_pairs` can read.
    """
    if name not in DATA:
        raise UsageError(unknown("data", name, DATA))
    target = folder / name
    fetch(_mirrored(_PAIRS, base), target)
    archive = fetch(_mirrored(DATA[name], base), target, progress)
    if not (target / "images").is_dir():
        unpack(archive, target / "images")
    return target


def _mirrored(download: Download, base: str | None) -> Download:
    return download if base is None else replace(download, url=f"{base.rstrip('/')}/{download.filename}")


def fetch(download: Download, folder: Path, progress: Progress | None = None) -> Path:
    """Download one file into `folder`, unless it is there with the right hash. See `fetch_model`."""
    path, part = folder / download.filename, folder / f"{download.filename}.part"
    if path.is_file() and sha256(path) == download.sha256:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, _TRIES + 1):
            try:
                _stream(download, part, progress)
                break
            except urllib.error.HTTPError as error:
                if attempt == _TRIES or error.code < 500:
                    raise UnavailableError(_by_hand(download, path, f"the server says {error.code}")) from error
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                if attempt == _TRIES:
                    reason = getattr(error, "reason", error)
                    raise UnavailableError(_by_hand(download, path, str(reason))) from error
            time.sleep(0.25 * 2**attempt)
    except OSError as error:
        raise InputError(f"{part}: cannot be written ({error.strerror})") from error
    try:
        check_sha256(part, download.sha256)
    except InputError:
        part.unlink()
        raise
    part.replace(path)
    return path


def _by_hand(download: Download, path: Path, reason: str) -> str:
    return (
        f"{download.url}: cannot be downloaded ({reason}); try again, or download the file on another computer, "
        f"put it at {path} (its sha256 is {download.sha256}) and give the command again"
    )


def _stream(download: Download, part: Path, progress: Progress | None) -> None:
    """Append the missing bytes to `part`, or download all of it if the server cannot resume."""
    done = part.stat().st_size if part.is_file() else 0
    if not download.url.startswith(("https://", "http://")):  # a mirror, because the addresses here are https
        raise UsageError(f"{download.url}: a mirror must have an https:// or http:// address")
    request = urllib.request.Request(download.url)  # noqa: S310 - checked above
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is already complete, or too long
            if done <= download.limit and sha256(part) == download.sha256:
                return
            part.unlink()
            raise ConnectionError("the unfinished download does not match the file") from error
        raise
    with response:
        continued = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if continued else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdecimal() and len(length) < _MOST_DIGITS else None
        with part.open("ab" if continued else "wb") as stream:
            while block := response.read(_BLOCK):
                done += len(block)
                if done > download.limit:
                    stream.close()
                    part.unlink()
                    raise InputError(f"{download.url}: is larger than the {download.limit} bytes that are allowed")
                stream.write(block)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"the connection broke after {done} of {total} bytes")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a .tgz archive into `target`, which appears complete or not at all. A single top folder is removed.

    Raises:
        InputError: the archive is damaged or too large, or a member is not a plain file or leaves the folder.
    """
    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            count = total = 0
            for member in tar:
                count, total = count + 1, total + member.size
                if count > _MOST_MEMBERS or total > _LARGEST_UNPACKED:
                    raise InputError(
                        f"{archive}: unpacks to more than {_MOST_MEMBERS} files or {_LARGEST_UNPACKED} bytes"
                    )
                if not (member.isfile() or member.isdir()):
                    raise InputError(f"{archive}: {member.name} is neither a file nor a folder")
                tar.extract(member, temporary, filter="data")
        top = list(temporary.iterdir())
        (top[0] if len(top) == 1 and top[0].is_dir() else temporary).replace(target)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error})") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
