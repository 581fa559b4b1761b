"""What a judge says of the models of a report.

What goes in: the test rows, each model's predictions, a rubric and a client around the judge. What comes out: a judgement a row
and model, where asked for a comparison of the distilled model with the baseline and the teacher on each row, and the figures
that report.json has of them. What it costs: one request a row and model, and two a row and comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from potstill.evaluation.predictions import Prediction
from potstill.inference.client import Client
from potstill.judging import (
    Comparison,
    Judgement,
    PositionBias,
    Rubric,
    Tally,
    agreement,
    compare_answers,
    is_whole,
    position_bias,
    score_answers,
    tally,
)
from potstill.rows import Row
from potstill.tasks import Task

OPPONENTS = ("baseline", "teacher")
# Tasks whose answers nothing but a reader can call right: a judge's acceptance is their accuracy.
ACCEPTANCE_TASKS = ("conversation", "text", "summarization")


@dataclass(frozen=True, slots=True)
class Judged:
    """judge: what the user calls it. judgements: by model label, one a row in order. comparisons: of the distilled model with
    each opponent, by the opponent's label, one a row in order; empty where none were asked for."""

    judge: str
    rubric: Rubric
    judgements: Mapping[str, Sequence[Judgement]]
    comparisons: Mapping[str, Sequence[Comparison]]


def opponents_of(labels: Sequence[str]) -> list[str]:
    """Whom the distilled model is compared with, of the models that were measured."""
    return [label for label in OPPONENTS if label in labels] if "distilled" in labels else []


async def judge_models(
    client: Client,
    name: str,
    rubric: Rubric,
    rows: Sequence[Row],
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    pairwise: bool,
    on_done: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Judged:
    """Ask the judge about every prediction; what its journal holds is not asked again.

    Args:
        name: What the user calls the judge.
        predictions: By model label; each has one for every row.
        on_done: Called with the number of requests answered and of all for what is being judged, and with what that is.

    Raises:
        EndpointError: the judge's endpoint refuses every request or does not answer at all.
    """
    said = {label: _in_order(entries, rows) for label, entries in predictions.items()}
    judgements: dict[str, list[Judgement]] = {}
    for label, answers in said.items():
        judgements[label] = await score_answers(client, rows, answers, rubric, on_done=_named(label, on_done))
    comparisons: dict[str, list[Comparison]] = {}
    for label in opponents_of(list(said)) if pairwise else ():
        named = _named(f"distilled against {label}", on_done)
        comparisons[label] = await compare_answers(client, rows, said["distilled"], said[label], rubric, on_done=named)
    return Judged(name, rubric, judgements, comparisons)


def _in_order(predictions: Sequence[Prediction], rows: Sequence[Row]) -> list[str | list[str]]:
    by_id = {entry.id: entry.prediction for entry in predictions}
    return [by_id[row.id] for row in rows]


def _named(what: str, on_done: Callable[[int, int, str], None]) -> Callable[[int, int], None]:
    return lambda done, total: on_done(done, total, what)


def judge_figures(
    judged: Judged, rows: Sequence[Row], predictions: Mapping[str, Sequence[Prediction]], task: Task, *, gold: bool
) -> dict[str, Any]:
    """The `judge` of report.json; what could not be measured is None.

    Args:
        gold: Whether the rows' references are gold answers, which the judge's acceptance can be held against.
    """
    pairs = [comparison for entries in judged.comparisons.values() for comparison in entries]
    bias = position_bias(pairs)
    scale = judged.rubric.scale
    return {
        "model": judged.judge,
        "rubric": judged.rubric.criteria,
        "scale": [scale.low, scale.high],
        "accepted_from": scale.accepted_from,
        "unreadable": {
            label: sum(entry.score is None for entry in entries) for label, entries in judged.judgements.items()
        },
        "agreement_with_gold": _agreement_figures(judged, rows, predictions, task) if gold else None,
        "distilled_against": {label: _tally_figures(tally(entries)) for label, entries in judged.comparisons.items()} or None,
        "position_bias": None if bias is None else _bias_figures(bias),
    }


def _agreement_figures(
    judged: Judged, rows: Sequence[Row], predictions: Mapping[str, Sequence[Prediction]], task: Task
) -> dict[str, Any] | None:
    """How the judge's acceptance agrees with the task's own verifier, over all answers that it was asked about."""
    by_row: list[list[tuple[bool, bool]]] = [[] for _ in rows]
    for label, judgements in judged.judgements.items():
        answers = _in_order(predictions[label], rows)
        for pairs, row, answer, judgement in zip(by_row, rows, answers, judgements, strict=True):
            verified = task.verify(answer if isinstance(answer, str) else answer[-1], row)
            if verified is not None and judgement.accepted is not None and is_whole(answer):
                pairs.append((judgement.accepted, verified))
    found = agreement(by_row)
    if found is None:
        return None
    return {
        "accuracy": found.accuracy.as_dict(),
        "kappa": None if found.kappa is None else found.kappa.as_dict(),
        "wrongly_accepted": found.wrongly_accepted,
        "wrongly_rejected": found.wrongly_rejected,
    }


def _tally_figures(counted: Tally) -> dict[str, Any]:
    rate = counted.win_rate
    return {**asdict(counted), "win_rate": None if rate is None else rate.as_dict()}


def _bias_figures(bias: PositionBias) -> dict[str, Any]:
    return {name: getattr(bias, name).as_dict() for name in ("changed", "towards_first", "towards_second")}


def judgement_lines(judged: Judged, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every verdict, as evaluation/judgements.jsonl has them: scores by model, comparisons by opponent."""
    scored = [
        {"id": row.id, "model": label, **asdict(entry)}
        for label, entries in judged.judgements.items()
        for row, entry in zip(rows, entries, strict=True)
    ]
    compared = [
        {"id": row.id, "distilled_against": label, "outcome": entry.outcome, **asdict(entry)}
        for label, entries in judged.comparisons.items()
        for row, entry in zip(rows, entries, strict=True)
    ]
    return [*scored, *compared]
