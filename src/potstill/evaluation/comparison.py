"""The figures of a report: each model's metrics with intervals, and how the models differ.

Pure functions of predictions and profiles. What was not measured is None, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from potstill.evaluation.predictions import Prediction, Profile
from potstill.judging import Judgement
from potstill.metrics import bootstrap_ci, macro_f1, paired_difference, proportion_ci
from potstill.rows import Row
from potstill.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Figure = dict[str, Any]

_PROFILE_FIGURES = (
    "parameters",
    "memory_bytes",
    "disk_bytes",
    "inference_time",
    "latency_p50",
    "latency_p95",
    "throughput_rps",
    "throughput_concurrency",
    "cost_per_1k_requests",
)


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """One model of a report. name: what the user calls it. token_accuracy: per row, measured on the weights, where it was.
    judgements: a judge's, one a row in the order of the report's rows, where one is set."""

    name: str
    predictions: Sequence[Prediction]
    profile: Profile
    token_accuracy: Sequence[float] | None = None
    judgements: Sequence[Judgement] | None = None


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """A model's scores, one a row and metric, in the order of the rows, and its figures as the report shows them."""

    per_row: Mapping[str, Sequence[float]]
    figures: Mapping[str, Figure | None]


def score_model(model: MeasuredModel, rows: Sequence[Row], task: Task) -> ScoredModel:
    """Score the predictions of one model on these rows; each row must have a reference and a prediction.

    Every metric is {"value", "ci95": [low, high], "n"}. `accuracy` is always there: where the task's own metrics have none it
    is the share of answers that a judge accepts, marked by "measured_by": "judge", where one is set; else the next-token
    accuracy on the reference, marked by "measured_on": "weights", or None where that was not measured. With a judge there is
    `judge_score` too. Verdicts that could not be read count in neither; None where none could.
    """
    by_id = {prediction.id: prediction for prediction in model.predictions}
    predictions = [by_id[row.id].prediction for row in rows]
    score = task.score(predictions, rows)
    figures: dict[str, Figure | None] = {name: mean_figure(values) for name, values in score.per_row.items()}
    for name, value in score.corpus.items():
        figures[name] = {"value": value, "ci95": list(_corpus_interval(name, predictions, rows, task)), "n": len(rows)}
    if "accuracy" not in figures:
        figures["accuracy"] = _acceptance(model) if model.judgements is not None else _token_accuracy(model)
    if model.judgements is not None:
        scores = [entry.score for entry in model.judgements if entry.score is not None]
        figures["judge_score"] = _bootstrapped(scores) if scores else None
    return ScoredModel(score.per_row, figures)


def _acceptance(model: MeasuredModel) -> Figure | None:
    accepted = [float(entry.accepted) for entry in model.judgements or () if entry.accepted is not None]
    return {**mean_figure(accepted), "measured_by": "judge"} if accepted else None


def _token_accuracy(model: MeasuredModel) -> Figure | None:
    measured = model.token_accuracy
    return None if measured is None else {**mean_figure(measured), "measured_on": "weights"}


def mean_figure(values: Sequence[float]) -> Figure:
    """The mean with its 95 % interval: Wilson's for rows that are right or wrong, bootstrapped for others."""
    n = len(values)
    if set(values) <= {0.0, 1.0}:
        return {"value": sum(values) / n, "ci95": list(proportion_ci(round(sum(values)), n)), "n": n}
    return _bootstrapped(values)


def _bootstrapped(values: Sequence[float]) -> Figure:
    return {"value": sum(values) / len(values), "ci95": list(bootstrap_ci(values)), "n": len(values)}


def _corpus_interval(
    name: str, predictions: Sequence[str | list[str]], rows: Sequence[Row], task: Task
) -> tuple[float, float]:
    """The interval of a metric that only exists for all rows together: rows are drawn again, and it is computed anew."""
    statistic = _CORPUS_STATISTICS[name]
    # Answers are read once: reading them in every resample would take a thousand times as long.
    found = [task.parse(last_turn(prediction), row).value for prediction, row in zip(predictions, rows, strict=True)]
    golds = [task.parse(row.references[0], row).value or row.references[0] for row in rows]

    def of_rows(indices: NDArray[np.float64]) -> float:
        drawn = [int(index) for index in indices]
        return statistic([golds[index] for index in drawn], [found[index] for index in drawn])

    return bootstrap_ci(range(len(rows)), statistic=of_rows, n_resamples=_CORPUS_RESAMPLES)


def last_turn(prediction: str | list[str]) -> str:
    return prediction if isinstance(prediction, str) else prediction[-1]


def _macro_f1(golds: Sequence[str], found: Sequence[str | None]) -> float:
    return macro_f1(golds, found, sorted(set(golds)))


_CORPUS_RESAMPLES = 999
_CORPUS_STATISTICS: dict[str, Callable[[Sequence[str], Sequence[str | None]], float]] = {"macro_f1": _macro_f1}


def difference_figure(a: Sequence[float], b: Sequence[float]) -> Figure:
    """How much better `a` is than `b` on the same rows: {"value", "ci95", "n", "p_value"}."""
    difference = paired_difference(a, b)
    return {**asdict(difference), "ci95": list(difference.ci95)}


def model_entry(model: MeasuredModel, scored: ScoredModel) -> dict[str, Any]:
    """A model as report.json shows it: what it costs to run, then its metrics."""
    costs = {name: getattr(model.profile, name) for name in _PROFILE_FIGURES}
    return {"name": model.name, **costs, **scored.figures}


def headline(models: Mapping[str, MeasuredModel], scored: Mapping[str, ScoredModel], main_metric: str) -> dict[str, Any]:
    """The six figures that say what distilling has brought, in fractions; None where an input was not measured."""
    teacher, distilled = models.get("teacher"), models.get("distilled")

    def ratio(name: str) -> float | None:
        """The distilled model's cost over the teacher's."""
        if teacher is None or distilled is None:
            return None
        return _ratio(getattr(distilled.profile, name), getattr(teacher.profile, name))

    return {
        "accuracy_retention": _ratio(_main(scored, "distilled", main_metric), _main(scored, "teacher", main_metric)),
        "accuracy_gain": (
            difference_figure(scored["distilled"].per_row[main_metric], scored["baseline"].per_row[main_metric])
            if {"distilled", "baseline"} <= set(scored)
            else None
        ),
        "inference_time_reduction": _reduction(ratio("inference_time")),
        "memory_reduction": _reduction(ratio("memory_bytes")),
        "cost_reduction": _reduction(ratio("cost_per_1k_requests")),
        "throughput_gain": ratio("throughput_rps"),
    }


def _main(scored: Mapping[str, ScoredModel], label: str, main_metric: str) -> float | None:
    figure = scored[label].figures[main_metric] if label in scored else None
    return None if figure is None else figure["value"]


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _reduction(ratio: float | None) -> float | None:
    return None if ratio is None else 1 - ratio
