"""Ways to read a verifier: value ranges, channel orders, alignments and metrics that published verifiers use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.manifests.outline import Outline, Shape
from toolkit.verifiers.manifest import Channels, Input, Standardization

Template = tuple[tuple[float, float], ...]
Compared = Literal["cosine", "euclidean"]
# Images that are crops already.
NO_TEMPLATE = "none"

# In 112 x 112 pixels (InsightFace, Guo et al.).
_ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
# In 150 x 150 pixels: the crops of dlib's face recognition, and of facenet-mini, which learned from it.
_DLIB = ((47.7, 47.1), (100.3, 47.1), (72.1, 76.8), (50.5, 104.3), (97.0, 104.5))
# In 160 x 160 pixels: where landmarks lie on average in FaceNet's crops, MTCNN's boxes with a margin of 44 pixels
# (`python benchmarks/landmarks.py ../shared/lfw/images`).
_BOX = ((54.4, 65.0), (109.7, 63.9), (83.7, 90.5), (58.7, 114.0), (107.8, 113.0))


@dataclass(frozen=True)
class Scaling:
    """How pixel values become the values of the input tensor; see `Input`."""

    low: float
    high: float
    standardization: Standardization = "fixed"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


def _same(value: float) -> tuple[float, float, float]:
    return (value, value, value)


# FaceNet's "prewhitening".
PER_IMAGE = "per image"
# Means and deviations are in the order of RGB; `Reading.spec` turns them for BGR.
SCALINGS: Mapping[str, Scaling] = {
    "-1 to 1": Scaling(-1, 1),
    "(x - 127.5) / 128": Scaling(0, 255, mean=_same(127.5), std=_same(128.0)),
    "0 to 255": Scaling(0, 255),
    "0 to 1": Scaling(0, 1),
    PER_IMAGE: Scaling(0, 255, "per-image"),
    # torchvision's models.
    "ImageNet's mean and deviation": Scaling(0, 1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # VGGFace2's networks (Cao et al. 2018).
    "VGGFace2's mean": Scaling(0, 255, mean=(131.0912, 103.8827, 91.4953)),
    # dlib's networks.
    "dlib's mean / 256": Scaling(0, 255, mean=(122.782, 117.001, 104.298), std=_same(256.0)),
}


# The only one whose values are bytes.
_OF_BYTES = "0 to 255"


def fitting(outline: Outline) -> tuple[str, ...]:
    """The names of the scalings that fit what the file says of its input's type."""
    return (_OF_BYTES,) if outline.takes_bytes else tuple(SCALINGS)


def _scaled(points: Template, width: float, height: float, shift: float = 0.0) -> Template:
    return tuple((x * width + shift, y * height) for x, y in points)


def templates(shape: Shape) -> dict[str, Template]:
    """The usual positions of the five landmarks in a crop, by name, the commonest for its size first.

    Args:
        shape: the crop's.
    """
    h, w = shape.height, shape.width
    # InsightFace's crop is 112 x 112; SphereFace's 112 x 96 is the same without 8 pixels on both sides.
    narrow = 7 * w == 6 * h
    arcface = _scaled(_ARCFACE, h / 112, h / 112, -8 * h / 112) if narrow else _scaled(_ARCFACE, w / 112, h / 112)
    found: dict[str, Template] = {
        "arcface": arcface,
        "dlib": _scaled(_DLIB, w / 150, h / 150),
        "mtcnn box": _scaled(_BOX, w / 160, h / 160),
        # InsightFace's crop for sides that are multiples of 128.
        "arcface in 128": tuple(((x + 8) * w / 128, y * h / 128) for x, y in _ARCFACE),
    }
    first = {160: "mtcnn box", 150: "dlib"}.get(h, "arcface")
    return {first: found[first], **found}


@dataclass(frozen=True)
class Reading:
    """One way to read a verifier.

    Attributes:
        shape: of the input.
        scaling: a name of `SCALINGS`.
        channels: their order.
        template: a name of `templates`, or `NO_TEMPLATE`.
        output: the name of the output with the embedding.
        compared: the metric. Euclidean distances are of embeddings as they are, without normalization.
    """

    shape: Shape
    scaling: str
    channels: Channels
    template: str
    output: str
    compared: Compared

    def spec(self, name: str) -> Input:
        """The manifest's [input]."""
        s, shape = SCALINGS[self.scaling], self.shape
        mean, std = (s.mean[::-1], s.std[::-1]) if self.channels == "BGR" else (s.mean, s.std)
        return Input(
            name, shape.height, shape.width, shape.layout, self.channels, float(s.low), float(s.high),
            s.standardization, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]),
        )  # fmt: skip

    def value(self, choice: str) -> str:
        """One of the choices of `neighbors`, in words."""
        return {
            "range": self.scaling, "channels": self.channels, "alignment": self.template, "metric": self.compared,
            "shape": f"{self.shape.layout} {self.shape.height} x {self.shape.width}", "output": self.output,
        }[choice]  # fmt: skip

    def points(self) -> Template | None:
        """The template's points; None for images that are crops already."""
        return None if self.template == NO_TEMPLATE else templates(self.shape)[self.template]


def metrics(outline: Outline, output: str) -> tuple[Compared, ...]:
    """The metrics that may differ on an output. On embeddings of length 1 all metrics decide alike."""
    return ("cosine",) if outline.unit_length[output] else ("cosine", "euclidean")


def neighbors(reading: Reading, outline: Outline, scalings: list[str], crops: list[str]) -> dict[str, list[Reading]]:
    """The readings that differ from one in a single choice, by the name of the choice.

    Args:
        reading: the one.
        outline: what the file says.
        scalings: names of the scalings to try.
        crops: names of the templates to try.
    """
    other: Channels = "RGB" if reading.channels == "BGR" else "BGR"
    return {
        "range": [replace(reading, scaling=s) for s in scalings if s != reading.scaling],
        "channels": [replace(reading, channels=other)],
        "alignment": [replace(reading, template=t) for t in crops if t != reading.template],
        "shape": [replace(reading, shape=s) for s in outline.shapes if s != reading.shape],
        "output": [_on_output(reading, outline, o) for o in outline.outputs if o != reading.output],
        "metric": [replace(reading, compared=m) for m in metrics(outline, reading.output) if m != reading.compared],
    }  # fmt: skip


def _on_output(reading: Reading, outline: Outline, output: str) -> Reading:
    possible = metrics(outline, output)
    return replace(reading, output=output, compared=reading.compared if reading.compared in possible else possible[0])
