"""report.html: one page that needs nothing but itself.

In: the content of report.json, the job file, the training's history, the predictions of every model, the test rows and the
rejected rows. Out: HTML with its style and its plots inside, no script and no reference to anything outside. Every text of a
user or a model is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from potstill.reporting import charts
from potstill.reporting import format as fmt
from potstill.reporting.answers import excerpt, side_by_side
from potstill.reporting.charts import markup
from potstill.reporting.headline import headline, teachers_figure
from potstill.reporting.judging import judge_section
from potstill.reporting.names import (
    COSTS,
    LOSSES,
    assumptions,
    in_a_sentence,
    metric_keys,
    metric_meaning,
    metric_name,
    model_meanings,
    rule_meaning,
    student_name,
    teacher_name,
)
from potstill.reporting.svg import model_class, small_mark
from potstill.reporting.teachers import teachers_table

if TYPE_CHECKING:
    from jinja2 import Template

Report = Mapping[str, Any]
Predictions = Mapping[str, Sequence[Mapping[str, Any]]]


def render_page(
    report: Report,
    *,
    job_yaml: str,
    training: Mapping[str, Any] | None,
    predictions: Predictions,
    rows: Sequence[Mapping[str, Any]],
    rejected: Sequence[Mapping[str, Any]],
    samples: int = 10,
) -> str:
    """The page as HTML.

    Args:
        job_yaml: The job as resolved; shown as it stands.
        training: The training's history (training.json), None where nothing was trained.
        predictions: By model label, one entry a test row, as evaluation/<label>.jsonl has them.
        rows: The test rows with their references, as evaluation/rows.jsonl has them.
        rejected: What curation rejected, as curated/rejected.jsonl has it.
        samples: How many test rows are shown with every model's answer.
    """
    job = yaml.safe_load(job_yaml)
    return _template().render(
        report=report,
        teacher=teacher_name(job),
        student=student_name(job),
        headline=_sentence(report),
        tiles=_tiles(report),
        table=_table(report),
        meanings=model_meanings(report, job),
        main_plot=charts.main_metric(report),
        constant=_constant(report),
        charts=[plot for plot in (charts.latency(predictions), charts.length(predictions)) if plot is not None],
        failures=_failures(predictions),
        judge=judge_section(report),
        training=_training(training),
        answers=side_by_side(report, rows, predictions, samples),
        teachers=teachers_table(report),
        data=_data(report, rejected),
        assumptions=assumptions(report),
        environment=_environment(report["environment"]),
        job_yaml=job_yaml,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = fmt.typeset
    environment.globals.update(model_class=model_class, mark=lambda label: markup(small_mark(label)), count=fmt.count)
    return environment.get_template("page.html.j2")


def _sentence(report: Report) -> str:
    said = headline(report)
    return f"The distilled model {said}." if "distilled" in report["models"] else f"{said}."


def _tiles(report: Report) -> list[dict[str, str]]:
    """The headline's figures, large, each with the two numbers it comes from."""
    figures, models = report["headline"], report["models"]
    teacher, distilled = models.get("teacher"), models.get("distilled")
    tiles = []
    if figures["accuracy_retention"] is not None:
        main = report["main_metric"]
        tiles.append(
            {
                "value": fmt.percent(figures["accuracy_retention"]),
                "label": f"of {teachers_figure(report)}",
                "note": f"{fmt.metric(distilled[main]['value'])} of {fmt.metric(teacher[main]['value'])}",
            }
        )
    gain = figures["accuracy_gain"]
    if gain is not None:
        low, high = gain["ci95"]
        tiles.append(
            {
                "value": fmt.signed(gain["value"]),
                "label": f"{metric_name(report['main_metric'], report)} over the untouched student",
                "note": f"95 % interval {fmt.signed(low)} to {fmt.signed(high)}, {fmt.p_value(gain['p_value'])}",
            }
        )
    for name, cost, label in (
        ("inference_time_reduction", "inference_time", "time per answer"),
        ("memory_reduction", "memory_bytes", "memory"),
        ("cost_reduction", "cost_per_1k_requests", "cost per 1,000 requests"),
    ):
        if figures[name] is not None:
            cell = COSTS[cost][1]
            tiles.append(
                {"value": _change(figures[name]), "label": label, "note": f"{cell(distilled)} instead of {cell(teacher)}"}
            )
    if figures["throughput_gain"] is not None:
        pair = [fmt.rate(entry["throughput_rps"]) for entry in (distilled, teacher)]
        tiles.append(
            {"value": fmt.factor(figures["throughput_gain"]), "label": "throughput", "note": f"{pair[0]} instead of {pair[1]}"}
        )
    return tiles


def _change(reduction: float) -> str:
    """A reduction as the change it is: −71 %, +12 %."""
    sign = fmt.MINUS if reduction > 0 else "+"
    return f"{sign}{fmt.percent(abs(reduction))}" if reduction else "±0 %"


def _table(report: Report) -> dict[str, list[dict[str, Any]]]:
    """The figures of all models: two groups of rows, each row with its cells and a small plot."""
    models = report["models"]
    quality = [
        {
            "name": metric_name(key, report),
            "note": metric_meaning(key, report),
            "cells": [(label, *_metric_cell(entry.get(key))) for label, entry in models.items()],
            "plot": charts.metric_cell(report, key),
        }
        for key in metric_keys(report)
    ]
    costs = [
        {
            "name": name,
            "note": "",
            "cells": [(label, *_cost_cell(cell(entry))) for label, entry in models.items()],
            "plot": charts.cost_cell(report, key),
        }
        for key, (name, cell) in COSTS.items()
    ]
    return {"Quality": quality, "What it takes to run": costs}


