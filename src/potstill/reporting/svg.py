"""The parts that plots are made of: elements, scales, ticks.

Elements are text; colours are CSS classes (`m-teacher`, `axis`, `grid`), so that one style sheet serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from potstill.reporting.names import KNOWN_MODELS


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from low to high onto pixels from start to end, in proportion or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._of(self.low), self._of(self.high)
        return self.start + (self._of(value) - low) / (high - low) * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart), about `wanted` of them, that enclose low and high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten that enclose low and high; powers alone where that would be more than six."""
    ticks = _enclosing([factor * 10.0**power for power in _powers(low, high) for factor in (1, 2, 5)], low, high)
    return ticks if len(ticks) <= 6 else _enclosing([10.0**power for power in _powers(low, high)], low, high)


def _powers(low: float, high: float) -> range:
    return range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)


def _enclosing(ticks: Sequence[float], low: float, high: float) -> list[float]:
    first = max(index for index, tick in enumerate(ticks) if tick <= low * 1.000001)
    last = min(index for index, tick in enumerate(ticks) if tick >= high * 0.999999)
    return list(ticks[first : max(last, first + 1) + 1])


def tick_text(value: float) -> str:
    """A tick as short as it can be."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}".replace("-", "−")


def picture(width: float, height: float, title: str, description: str, parts: Sequence[str], css: str = "plot") -> str:
    """A whole SVG of that size, scaled by its surroundings, with what a screen reader says of it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><title>{escape(title)}</title><desc>{escape(description)}</desc>'
        + "".join(parts)
        + "</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def rectangle(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def circle(x: float, y: float, radius: float, css: str) -> str:
    return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{css}" d="{drawn}"/>'


def model_class(label: str) -> str:
    """The CSS class that colours a model."""
    return f"m-{label}" if label in KNOWN_MODELS else "m-other"


def marker(x: float, y: float, label: str, radius: float = 4.5) -> str:
    """A model's mark: a shape of its own, so that colour is not all that tells models apart."""
    css = f"mark {model_class(label)}"
    r = radius
    if label == "teacher":
        return rectangle(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8, css)
    corners = {
        "baseline": [(0, -r * 1.15), (r * 1.1, r * 0.85), (-r * 1.1, r * 0.85)],
        "weights": [(0, -r * 1.25), (r * 1.25, 0), (0, r * 1.25), (-r * 1.25, 0)],
    }.get(label)
    if corners is None:
        return circle(x, y, r, css)
    drawn = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{css}" points="{drawn}"/>'


def small_mark(label: str) -> str:
    """A model's mark alone, to stand before its name."""
    return f'<svg class="key" aria-hidden="true" viewBox="0 0 12 12" width="12" height="12">{marker(6, 6, label)}</svg>'


def bin_counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each bin; the last bin takes its upper edge, too."""
    bins = list(pairwise(edges))
    return [sum(low <= value < high or value == high == edges[-1] for value in values) for low, high in bins]
