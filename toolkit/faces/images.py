"""Safe image decoding: read an image exactly as a verifier would receive it, or reject it with a reason."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
_LARGEST_FILE = 64 << 20
_LARGEST_IMAGE = 50_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
# JPEG markers without a length field and content.
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_CONVERT = "convert it to 8-bit RGB"


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG file to (H, W, 3) uint8, RGB. The EXIF orientation is applied.

    Gray, transparent, 16-bit and truncated images are rejected instead of converted, because an audit must see the
    same image as the verifier. Sizes are checked before the image is decoded.

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
        width, height, channels, bits = _png_header(content) if content[:8] == _PNG else _jpeg_header(content)
    except (_BadHeaderError, struct.error, IndexError) as error:
        raise InputError(f"{path}: is not a complete JPEG or PNG image ({error})") from error
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


def _png_header(content: bytes) -> tuple[int, int, int, int]:
    if content[12:16] != b"IHDR":
        raise _BadHeaderError("no IHDR")
    if b"IEND" not in content[-16:]:
        raise _BadHeaderError("truncated: no IEND at the end")
    width, height, bits, color = struct.unpack(">IIBB", content[16:26])
    # An RGB or palette image is transparent if it has a tRNS chunk before the image data.
    transparent = b"tRNS" in content[: content.find(b"IDAT")]
    channels = {0: 1, 2: 3 + transparent, 3: 3 + transparent, 4: 2, 6: 4}.get(color)
    if channels is None:
        raise _BadHeaderError(f"color type {color}")
    return width, height, channels, 8 if color == 3 else bits


def _jpeg_header(content: bytes) -> tuple[int, int, int, int]:
    if content[:2] != b"\xff\xd8":
        raise _BadHeaderError("unknown format")
    # Decoders fill the missing part of a truncated file with gray, so check that the end marker exists. The search
    # starts at the last scan, because a thumbnail before it has its own end marker. Other data may follow the marker.
    if content.find(b"\xff\xd9", content.rfind(b"\xff\xda") + 2) < 0:
        raise _BadHeaderError("truncated: no end-of-image marker")
    at = 2
    while True:
        if content[at] != 0xFF:
            raise _BadHeaderError("broken marker")
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _FRAME_MARKERS:
            bits, height, width, channels = struct.unpack(">BHHB", content[at + 4 : at + 10])
            if channels not in (1, 3, 4):
                raise _BadHeaderError(f"{channels} components")
            return width, height, channels, bits
        elif marker in _BARE_MARKERS:
            at += 2
        else:
            (length,) = struct.unpack(">H", content[at + 2 : at + 4])
            at += 2 + length
