"""The teacher's answers, from a real endpoint on loopback: what it is asked, what its replies become, what is asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loopback import Fault, LoopbackEndpoint, Messages, completion, raw, status
from potstill.errors import EndpointError
from potstill.generation import Direct, OneTeacher, Outcome, RejectedRow, Teacher, generate_answers
from potstill.inference import retry
from potstill.inference.client import Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Sampling
from potstill.rows import Row
from potstill.tasks import Task, get_task

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=100)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come after milliseconds."""
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.002)


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def dialogue(*turns: str, system: str = "") -> dict[str, object]:
    """A record whose turns, the user's first, alternate."""
    head = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant") * len(turns)
    return {"messages": head + [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]}


def questions(task: Task, count: int) -> list[Row]:
    return [task.row({"prompt": f"question {number}", "completion": "gold"}) for number in range(count)]


def failing_on(content: str, fault: Fault) -> Callable[[Messages, int], Fault | None]:
    return lambda messages, attempt: fault if messages[-1]["content"] == content else None


async def answers(
    server: LoopbackEndpoint,
    folder: Path,
    rows: Sequence[Row],
    task: Task,
    *,
    sampling: Sampling = SAMPLING,
    concurrency: int = 4,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row | RejectedRow]:
    found: dict[int, Row | RejectedRow] = {}

    def keep(number: int, outcome: Outcome) -> None:
        assert number not in found
        found[number] = outcome if isinstance(outcome, RejectedRow) else outcome[0]
        on_done(len(found), len(rows))

    engine = EndpointEngine(server.base_url, "teacher", None, timeout_s=20)
    try:
        with Journal(folder) as journal:
            client = Client(engine, journal, concurrency=concurrency, max_attempts=2)
            strategy = OneTeacher(Teacher("teacher", client, sampling))
            await generate_answers(rows, Direct(task), strategy, concurrency=concurrency, on_row=keep)
    finally:
        await engine.aclose()
    return [found[number] for number in range(len(rows))]


def spoken(row: Row | RejectedRow) -> list[tuple[str, str]]:
    assert isinstance(row, Row), row.reason
    return [(message.role, message.content) for message in row.messages]


async def test_every_row_is_answered_in_its_own_place(tmp_path: Path) -> None:
    task, progress = get_task("text"), list[tuple[int, int]]()
    rows = questions(task, 20)
    async with LoopbackEndpoint(shout, delay_s=0.01) as server:
        found = await answers(server, tmp_path, rows, task, concurrency=3, on_done=lambda *counts: progress.append(counts))
    assert [spoken(row) for row in found] == [
        [("user", f"question {n}"), ("assistant", f"QUESTION {n}")] for n in range(20)
    ]
    assert [row.id for row in found if isinstance(row, Row)] == [row.id for row in rows]
    assert progress == [(done, 20) for done in range(1, 21)]
    assert server.most_in_flight == 3


async def test_a_row_keeps_its_gold_answer_and_notes_how_it_was_answered(tmp_path: Path) -> None:
    task = get_task("conversation")
    row = task.row({**dialogue("one two", "gold", "three", "gold"), "topic": "counting"})
    async with LoopbackEndpoint(shout) as server:
        (found,) = await answers(server, tmp_path, [row], task)
    assert isinstance(found, Row)
    assert found.reference == ["gold", "gold"]
    assert found.meta["topic"] == "counting"
    assert found.meta["finish_reasons"] == ["stop", "stop"]
    assert found.meta["completion_tokens"] == 3  # the loopback endpoint counts words: ONE TWO, THREE
    assert found.meta["latency_s"] > 0


async def test_each_turn_of_a_conversation_is_built_on_the_teachers_own(tmp_path: Path) -> None:
    task = get_task("conversation")
    row = task.row(dialogue("hello", "gold one", "where is it", "gold two", "thanks", "gold three", system="Be kind."))
    async with LoopbackEndpoint(shout) as server:
        (found,) = await answers(server, tmp_path, [row], task)
    system, first = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}
    own = {"role": "assistant", "content": "HELLO"}
    second = {"role": "user", "content": "where is it"}
    assert [request.messages for request in server.requests[:2]] == [[system, first], [system, first, own, second]]
    assert len(server.requests) == 3
    assert spoken(found) == [
        ("system", "Be kind."), ("user", "hello"), ("assistant", "HELLO"), ("user", "where is it"),
        ("assistant", "WHERE IS IT"), ("user", "thanks"), ("assistant", "THANKS"),
    ]
    assert "gold" not in str([request.messages for request in server.requests])


async def test_a_task_with_one_answer_keeps_the_history_it_was_given(tmp_path: Path) -> None:
    task = get_task("text")
    row = task.row(dialogue("hi", "earlier turn", "and now", "gold"))
    async with LoopbackEndpoint(shout) as server:
        (found,) = await answers(server, tmp_path, [row], task)
    assert [message["content"] for message in server.requests[0].messages] == ["hi", "earlier turn", "and now"]
    assert spoken(found) == [("user", "hi"), ("assistant", "earlier turn"), ("user", "and now"), ("assistant", "AND NOW")]


async def test_the_teacher_is_told_the_labels_and_the_row_that_is_kept_is_not(tmp_path: Path) -> None:
    task = get_task("classification", ("lost_card", "other"))
    row = task.row({"text": "My card is gone", "label": "lost_card"})
    async with LoopbackEndpoint(lambda messages: "lost_card") as server:
        (found,) = await answers(server, tmp_path, [row], task)
    assert "lost_card, other" in server.requests[0].messages[0]["content"]
    assert isinstance(found, Row)
    assert found.messages[:-1] == row.messages


