"""Safe image decoding: read an image exactly as a verifier would receive it, or reject it with a reason."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LARGEST_FILE = 64 << 20
_LARGEST_IMAGE = 50_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
# JPEG markers without a length field and content.
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9
# In a scan, 0xFF is followed by 0 or belongs to a restart marker.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_CONVERT = "convert it to 8-bit RGB"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP file to (H, W, 3) uint8, RGB. The EXIF orientation is applied.

    Gray, transparent, 16-bit and truncated images are rejected instead of converted, because an audit must see the
    same image as the verifier. Bytes after the end of an image are ignored, as decoders ignore them. Sizes are checked
    before the image is decoded.

    Raises:
        InputError: the file cannot be read or used. The message has the path and the reason.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise InputError(f"{path}: is {size >> 20} MB large; the limit for an image is {_LARGEST_FILE >> 20} MB")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        width, height, channels, bits = _header(content)
    except (_BadHeaderError, struct.error, IndexError) as error:
        raise InputError(f"{path}: is not a complete JPEG, PNG or WebP image ({error})") from error
    if width * height > _LARGEST_IMAGE or not width or not height:
        raise InputError(
            f"{path}: has {width} x {height} pixels; it must not be empty or larger than "
            f"{_LARGEST_IMAGE // 1_000_000} megapixels"
        )
    if bits != 8:
        raise InputError(f"{path}: has {bits} bits per channel; {_CONVERT}")
    if channels != 3:
        kind = {1: "is gray", 2: "is gray with transparency", 4: "has four channels"}[channels]
        raise InputError(f"{path}: {kind}; {_CONVERT}")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError(f"{path}: cannot be decoded; the image data is damaged")
    return np.ascontiguousarray(image[..., ::-1])


class _BadHeaderError(Exception):
    """The file does not have the structure of its format."""


def _header(content: bytes) -> tuple[int, int, int, int]:
    """Return width, height, channels and bits per channel, after a walk to the end of the image."""
    if content[:8] == _PNG:
        return _png_header(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _webp_header(content)
    return _jpeg_header(content)


def _png_header(content: bytes) -> tuple[int, int, int, int]:
    if content[12:16] != b"IHDR":
        raise _BadHeaderError("no IHDR")
    width, height, bits, color = struct.unpack(">IIBB", content[16:26])
    at, transparent, kind = 8, False, b""
    while kind != b"IEND":
        if at + 12 > len(content):
            raise _BadHeaderError("truncated: no IEND at the end")
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        # An RGB or palette image is transparent if it has a tRNS chunk.
        transparent |= kind == b"tRNS"
        at += 12 + length
    if at > len(content):
        raise _BadHeaderError("truncated: the last chunk is not whole")
    channels = {0: 1, 2: 3 + transparent, 3: 3 + transparent, 4: 2, 6: 4}.get(color)
    if channels is None:
        raise _BadHeaderError(f"color type {color}")
    return width, height, channels, 8 if color == 3 else bits


def _webp_header(content: bytes) -> tuple[int, int, int, int]:
    (length,) = struct.unpack("<I", content[4:8])
    if len(content) < 8 + length:
        raise _BadHeaderError("truncated")
    kind, body = content[12:16], content[20:30]
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", body[6:10]))
        return width, height, 3, 8
    if kind == b"VP8L" and body[:1] == b"\x2f":
        (packed,) = struct.unpack("<I", body[1:5])
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 4 if packed >> 28 & 1 else 3, 8
    if kind == b"VP8X":
        if body[0] & 0x02:
            raise _BadHeaderError("an animation")
        width, height = (1 + int.from_bytes(body[i : i + 3], "little") for i in (4, 7))
        return width, height, 4 if body[0] & 0x10 else 3, 8
    raise _BadHeaderError("unknown kind of WebP")


def _jpeg_header(content: bytes) -> tuple[int, int, int, int]:
    """Walk from marker to marker. Decoders fill the missing part of a truncated file with gray."""
    if content[:2] != b"\xff\xd8":
        raise _BadHeaderError("unknown format")
    frame = None
    for marker, body in _jpeg_segments(content):
        if marker in _FRAME_MARKERS and frame is None:
            frame = _frame(content[body : body + 6])
    if frame is None:
        raise _BadHeaderError("no frame")
    return frame


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker of every segment up to the end of the image, and where its content begins."""
    at = 2
    while True:
        if at + 1 >= len(content):
            raise _BadHeaderError("truncated: no end-of-image marker")
        if content[at] != 0xFF:
            raise _BadHeaderError("broken marker")
        marker = content[at + 1]
        if marker == _END:
            return
        if marker == 0xFF:
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        else:
            yield marker, at + 4
            (length,) = struct.unpack(">H", content[at + 2 : at + 4])
            at += 2 + length
            if marker == _SCAN:
                found = _NEXT_MARKER.search(content, at)
                at = len(content) if found is None else found.start()


def _frame(content: bytes) -> tuple[int, int, int, int]:
    bits, height, width, channels = struct.unpack(">BHHB", content)
    if channels not in (1, 3, 4):
        raise _BadHeaderError(f"{channels} components")
    return width, height, channels, bits
