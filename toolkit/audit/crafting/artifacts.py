"""Artifacts: crafted probes in small files, with a hash that reveals damage.

A file has a line that names its kind, the SHA-256 of the rest, and a zlib stream. For a chunk of probes, the stream
holds the differences from the clean crops, which the reader must supply: the 8-bit differences, and the float
differences in steps of 1/8191 of the largest one in the image. (This rounding is smaller than the difference between
two forms of the same model.) If the float probes equal the 8-bit probes, as for attacks that query the deployed
verifier, they are not stored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from toolkit.attacks.base import Crafted
from toolkit.attacks.norms import per_image
from toolkit.documents import from_plain, to_json
from toolkit.errors import InputError
from toolkit.pixels import Bools, Images, to_unit
from toolkit.plain import parse_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

F = TypeVar("F")

_PROBES, _PROBES8 = b"sixpixels probes 2\n", b"sixpixels 8-bit probes 2\n"
_LEARNED, _VOTES = b"sixpixels learned 1\n", b"sixpixels votes 1\n"
_DECISIONS, _EMBEDDED = b"sixpixels decisions 1\n", b"sixpixels embeddings 1\n"
_FOUND = b"sixpixels found 1\n"
# The longest text of a result.
_LONGEST = 1 << 24
_HASH = 32
_STEPS = 8191


def encode_probes(crafted: Crafted, clean: NDArray[np.uint8]) -> bytes:
    """Encode probes as an artifact.

    Args:
        crafted: N probes. Float probes are rounded to 14 bits.
        clean: (N, H, W, 3), their clean crops.
    """
    parts = [crafted.evaluations.astype("<i8"), crafted.success, crafted.success8, crafted.probes8 - clean]
    kind = _PROBES8
    if not crafted.in_8bit:
        kind = _PROBES
        delta = crafted.probes - to_unit(clean)
        largest = np.abs(delta).max(axis=(1, 2, 3)).astype("<f4")
        steps = np.rint(delta * per_image(_STEPS / np.maximum(largest, np.float32(1e-30)))).astype("<i2")
        # The high bytes are mostly 0 or -1, so that they compress well if they are separate from the low bytes.
        planes = steps.view(np.uint8).reshape(*steps.shape, 2)
        parts += [largest, planes[..., 0], planes[..., 1]]
    return _seal(kind, b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def decode_probes(content: bytes, clean: NDArray[np.uint8]) -> Crafted | None:
    """Decode an artifact of `encode_probes`; None if it is damaged or of another kind or size.

    Args:
        content: the artifact.
        clean: (N, H, W, 3), the clean crops that it was encoded with.
    """
    n, values = len(clean), clean.size
    in_8bit = content.startswith(_PROBES8)
    raw = _unseal(_PROBES8 if in_8bit else _PROBES, content, 10 * n + values + (0 if in_8bit else 4 * n + 2 * values))
    if raw is None:
        return None
    at = np.cumsum([0, 8 * n, n, n, values, 4 * n, values, values])
    evaluations, success, success8, delta8, largest, low, high = (
        np.frombuffer(raw[a:b], np.uint8) for a, b in itertools.pairwise(at)
    )
    probes8 = clean + delta8.reshape(clean.shape)
    probes = to_unit(probes8)
    if not in_8bit:
        steps = np.stack([low, high], axis=-1).view("<i2").reshape(clean.shape)
        delta = steps.astype(np.float32) * per_image(largest.view("<f4") / np.float32(_STEPS))
        probes = to_unit(clean) + delta
        # Rounding may leave the range of pixels. What is farther outside was outside before, and must stay visible.
        rounding, inside = per_image(float_step(delta)), np.clip(probes, 0, 1)
        probes = np.where(np.abs(probes - inside) <= rounding, inside, probes)
    return Crafted(
        probes, success.astype(np.bool_), probes8, success8.astype(np.bool_), evaluations.view("<i8").astype(np.int64)
    )


def float_step(deltas: Images) -> NDArray[np.float64]:
    """Return the step (N,) in which an artifact holds float differences (N, H, W, 3); no value changes by more."""
    return np.abs(deltas).max(axis=(1, 2, 3), initial=0).astype(np.float64) / _STEPS


def encode_learned(learned: Images) -> bytes:
    """Encode a learned perturbation as an artifact."""
    return _seal(_LEARNED, learned.astype("<f4").tobytes())


def decode_learned(content: bytes, shape: tuple[int, ...]) -> Images | None:
    """Decode an artifact of `encode_learned`; None if it is damaged or of another kind or shape."""
    raw = _unseal(_LEARNED, content, 4 * int(np.prod(shape)))
    return None if raw is None else np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def encode_votes(votes: NDArray[np.int64]) -> bytes:
    """Encode the votes of N pairs, (N, 2), as an artifact; see `certify`."""
    return _seal(_VOTES, votes.astype("<i8").tobytes())


def decode_votes(content: bytes, count: int) -> NDArray[np.int64] | None:
    """Decode an artifact of `encode_votes` for `count` pairs; None if it is damaged or of another kind or size."""
    raw = _unseal(_VOTES, content, 16 * count)
    return None if raw is None else np.frombuffer(raw, "<i8").reshape(count, 2).astype(np.int64)


def encode_decisions(accepted: Bools) -> bytes:
    """Encode decisions of any shape as an artifact; see `decide_natural`."""
    return _seal(_DECISIONS, accepted.tobytes())


def decode_decisions(content: bytes, shape: tuple[int, ...]) -> Bools | None:
    """Decode an artifact of `encode_decisions`; None if it is damaged or of another kind or size."""
    raw = _unseal(_DECISIONS, content, int(np.prod(shape)))
    return None if raw is None else np.frombuffer(raw, np.uint8).reshape(shape) != 0


def encode_embedded(embeddings: NDArray[np.float32], scores: NDArray[np.floating[Any]]) -> bytes:
    """Encode embeddings (N, D) and attack scores (N,) as an artifact; see `embedding`."""
    return _seal(_EMBEDDED, np.column_stack([embeddings, scores]).astype("<f4").tobytes())


def decode_embedded(content: bytes, count: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Decode `count` embeddings of `width` numbers, and scores; None if it is damaged or of another kind or size."""
    raw = _unseal(_EMBEDDED, content, 4 * count * (width + 1))
    if raw is None:
        return None
    columns = np.frombuffer(raw, "<f4").reshape(count, width + 1).astype(np.float32)
    return np.ascontiguousarray(columns[:, :-1]), columns[:, -1].copy()