async def test_sampling_is_passed_on_and_thoughts_have_room(tmp_path: Path) -> None:
    """An endpoint's thoughts count as tokens of its answer, so the length of a label is no limit there."""
    nli = get_task("nli")
    pair = nli.row({"premise": "It rains.", "hypothesis": "It is wet."})
    async with LoopbackEndpoint(shout) as server:
        await answers(server, tmp_path, questions(get_task("text"), 1), get_task("text"))
        await answers(server, tmp_path, [pair], nli)
    whole, label = (request.body for request in server.requests)
    assert (whole["temperature"], whole["top_p"], whole["max_tokens"]) == (0.7, 0.9, 100)
    assert (label["temperature"], label["top_p"], label["max_tokens"]) == (0.7, 0.9, 100)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (status(400, "the prompt is too long"), "the prompt is too long"),
        (status(500, "out of luck"), "no answer after 2 tries"),
        (raw(b"<html>busy</html>"), "no answer after 2 tries: the reply is not JSON"),
        (raw(completion("  \n")), "the reply is empty"),
        (raw(completion("", finish_reason="length")), "the token limit was used up before the answer began"),
        (raw(completion("", finish_reason="content_filter")), "the endpoint filtered the answer"),
    ],
    ids=["too-long", "failing", "not-json", "empty", "used-up", "filtered"],
)
async def test_a_row_without_a_usable_reply_is_rejected_and_the_others_go_on(tmp_path: Path, fault: Fault, why: str) -> None:
    task = get_task("text")
    rows = questions(task, 6)
    async with LoopbackEndpoint(shout, fault=failing_on("question 2", fault)) as server:
        found = await answers(server, tmp_path, rows, task)
    assert [isinstance(row, Row) for row in found] == [True, True, False, True, True, True]
    rejected = found[2]
    assert isinstance(rejected, RejectedRow)
    assert rejected.row == rows[2]
    assert why in rejected.reason


async def test_a_conversation_that_fails_in_the_middle_is_rejected_whole(tmp_path: Path) -> None:
    task = get_task("conversation")
    rows = [task.row(dialogue("one", "gold", "two", "gold", "three")), task.row(dialogue("four"))]
    async with LoopbackEndpoint(shout, fault=failing_on("two", status(400, "no"))) as server:
        found = await answers(server, tmp_path, rows, task)
    assert [type(row) for row in found] == [RejectedRow, Row]
    assert "three" not in str([request.messages for request in server.requests])


async def test_cut_and_declined_answers_are_not_judged_here(tmp_path: Path) -> None:
    task = get_task("text")
    cut = failing_on("question 0", raw(completion("Once upon", finish_reason="length")))
    async with LoopbackEndpoint(lambda messages: "I can't help with that.", fault=cut) as server:
        found = await answers(server, tmp_path, questions(task, 2), task)
    assert [row.meta["finish_reasons"] for row in found if isinstance(row, Row)] == [["length"], ["stop"]]


async def test_a_second_run_asks_nothing_and_ten_added_rows_ask_ten(tmp_path: Path) -> None:
    task = get_task("text")
    async with LoopbackEndpoint(shout) as server:
        first = await answers(server, tmp_path, questions(task, 12), task)
        assert len(server.requests) == 12
        assert await answers(server, tmp_path, questions(task, 12), task) == first
        assert len(server.requests) == 12
        more = await answers(server, tmp_path, list(reversed(questions(task, 22))), task)
    assert len(server.requests) == 22
    assert more[10:] == first[::-1]
    assert server.repeats() == 0


async def test_a_conversation_that_was_answered_is_not_asked_again_for_a_turn_more(tmp_path: Path) -> None:
    task = get_task("conversation")
    async with LoopbackEndpoint(shout) as server:
        await answers(server, tmp_path, [task.row(dialogue("one", "gold", "two"))], task)
        await answers(server, tmp_path, [task.row(dialogue("one", "other gold", "two", "gold", "three"))], task)
    assert [request.messages[-1]["content"] for request in server.requests] == ["one", "two", "three"]


async def test_other_sampling_is_asked_anew(tmp_path: Path) -> None:
    task = get_task("text")
    async with LoopbackEndpoint(shout) as server:
        for temperature in (0.7, 0.2):
            await answers(server, tmp_path, questions(task, 3), task, sampling=Sampling(temperature=temperature))
    assert len(server.requests) == 6


async def test_an_endpoint_that_refuses_everybody_stops_the_job_as_one_error(tmp_path: Path) -> None:
    task = get_task("text")
    async with LoopbackEndpoint(shout, fault=lambda messages, attempt: status(401, "wrong key")) as server:
        with pytest.raises(EndpointError, match="status 401"):
            await answers(server, tmp_path, questions(task, 8), task)


async def test_after_a_stop_only_the_missing_rows_are_asked(tmp_path: Path) -> None:
    task = get_task("text")
    stop = failing_on("question 9", status(402, "no credit"))
    async with LoopbackEndpoint(shout, fault=stop) as server:
        with pytest.raises(EndpointError):
            await answers(server, tmp_path, questions(task, 10), task, concurrency=1)
        answered = len(server.requests) - 1
        assert answered == 9
    async with LoopbackEndpoint(shout, port=int(server.base_url.rpartition(":")[2].partition("/")[0])) as again:
        found = await answers(again, tmp_path, questions(task, 10), task)
    assert all(isinstance(row, Row) for row in found)
    assert [request.messages[-1]["content"] for request in again.requests] == ["question 9"]


async def test_no_rows_ask_nobody(tmp_path: Path) -> None:
    async with LoopbackEndpoint(shout) as server:
        assert await answers(server, tmp_path, [], get_task("text")) == []
    assert server.requests == []
