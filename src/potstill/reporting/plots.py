"""The plots of the page: pure functions from numbers to SVG.

Each has axis labels with units, a title and a description for those who do not see it, and text that keeps clear of other text.
Sizes are in CSS pixels at full width; wide enough to be read when a phone shrinks them to 350.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from potstill.reporting import svg
from potstill.reporting.svg import Scale

WIDTH = 440.0
_LEFT, _RIGHT = 36.0, WIDTH - 12.0
_BINS = 28
_LOG_FROM = 20.0  # a range wider than this factor is drawn on a logarithmic axis


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval. model: whose colour and mark it has; shown: the figure as text."""

    label: str
    model: str
    value: float
    low: float
    high: float
    shown: str


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart. css: its class; dotted: whether its points are marked."""

    label: str
    points: Sequence[tuple[float, float]]
    css: str
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one model."""

    model: str
    values: Sequence[float]


def interval_plot(rows: Sequence[Interval], *, x_label: str, title: str) -> str:
    """One row a figure: a mark with its interval, name to the left, value to the right. Starts at zero."""
    left, right, row_height, top = 112.0, 300.0, 30.0, 10.0
    bottom = top + row_height * len(rows)
    ticks = svg.nice_ticks(min(0.0, *(row.low for row in rows)), max(row.high for row in rows), 4)
    x = Scale(ticks[0], ticks[-1], left, right)
    parts = _x_axis(ticks, x, top, bottom, x_label)
    for index, row in enumerate(rows):
        y = top + row_height * (index + 0.5)
        parts += [
            svg.text(left - 12, y + 4, row.label, "name", "end"),
            *_whisker(row, x, y),
            svg.text(right + 14, y + 4, row.shown, "value"),
        ]
    description = "; ".join(f"{row.label}: {row.shown}" for row in rows)
    return svg.picture(WIDTH, bottom + 40, title, description, parts)


def _whisker(row: Interval, x: Scale, y: float, radius: float = 4.5) -> list[str]:
    css = f"whisker {svg.model_class(row.model)}"
    caps = [svg.line(x(end), y - radius * 0.7, x(end), y + radius * 0.7, css) for end in (row.low, row.high)]
    return [svg.line(x(row.low), y, x(row.high), y, css), *caps, svg.marker(x(row.value), y, row.model, radius)]


def small_intervals(rows: Sequence[Interval], *, title: str) -> str:
    """The same for a table cell: no names, ends of the axis alone."""
    width, pitch = 150.0, 11.0
    bottom = pitch * len(rows) + 3
    ticks = svg.nice_ticks(min(0.0, *(row.low for row in rows)), max(row.high for row in rows), 3)
    x = Scale(ticks[0], ticks[-1], 8, width - 8)
    parts = [svg.line(x(ticks[0]), bottom, x(ticks[-1]), bottom, "axis")]
    for tick in (ticks[0], ticks[-1]):
        parts.append(svg.line(x(tick), bottom - 3, x(tick), bottom, "axis"))
        parts.append(svg.text(x(tick), bottom + 11, svg.tick_text(tick), "tick", "middle"))
    for index, row in enumerate(rows):
        parts += _whisker(row, x, pitch * (index + 0.5) + 1, 3.2)
    description = "; ".join(f"{row.label}: {row.shown}" for row in rows)
    return svg.picture(width, bottom + 14, title, description, parts, "plot small")


def small_bars(bars: Sequence[tuple[str, float]], *, title: str) -> str:
    """One bar a model, in proportion to the largest, for a table cell."""
    width, pitch = 150.0, 9.0
    x = Scale(0, max(value for _, value in bars) or 1.0, 8, width - 8)
    parts = [
        svg.rectangle(x(0), pitch * index + 2, max(1.0, x(value) - x(0)), pitch - 3, f"bar {svg.model_class(model)}")
        for index, (model, value) in enumerate(bars)
    ]
    description = "; ".join(f"{model}: {value:.3g}" for model, value in bars)
    return svg.picture(width, pitch * len(bars) + 2, title, description, parts, "plot small")