def _metric_cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    return (fmt.DASH, "") if figure is None else (fmt.metric(figure["value"]), "{} – {}".format(*fmt.bounds(figure["ci95"])))


def _cost_cell(text: str) -> tuple[str, str]:
    value, _, note = text.partition(" (")
    return value, note.rstrip(")")


def _constant(report: Report) -> dict[str, Any] | None:
    """What the best constant answer would reach, in words."""
    constant = report["best_constant"]
    if constant is None:
        return None
    gain, metric = constant["gain"], in_a_sentence(metric_name(report["main_metric"], report))
    told = f"would reach {metric} {fmt.figure(constant)}."
    if gain is not None:
        better = "better" if gain["value"] >= 0 else "worse"
        low, high = gain["ci95"]
        told += (
            f" The distilled model is {fmt.signed(abs(gain['value'])).lstrip('+')} {better} (95 % interval {fmt.signed(low)} "
            f"to {fmt.signed(high)}, {fmt.p_value(gain['p_value'])}, paired by row)."
        )
    return {"answer": excerpt(constant["answer"]), "told": told}


def _failures(predictions: Predictions) -> list[dict[str, Any]]:
    """Per model: the rows without an answer, with the first reason, and those that were cut off."""
    found = []
    for label, entries in predictions.items():
        reasons = [entry["failure"] for entry in entries if entry["failure"] is not None]
        cut = sum(entry["finish_reason"] == "length" for entry in entries)
        if reasons or cut:
            first = reasons[0] if reasons else ""
            found.append({"model": label, "rows": len(entries), "failed": len(reasons), "reason": first, "cut": cut})
    return found


def _training(training: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if training is None:
        return None
    facts = {
        "Optimizer steps": fmt.count(training["steps"]),
        "Kept": f"step {fmt.count(training['best_step'])}, epoch {training['best_epoch']:g}",
        "Validation loss there": f"{training['best_validation_loss']:.3f} nats a token",
        "Texts": f"{fmt.count(training['train_texts'])} to learn from, {fmt.count(training['validation_texts'])} to validate",
        "Tokens an epoch": fmt.count(training["train_tokens"]),
        "Of these learnt": fmt.count(training["train_target_tokens"]),
        "Parameters trained": f"{fmt.count(training['trained_parameters'])} of {fmt.count(training['parameters'])}",
    }
    left_out = len(training["train_left_out"]) + len(training["validation_left_out"])
    if left_out:
        facts["Left out"] = f"{fmt.counted(left_out, 'row')} longer than {fmt.count(training['max_length'])} tokens"
    if training.get("train_untaught"):
        facts["Without probabilities"] = f"{fmt.counted(len(training['train_untaught']), 'row')} left out"
    closeness = _closeness(training)
    facts |= closeness
    notes = []
    if closeness:  # they share an axis, not a meaning
        notes.append(
            "The training loss compares distributions; the validation loss is the cross-entropy on the teacher's answers."
        )
    if training["overfitting"]:
        notes.append("After the kept checkpoint validation loss rose while training loss fell: it began to learn by heart.")
    if training["stopped_early"]:
        notes.append("Training stopped before its last epoch, because the validation loss no longer fell.")
    return {"plot": charts.losses(training), "facts": facts, "notes": notes}


def _closeness(training: Mapping[str, Any]) -> dict[str, str]:
    """How close the kept student is to the teacher's distributions on the validation rows, where it learnt from them."""
    kept = [point for point in training["validation_curve"] if point["step"] == training["best_step"]]
    parts = dict(kept[0].get("parts") or {}) if kept else {}
    agreement = parts.pop("agreement", None)
    told = {f"{LOSSES[name]} there": f"{value:.3f} nats a token" for name, value in parts.items()}
    return told if agreement is None else {**told, "Same first choice as the teacher": f"{agreement:.1%} of tokens"}


def _data(report: Report, rejected: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows by split at each step, and why others were not kept."""
    counts = report["counts"]
    steps = [(name, counts.get(key) or {}) for key, name in (("rows", "read"), ("answered", "answered"), ("kept", "kept"))]
    splits = [split for split in ("train", "validation", "test") if any(split in by_split for _, by_split in steps)]
    by_rule: dict[str, int] = dict(counts.get("rejected") or {})
    examples: dict[str, str] = {}
    for entry in rejected:
        examples.setdefault(entry["rule"], entry["reason"])
    rules = [
        {"name": rule_meaning(rule), "count": number, "example": examples.get(rule, "")}
        for rule, number in sorted(by_rule.items(), key=lambda item: -item[1])
    ]
    return {
        "splits": splits,
        "steps": [(name, [by_split.get(split) for split in splits]) for name, by_split in steps],
        "rules": rules,
        "dropped": counts.get("dropped"),
        "unanswered": counts.get("unanswered"),
    }


def _environment(environment: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Processor": f"{environment['cpu']}, {environment['cpus']} CPUs usable",
        "Memory": fmt.size(environment["memory_bytes"]),
        "System": environment["system"],
        "Python": environment["python"],
        "Libraries": ", ".join(f"{name} {version}" for name, version in environment["libraries"].items()),
    }
