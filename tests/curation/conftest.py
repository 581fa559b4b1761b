"""Generated rows, as the teacher's answers leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from potstill.curation.rules import CorpusRule
from potstill.curation.words import Batch
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

Generated = Callable[..., Row]


@pytest.fixture
def text() -> Task:
    return get_task("text")


@pytest.fixture
def generated() -> Generated:
    """A row with one question and the teacher's answer to it."""

    def make(
        prompt: str,
        answer: str = "An answer.",
        *,
        id: str = "",
        system: str = "",
        gold: str | None = None,
        finish: str = "stop",
    ) -> Row:
        head = (Message("system", system),) if system else ()
        messages = (*head, Message("user", prompt), Message("assistant", answer))
        return Row(id or prompt, messages, gold, {"finish_reasons": [finish]})

    return make


@pytest.fixture
def said() -> Callable[..., list[str | None]]:
    """What a rule that compares rows says about each of them, in order; those that it keeps are kept."""

    def judge(rule: CorpusRule, rows: Sequence[Row], task: Task) -> list[str | None]:
        rule.observe(Batch(rows, np.arange(len(rows)), task))
        rule.settle(rows.__getitem__)
        reasons: list[str | None] = []
        for index in range(len(rows)):
            reasons.append(rule.reject(index))
            if reasons[-1] is None:
                rule.keep(index)
        return reasons

    return judge


@pytest.fixture
def prepared() -> Callable[..., Row]:
    """A held-out row with one question, before anyone answers it."""

    def make(prompt: str, *, id: str = "held-out", system: str = "") -> Row:
        head = (Message("system", system),) if system else ()
        return Row(id, (*head, Message("user", prompt)))

    return make