def line_chart(
    series: Sequence[Series], *, marked: tuple[float, float, str] | None, x_label: str, y_label: str, title: str
) -> str:
    """Lines over a common axis. marked: a point of them that is pointed out, and what is said of it."""
    top, bottom = 52.0, 250.0
    points = [point for line in series for point in line.points]
    x_ticks = svg.nice_ticks(0, max(x for x, _ in points), 7)
    y_ticks = svg.nice_ticks(min(0.0, *(y for _, y in points)), max(y for _, y in points))
    x, y = Scale(x_ticks[0], x_ticks[-1], _LEFT, _RIGHT), Scale(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [svg.text(0, 12, y_label, "label")]
    for tick in y_ticks:
        parts.append(svg.line(_LEFT, y(tick), _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 8, y(tick) + 4, svg.tick_text(tick), "tick", "end"))
    parts += _x_axis(x_ticks, x, bottom, bottom, x_label)
    for line in series:
        drawn = [(x(px), y(py)) for px, py in line.points]
        parts.append(svg.path(drawn, f"line {line.css}"))
        parts += [svg.circle(px, py, 3, f"dot {line.css}") for px, py in drawn if line.dotted]
    legend = [(line.label, line.css, False) for line in series]
    if marked is not None:
        parts.append(svg.circle(x(marked[0]), y(marked[1]), 7, "kept"))
        legend.append((marked[2], "kept", True))
    parts += _legend(legend, 32.0)
    description = "; ".join(f"{line.label}: from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in series)
    return svg.picture(WIDTH, bottom + 40, title, description, parts)


def _legend(entries: Sequence[tuple[str, str, bool]], y: float) -> list[str]:
    parts, x = [], 0.0
    for label, css, ring in entries:
        mark = svg.circle(x + 8, y - 4, 5, css) if ring else svg.line(x, y - 4, x + 16, y - 4, f"line {css}")
        parts += [mark, svg.text(x + 22, y, label, "label")]
        x += 22 + 6.6 * len(label) + 18
    return parts


def histogram_rows(samples: Sequence[Sample], *, unit: Callable[[float], str], x_label: str, title: str) -> str:
    """One histogram a model over a common axis, its median marked; each is scaled to its own highest bar."""
    head, height, gap, top, start = 18.0, 40.0, 12.0, 4.0, 8.0
    values = [value for sample in samples for value in sample.values]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > _LOG_FROM
    ticks = svg.log_ticks(low, high) if logarithmic else svg.nice_ticks(0, high, 7)
    x = Scale(ticks[0], ticks[-1], start, _RIGHT, logarithmic)
    edges = _edges(ticks[0], ticks[-1], logarithmic)
    bottom = top + len(samples) * (head + height + gap) - gap
    parts = []
    for index, sample in enumerate(samples):
        base = top + index * (head + height + gap) + head + height
        middle = median(sample.values)
        parts.append(svg.marker(start + 5, base - height - 10, sample.model, 4))
        parts.append(svg.text(start + 15, base - height - 6, sample.model, "name"))
        parts.append(svg.text(_RIGHT, base - height - 6, f"median {unit(middle)}", "value", "end"))
        parts += _bars(sample, edges, x, base, height - 4)
        parts += [svg.line(x(middle), base - height, x(middle), base, "median"), svg.line(start, base, _RIGHT, base, "axis")]
    parts += _x_axis(ticks, x, bottom, bottom, x_label + (", logarithmic" if logarithmic else ""))
    description = "; ".join(f"{sample.model}: median {unit(median(sample.values))}" for sample in samples)
    return svg.picture(WIDTH, bottom + 40, title, description, parts)


def _edges(low: float, high: float, logarithmic: bool) -> list[float]:
    steps = [index / _BINS for index in range(_BINS + 1)]
    inner = [low * (high / low) ** step if logarithmic else low + (high - low) * step for step in steps[1:-1]]
    return [low, *inner, high]


def _bars(sample: Sample, edges: Sequence[float], x: Scale, base: float, height: float) -> list[str]:
    counts = svg.bin_counts(sample.values, edges)
    most = max(counts)
    return [
        svg.rectangle(x(edges[i]) + 0.5, base - height * n / most, x(edges[i + 1]) - x(edges[i]) - 1, height * n / most,
                      f"bar {svg.model_class(sample.model)}")
        for i, n in enumerate(counts)
        if n
    ]


def _x_axis(ticks: Sequence[float], x: Scale, top: float, bottom: float, label: str) -> list[str]:
    """Ticks under an axis, grid lines from top to bottom, and the label under all."""
    parts = [svg.line(x.start, bottom, x.end, bottom, "axis")]
    for tick in ticks:
        if top < bottom:
            parts.append(svg.line(x(tick), top, x(tick), bottom, "grid"))
        parts.append(svg.line(x(tick), bottom, x(tick), bottom + 4, "axis"))
        parts.append(svg.text(x(tick), bottom + 17, svg.tick_text(tick), "tick", "middle"))
    parts.append(svg.text((x.start + x.end) / 2, bottom + 34, label, "label", "middle"))
    return parts
