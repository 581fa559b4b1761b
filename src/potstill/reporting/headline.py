"""The headline: what distilling has brought, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.reporting import format as fmt
from potstill.reporting.names import in_a_sentence, metric_name


def headline(report: Mapping[str, Any]) -> str:
    """One line about the distilled model, with a verb but without a subject; what was not measured is left out."""
    figures, metric = report["headline"], in_a_sentence(metric_name(report["main_metric"], report))
    parts = [
        _quality(report, metric),
        _change(figures["inference_time_reduction"], "answers in {} time", "less", "more"),
        _change(figures["memory_reduction"], "with {} memory", "less", "more"),
        _change(figures["cost_reduction"], "at {} cost", "lower", "higher"),
        None if figures["throughput_gain"] is None else f"{fmt.factor(figures['throughput_gain'])} the throughput",
    ]
    said = [part for part in parts if part is not None]
    return ", ".join(said) if said else _alone(report, metric)


def _quality(report: Mapping[str, Any], metric: str) -> str | None:
    retention, gain = report["headline"]["accuracy_retention"], report["headline"]["accuracy_gain"]
    if retention is None and gain is None:
        return None
    if retention is None:
        verb, against = ("gains", "over") if gain["value"] >= 0 else ("loses", "against")
        difference = f"{fmt.significant(abs(gain['value']))} {metric}"
        return f"{verb} {difference} {against} the untouched student ({fmt.p_value(gain['p_value'])})"
    kept = f"{'keeps' if retention <= 1 else 'reaches'} {fmt.percent(retention)} of {teachers_figure(report)}"
    if gain is None:
        return kept
    return f"{kept} (gain over the untouched student {fmt.signed(gain['value'])}, {fmt.p_value(gain['p_value'])})"


def teachers_figure(report: Mapping[str, Any]) -> str:
    """What retention is measured against."""
    metric = in_a_sentence(metric_name(report["main_metric"], report))
    return f"the teacher's {'self-agreement in ' if report['teacher_figure'] == 'self_agreement' else ''}{metric}"


def _change(reduction: float | None, phrase: str, lower: str, higher: str) -> str | None:
    if reduction is None:
        return None
    if abs(reduction) < 0.005:
        return phrase.format("the same")
    return phrase.format(f"{fmt.percent(abs(reduction))} {lower if reduction > 0 else higher}")


def _alone(report: Mapping[str, Any], metric: str) -> str:
    """Where nothing can be compared: what each model reaches."""
    reached = [f"{label} {fmt.figure(entry.get(report['main_metric']))}" for label, entry in report["models"].items()]
    return f"{metric}: {', '.join(reached)}; nothing was measured to compare it with"
