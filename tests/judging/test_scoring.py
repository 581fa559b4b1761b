"""Answers scored by a judge over HTTP."""

from __future__ import annotations

from pathlib import Path

from judging.judges import answers_shown, judge, rows_of
from loopback import Messages, completion
from potstill.inference import Client, Journal
from potstill.inference.endpoint import EndpointEngine
from potstill.judging import Judgement, make_rubric, score_answer, score_answers
from potstill.tasks import get_task

RUBRIC = make_rubric(get_task("text"))


def by_length(messages: Messages) -> str:
    """A score as high as the answer has words; of five and more it cannot say anything."""
    words = len(answers_shown(messages)[0].split())
    return f'{{"reason": "{words} words", "score": {words}}}' if words < 5 else "A very long answer."


async def test_each_answer_has_its_judgement_in_order(tmp_path: Path) -> None:
    answers = ["one", "one two three four", "", "one two three", "a b c d e f", "  "]
    nothing = Judgement(1.0, False, "there is no answer")
    done: list[tuple[int, int]] = []
    async with judge(tmp_path, by_length) as (client, server):
        judged = await score_answers(client, rows_of(6), answers, RUBRIC, on_done=lambda *counts: done.append(counts))
    assert [entry.score for entry in judged] == [1, 4, 1, 3, None, 1]
    assert [entry.accepted for entry in judged] == [False, True, False, False, None, False]
    assert judged[1].reason == "4 words"
    assert (judged[2], judged[5]) == (nothing, nothing)
    assert "states no score" in str(judged[4].failure)
    assert len(server.requests) == 4
    assert done[-1] == (4, 4)


async def test_the_same_question_is_asked_once_and_kept(tmp_path: Path) -> None:
    rows = [rows_of(1)[0]] * 3
    async with judge(tmp_path, by_length) as (client, server):
        first = await score_answers(client, rows, ["one two"] * 3, RUBRIC)
        again = await score_answer(client, rows[0], "one two", RUBRIC)
    assert [entry.score for entry in (*first, again)] == [2] * 4
    assert len(server.requests) == 1
    assert server.requests[0].body["temperature"] == 0


async def test_a_dialogue_that_lacks_a_turn_is_not_asked_about(tmp_path: Path) -> None:
    rubric = make_rubric(get_task("conversation"))
    async with judge(tmp_path, by_length) as (client, server):
        missing = await score_answer(client, rows_of(1)[0], ["Hello.", ""], rubric)
    assert (missing.score, missing.accepted, server.requests) == (1, False, [])


async def test_a_verdict_that_was_cut_off_is_none(tmp_path: Path) -> None:
    class Cut(EndpointEngine):
        """Says that its last word was not the last one it had."""

        def parse(self, raw):  # type: ignore[no-untyped-def]
            return super().parse(raw.__class__(200, completion('{"score": 4', finish_reason="length"), raw.latency_s))

    async with judge(tmp_path, by_length) as (_, server):
        engine = Cut(server.base_url, "judge", None)
        with Journal(tmp_path / "other") as journal:
            judged = await score_answer(Client(engine, journal, concurrency=1), rows_of(1)[0], "one two", RUBRIC)
        await engine.aclose()
    assert (judged.score, judged.accepted) == (None, None)
    assert "cut off" in str(judged.failure)
