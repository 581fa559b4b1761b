"""Which plots the page has: from report.json and predictions to the shapes that plots.py draws.

Each is None where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from potstill.reporting import format as fmt
from potstill.reporting.names import COSTS, metric_name
from potstill.reporting.plots import (
    Interval,
    Sample,
    Series,
    histogram_rows,
    interval_plot,
    line_chart,
    small_bars,
    small_intervals,
)

if TYPE_CHECKING:
    from markupsafe import Markup

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its heading and what a reader should know about it."""

    heading: str
    svg: Markup
    caption: str


def markup(svg: str) -> Markup:
    """SVG that our own functions wrote; they escape every text."""
    from markupsafe import Markup

    return Markup(svg)


def _intervals(report: Report, key: str) -> list[Interval]:
    return [
        _interval(label, label, entry[key]) for label, entry in report["models"].items() if entry.get(key) is not None
    ]


def _interval(label: str, model: str, figure: Mapping[str, Any]) -> Interval:
    low, high = figure["ci95"]
    return Interval(label, model, figure["value"], low, high, fmt.figure(figure))


def main_metric(report: Report) -> Markup | None:
    """All models on the main metric, and the best constant answer."""
    key, name = report["main_metric"], metric_name(report["main_metric"], report)
    rows = _intervals(report, key)
    if not rows:
        return None
    if report["best_constant"] is not None:
        rows.append(_interval("best constant", "constant", report["best_constant"]))
    x_label = f"{name}, mean over test rows with 95 % interval"
    return markup(interval_plot(rows, x_label=x_label, title=f"{name} of every model"))


def metric_cell(report: Report, key: str) -> Markup | None:
    rows = _intervals(report, key)
    return markup(small_intervals(rows, title=metric_name(key, report))) if rows else None


def cost_cell(report: Report, key: str) -> Markup | None:
    bars = [(label, float(entry[key])) for label, entry in report["models"].items() if entry[key] is not None]
    return markup(small_bars(bars, title=COSTS[key][0])) if bars else None


def losses(training: Mapping[str, Any]) -> Markup | None:
    """Training and validation loss by step, the kept checkpoint marked."""
    learnt = [(point["step"], point["loss"]) for point in training["loss_curve"]]
    validated = [(point["step"], point["loss"]) for point in training["validation_curve"]]
    series = [
        Series(label, points, css, dotted=css == "validation")
        for label, points, css in (("training", learnt, "training"), ("validation", validated, "validation"))
        if points
    ]
    if not series:
        return None
    best = training["best_step"]
    kept = next(((step, loss, f"kept checkpoint, step {best:,}") for step, loss in validated if step == best), None)
    return markup(
        line_chart(series, marked=kept, x_label="optimizer steps", y_label="loss, nats a target token", title="Loss by step")
    )


def latency(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    return _distribution(
        predictions, "latency_s", fmt.seconds, "Time per answer", "seconds a response",
        "One value a test row, as the process that asks sees it; each model is scaled to its own highest bar.",
    )


def length(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    return _distribution(
        predictions, "completion_tokens", fmt.count, "Length of answers", "tokens a row",
        "Tokens as each model's own tokenizer counts them, all turns of a row together.",
    )


def _distribution(
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    key: str,
    unit: Callable[[float], str],
    heading: str,
    x_label: str,
    caption: str,
) -> Plot | None:
    measured = {label: [entry[key] for entry in entries if entry[key] is not None] for label, entries in predictions.items()}
    samples = [Sample(label, values) for label, values in measured.items() if values]
    if not samples:
        return None
    return Plot(heading, markup(histogram_rows(samples, unit=unit, x_label=x_label, title=heading)), caption)
