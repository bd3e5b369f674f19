"""Plots as inline SVG: pure functions from points to markup, no script, coloured by the page's CSS variables."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import msgspec

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 44
_MAX_POINTS = 400
_TICKS = 5


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A named line through (x, y) points."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled axis. end: fixes its upper end; None = fits the points."""

    label: str
    is_log: bool = False
    end: float | None = None


def line_plot(title: str, x: Axis, y: Axis, series: Sequence[Series], *, is_marked: bool = False) -> str:
    """One `<figure>` with an SVG line plot; `is_marked` draws each point with its values as a tooltip."""
    drawn = [one for one in series if one.points]
    if not drawn:
        return f"<figure><figcaption>{html.escape(title)}</figcaption><p>nothing was measured</p></figure>"
    x_scale = _Scale(x, [px for one in drawn for px, _ in one.points], _LEFT, _WIDTH - _RIGHT)
    y_scale = _Scale(y, [py for one in drawn for _, py in one.points], _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        *_grid(x_scale, y_scale),
    ]
    for number, one in enumerate(drawn):
        points = [(x_scale.at(px), y_scale.at(py)) for px, py in thinned(one.points)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(
            f'<polyline class="line c{number % 6}" points="{path}"><title>{html.escape(one.name)}</title></polyline>'
        )
        if is_marked:
            for (px, py), (raw_x, raw_y) in zip(points, thinned(one.points), strict=True):
                told = html.escape(f"{one.name}: {x.label} {number_text(raw_x)}, {y.label} {number_text(raw_y)}")
                parts.append(
                    f'<circle class="dot c{number % 6}" cx="{px:.1f}" cy="{py:.1f}" r="4">'
                    f"<title>{told}</title></circle>"
                )
    parts.append("</svg>")
    legend = "".join(
        f'<span class="key c{number % 6}">{html.escape(one.name)}</span>' for number, one in enumerate(drawn)
    )
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f"<figure>{caption}{''.join(parts)}<div class=legend>{legend}</div></figure>"


def cumulative(values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of an empirical distribution: (value, share of the sample at or below it in %)."""
    ordered = sorted(values)
    return [(value, 100.0 * (rank + 1) / len(ordered)) for rank, value in enumerate(ordered)]


def thinned(points: Sequence[tuple[float, float]], limit: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` of the points, evenly chosen, first and last among them."""
    if len(points) <= limit:
        return list(points)
    step = (len(points) - 1) / (limit - 1)
    return [points[round(index * step)] for index in range(limit)]


def nice_ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high. Source: Heckbert 1990, "Nice numbers for graph labels"."""
    span = max(high - low, 1e-12)
    magnitude = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if span / (magnitude * factor) <= _TICKS + 1e-9)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number_text(value: float) -> str:
    """A number for an axis: as short as it can be."""
    return f"{value:.4g}"


class _Scale:
    """Values of one axis to pixels."""

    def __init__(self, axis: Axis, values: Sequence[float], pixel_low: float, pixel_high: float) -> None:
        positive = [value for value in values if value > 0]
        self.axis = axis
        self.is_log = axis.is_log and bool(positive)
        self.low = min(positive) if self.is_log else 0.0
        self.high = axis.end if axis.end is not None else max(values)
        if self.high <= self.low:
            self.high = self.low * 2 if self.low > 0 else 1.0
        self._pixel_low, self._pixel_high = pixel_low, pixel_high

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self._pixel_low + share * (self._pixel_high - self._pixel_low)

    def ticks(self) -> list[float]:
        if not self.is_log:
            return nice_ticks(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        inside = [tick for tick in found if self.low <= tick <= self.high]
        return inside[:: max(1, math.ceil(len(inside) / 8))]


def _grid(x: _Scale, y: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts: list[str] = []
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{number_text(tick)}</text>'
        )
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{number_text(tick)}</text>'
        )
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="name" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x.axis.label)}</text>'
    )
    turned = f'transform="rotate(-90 14 {(bottom + _TOP) / 2})"'
    parts.append(
        f'<text class="name" x="14" y="{(bottom + _TOP) / 2}" text-anchor="middle" {turned}>'
        f"{html.escape(y.axis.label)}</text>"
    )
    return parts
