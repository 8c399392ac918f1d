"""Line charts as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 34
# Paul Tol's bright scheme, which stays apart for colour-blind readers.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#888888")
TICKS = 5
MOST_POINTS = 400
# Values that spread further are drawn on a logarithmic axis.
LINEAR_RATIO = 100.0


@dataclass(frozen=True)
class LineChart:
    """Lines over one axis.

    Attributes:
        title: of the chart.
        series: points (x, y) of each line in the order of x; values that are not finite leave a gap.
        x_label: name of the axis.
    """

    title: str
    series: Mapping[str, Sequence[Point]]
    x_label: str = "step"


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most about `most` points: the first, least, greatest and last of each of many equal parts, in order."""
    if len(points) <= most:
        return list(points)
    n_parts = max(1, most // 4)
    kept: list[Point] = []
    for part in range(n_parts):
        places = range(part * len(points) // n_parts, (part + 1) * len(points) // n_parts)
        finite = [place for place in places if math.isfinite(points[place][1])]
        chosen = {places[0], places[-1]}
        # A line breaks at a value that is not finite.
        chosen.update(next(([place] for place in places if not math.isfinite(points[place][1])), []))
        if finite:
            chosen |= {min(finite, key=lambda place: points[place][1]), max(finite, key=lambda place: points[place][1])}
        kept += [points[place] for place in sorted(chosen)]
    return kept


def line_chart(chart: LineChart) -> str:
    """Return a figure with title, lines, axes and legend; an empty text if no value is finite."""
    series = {name: thinned(points) for name, points in chart.series.items()}
    finite = [(x, y) for points in series.values() for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    x_axis = _Axis.over([x for x, _ in finite], LEFT, WIDTH - RIGHT)
    y_axis = _Axis.over([y for _, y in finite], HEIGHT - BOTTOM, TOP, may_be_logarithmic=True)
    parts = [*_grid(x_axis, y_axis, chart.x_label)]
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(series))]
    for (name, points), colour in zip(series.items(), colours, strict=True):
        parts += _line(name, points, colour, x_axis, y_axis)
    legend = "".join(
        f'<span><span style="color:{colour}" aria-hidden="true">&#9644;</span> {escape(name)}</span>'
        for name, colour in zip(series, colours, strict=True)
    )
    axis = " (logarithmic)" if y_axis.logarithmic else ""
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}{axis}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_described(chart, series))}">'
        f'{"".join(parts)}</svg><div class="legend">{legend}</div></figure>'
    )


def shown(value: float) -> str:
    """Format a number with three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class _Axis:
    """Maps values to coordinates."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, may_be_logarithmic: bool = False) -> _Axis:
        low, high = min(values), max(values)
        if may_be_logarithmic and low > 0 and high / low > LINEAR_RATIO:
            return cls(math.log10(low), math.log10(high), start, end, True)
        if may_be_logarithmic:
            if 0 < low < high / 2:
                low = 0.0
            if low == high == 0:
                high = 1.0
            elif low == high:
                low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        elif low == high:
            low, high = low - 1, high + 1
        return cls(low, high, start, end, False)

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        place = math.log10(value) if self.logarithmic else value
        return self.start + (self.end - self.start) * (place - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values inside of the axis."""
        if self.logarithmic:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            return [10.0**power for power in powers[:: math.ceil(len(powers) / TICKS) or 1]]
        span = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(span))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _tick_text(value: float) -> str:
    return f"{value:,.6g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3g}"


def _grid(x_axis: _Axis, y_axis: _Axis, x_label: str) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for value in y_axis.ticks():
        y = y_axis.at(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick_text(value)}</text>'
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    for value in x_axis.ticks():
        x = x_axis.at(value)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_tick_text(value)}</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>'


def _line(name: str, points: Sequence[Point], colour: str, x_axis: _Axis, y_axis: _Axis) -> Iterator[str]:
    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(f"{x_axis.at(x):.1f},{y_axis.at(y):.1f}")
        elif runs[-1]:
            runs.append([])
    for run in filter(None, runs):
        if len(run) == 1:
            x_text, _, y_text = run[0].partition(",")
            yield f'<circle cx="{x_text}" cy="{y_text}" r="2.5" fill="{colour}"><title>{escape(name)}</title></circle>'
        else:
            yield f'<polyline points="{" ".join(run)}" stroke="{colour}"><title>{escape(name)}</title></polyline>'


def _described(chart: LineChart, series: Mapping[str, Sequence[Point]]) -> str:
    """Say the first and the last value of each line."""
    lines = []
    for name, points in series.items():
        finite = [point for point in points if math.isfinite(point[1])]
        if finite:
            (first_x, first), (last_x, last) = finite[0], finite[-1]
            ends = f"{shown(first)} at {chart.x_label} {first_x:,g}, {shown(last)} at {chart.x_label} {last_x:,g}"
            lines.append(f"{name}: {ends}")
    return f"Line chart, {chart.title}. {'; '.join(lines)}."
