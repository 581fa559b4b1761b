"""Next-token accuracy on the reference: how often a model's first choice is the token that the reference has there.

What goes in: a model whose weights are at hand, and rows with references. What comes out: one share a row. What it costs: one
forward pass over each row. Endpoints do not show their weights, and give no figure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from potstill.catalog.model import ResolvedModel
from potstill.inference import open_scorer
from potstill.inference.protocol import ScoringEngine
from potstill.rows import Message, Row
from potstill.tasks import Task
from potstill.templates import ChatTemplate, TrainingText

_ROWS_AT_ONCE = 4  # of the longest texts the logits alone take hundreds of megabytes a row


def measure_token_accuracy(
    model: ResolvedModel,
    rows: Sequence[Row],
    task: Task,
    *,
    untrained: bool,
    threads: int | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[float] | None:
    """The share of each row's reference tokens, the end of the turn included, that are the model's first choice.

    Each assistant turn is met with the reference's own earlier turns before it. None for a model that is not a folder of
    weights. Teacher-forced accuracy says how well a model fits the reference's wording, not how good its own answers are.

    Raises:
        InputError: a row has no reference, or the model's template cannot render it.
    """
    if model.kind != "folder" or model.path is None:
        return None
    template = ChatTemplate.from_folder(model.path)
    texts = [_reference_texts(row, task, template, untrained=untrained) for row in rows]
    engine = open_scorer(model, threads=threads)
    return asyncio.run(_score_all(engine, texts, on_done))


def _reference_texts(row: Row, task: Task, template: ChatTemplate, *, untrained: bool) -> list[TrainingText]:
    messages = task.teacher_messages(row) if untrained else row.messages
    reference = row.reference[-1] if isinstance(row.reference, list) else row.reference or ""
    whole = [*messages, Message("assistant", reference)]
    return template.training_texts(whole, last_only=task.turns(row) == 1)


async def _score_all(
    engine: ScoringEngine, texts: Sequence[Sequence[TrainingText]], on_done: Callable[[int, int], None]
) -> list[float]:
    try:
        shares: list[float] = []
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            shares.extend(await _score_rows(engine, texts[start : start + _ROWS_AT_ONCE]))
            on_done(len(shares), len(texts))
        return shares
    finally:
        await engine.aclose()


async def _score_rows(engine: ScoringEngine, texts: Sequence[Sequence[TrainingText]]) -> list[float]:
    pairs = [list(_prompts_and_targets(of_row)) for of_row in texts]
    flat = [pair for of_row in pairs for pair in of_row]
    scores = iter(await engine.score([prompt for prompt, _ in flat], [target for _, target in flat]))
    shares = []
    for of_row in pairs:
        hits = [hit for _ in of_row for hit in next(scores).top1]
        shares.append(sum(hits) / len(hits))
    return shares


def _prompts_and_targets(texts: Sequence[TrainingText]) -> Iterator[tuple[str, str]]:
    for text in texts:
        for start, end in text.spans:
            yield text.text[:start], text.text[start:end]
