"""Score answers by a rubric.

What goes in: rows, an answer to each, a rubric, and a client around the judge. What comes out: one judgement an answer, in
order. What it costs: one request an answer that the journal does not hold yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill.inference.client import Client
from potstill.judging.asking import Heard, ask_each, heard_of, judge_request
from potstill.judging.prompts import SCORE_SCHEMA, is_whole, score_messages
from potstill.judging.rubric import Rubric
from potstill.judging.verdicts import read_score
from potstill.rows import Row
from potstill.tasks.base import Prediction


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one answer.

    score: on the rubric's scale; accepted: whether that is good enough; both None where no verdict could be read, and then
    `failure` says why. reason: the judge's own words.
    """

    score: float | None
    accepted: bool | None
    reason: str | None = None
    failure: str | None = None


async def score_answers(
    client: Client,
    rows: Sequence[Row],
    answers: Sequence[Prediction],
    rubric: Rubric,
    *,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judgement]:
    """One judgement an answer, in order. An answer that is empty, or lacks a turn, gets the lowest score unasked.

    Args:
        rows: As prepared or as generated; of the latter the turns that the task asks for are left out.
        answers: Each a text, or the turns of a conversation.
        on_done: Called with the number of requests answered and of all.

    Raises:
        EndpointError: the judge's endpoint refuses every request or does not answer at all.
    """
    pairs = list(zip(rows, answers, strict=True))
    asked = [place for place, (_, answer) in enumerate(pairs) if is_whole(answer)]
    heard = await ask_each(client, [score_messages(*pairs[place], rubric) for place in asked], SCORE_SCHEMA, on_done)
    judgements = [_nothing_said(rubric)] * len(pairs)
    for place, reply in zip(asked, heard, strict=True):
        judgements[place] = _judgement(reply, rubric)
    return judgements


async def score_answer(client: Client, row: Row, answer: Prediction, rubric: Rubric) -> Judgement:
    """The same for one answer.

    Raises:
        EndpointError: as `score_answers`.
    """
    if not is_whole(answer):
        return _nothing_said(rubric)
    request = judge_request(client, score_messages(row, answer, rubric), SCORE_SCHEMA)
    return _judgement(heard_of(await client.ask(request)), rubric)


def _nothing_said(rubric: Rubric) -> Judgement:
    return Judgement(float(rubric.scale.low), accepted=False, reason="there is no answer")


def _judgement(heard: Heard, rubric: Rubric) -> Judgement:
    if heard.text is None:
        return Judgement(None, None, failure=heard.failure)
    verdict = read_score(heard.text, rubric.scale)
    if verdict.value is None:
        return Judgement(None, None, verdict.reason, verdict.unread)
    return Judgement(verdict.value, rubric.scale.accepts(verdict.value), verdict.reason)