def encode_found(found: DataclassInstance) -> bytes:
    """Encode a result of plain values as an artifact.

    Raises:
        InputError: a number is not finite.
    """
    try:
        return _seal(_FOUND, to_json(found).encode())
    except ValueError as error:
        raise InputError(f"{type(found).__name__.lower()}: {error}") from error


def decode_found(content: bytes, kind: type[F]) -> F | None:
    """Decode an artifact of `encode_found`; None if it is damaged or of another kind."""
    raw = _unseal(_FOUND, content, _LONGEST, exactly=False)
    if raw is None:
        return None
    try:
        found: F = from_plain(kind, parse_json(raw, kind.__name__))
    except (ValueError, InputError):
        return None
    return found


def hash_of(arrays: Mapping[str, NDArray[Any] | None]) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        if array is not None:
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def artifact_name(content: Mapping[str, object]) -> str:
    """Name an artifact by a hash of everything that it depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def read_artifact(path: Path) -> bytes:
    """Read a file. A missing file gives empty content, which decodes to None like a damaged one."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _seal(kind: bytes, raw: bytes) -> bytes:
    # Only zeros repeat in noise, so run-length encoding compresses as well as a full search, and is faster.
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    packed = stream.compress(raw) + stream.flush()
    return kind + hashlib.sha256(packed).digest() + packed


def _unseal(kind: bytes, content: bytes, size: int, *, exactly: bool = True) -> bytes | None:
    packed = content[len(kind) + _HASH :]
    if content[: len(kind) + _HASH] != kind + hashlib.sha256(packed).digest():
        return None
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, size + 1)
    except zlib.error:
        return None
    return raw if stream.eof and (len(raw) == size if exactly else len(raw) <= size) else None
