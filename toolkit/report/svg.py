"""Line charts as SVG. The page's style sheet sets their colors, so that they suit light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.text import escaped

Values = NDArray[np.float64]

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
# Dashes, so that readers can tell lines apart without color.
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")
COLORS = 6


@dataclass(frozen=True)
class Line:
    """One line of a chart through x and y (n,), with an optional band from `low` to `high` (n,). One point is a dot."""

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Axis:
    """An axis from `start` to `end`, in transformed units, for example logarithms. `ticks` are positions with texts."""

    label: str
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]

    def places(self, values: Values, length: float) -> Values:
        """Convert values to distances from the axis' start, and clip them to the axis."""
        return np.clip((values - self.start) / max(self.end - self.start, 1e-12), 0, 1) * length


def axis(label: str, end: float, count: int = 5) -> Axis:
    """Make a linear axis from zero."""
    step = _round(end / count) if end > 0 else 1.0
    ticks = np.arange(0, end * (1 + 1e-9), step) if end > 0 else np.array([0.0])
    return Axis(label, 0.0, float(end) or 1.0, tuple((float(t), f"{t:g}") for t in ticks))


def chart(lines: Sequence[Line], x: Axis, y: Axis, description: str) -> str:
    """Draw a chart with a legend below it. Screen readers read `description`."""
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(description)}">',
        *(_tick_x(_LEFT + float(x.places(np.array(at), width)), text) for at, text in x.ticks),
        *(_tick_y(_TOP + height - float(y.places(np.array(at), height)), text) for at, text in y.ticks),
        f'<text class="axis" x="{_LEFT + width / 2:.0f}" y="{_HEIGHT - 6}">{escaped(x.label)}</text>',
        f'<text class="axis" transform="translate(12 {_TOP + height / 2:.0f}) rotate(-90)">{escaped(y.label)}</text>',
    ]
    for number, line in enumerate(lines):
        across = _LEFT + x.places(line.x, width)

        def down(values: Values) -> Values:
            return _TOP + height - y.places(values, height)

        style = f'class="c{number % COLORS}" stroke-dasharray="{_DASHES[number // COLORS % len(_DASHES)]}"'
        if line.low is not None and line.high is not None:
            outline = [
                *zip(across, down(line.low), strict=True),
                *reversed(list(zip(across, down(line.high), strict=True))),
            ]
            parts.append(f'<polygon class="band c{number % COLORS}" points="{_points(outline)}"/>')
        places = list(zip(across, down(line.y), strict=True))
        parts.append(f'<polyline {style} points="{_points(places)}"/>')
        if len(places) == 1:
            parts.append(f'<circle {style} cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="5"/>')
    return "".join(parts) + "</svg>" + _legend(lines)


def _legend(lines: Sequence[Line]) -> str:
    entries = (
        f'<li><svg viewBox="0 0 28 8" class="key" aria-hidden="true"><polyline class="c{i % COLORS}" '
        f'stroke-dasharray="{_DASHES[i // COLORS % len(_DASHES)]}" points="0,4 28,4"/></svg>{escaped(line.name)}</li>'
        for i, line in enumerate(lines)
    )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _tick_x(at: float, text: str) -> str:
    bottom = _HEIGHT - _BOTTOM
    return (
        f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/><text x="{at:.1f}" y="{bottom + 16}">{escaped(text)}</text>'
    )


def _tick_y(at: float, text: str) -> str:
    label = f'<text class="left" x="{_LEFT - 6}" y="{at + 4:.1f}">{escaped(text)}</text>'
    return f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>{label}'


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _round(step: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    power = float(10 ** np.floor(np.log10(step)))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * (1 - 1e-9))
