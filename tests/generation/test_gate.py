"""The first look at a teacher: what stops a run before the rest is paid for, and what is only said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loopback import Fault, LoopbackEndpoint, Messages, completion, raw, status
from potstill.errors import JobFailedError
from potstill.generation import Direct, Gate, OneTeacher, Teacher
from potstill.generation.gate import Score, Smoke
from potstill.inference import Client, Journal
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Sampling
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

LABELS = ("bell", "lamp")


def rows(count: int, *, first: int = 0, gold: bool = True) -> list[Row]:
    return [
        Row(f"r{number}", (Message("user", f"{LABELS[number % 2]} {number}"),), LABELS[number % 2] if gold else None)
        for number in range(first, first + count)
    ]


def right(messages: Messages) -> str:
    return messages[-1]["content"].partition("\n")[0].split()[0]


def number_of(messages: Messages) -> int:
    return int(messages[-1]["content"].split()[1])


def faulty(fault: Fault, count: int) -> Callable[[Messages, int], Fault | None]:
    return lambda messages, attempt: fault if number_of(messages) < count else None


async def pass_gate(folder: Path, server: LoopbackEndpoint, gate: Gate) -> tuple[Score | None, list[str]]:
    engine, said = EndpointEngine(server.base_url, "teacher", None, timeout_s=20), list[str]()
    try:
        with Journal(folder) as journal:
            teacher = Teacher("teacher", Client(engine, journal, concurrency=8, max_attempts=1), Sampling(max_tokens=16))
            score = await gate.passing("teacher", Direct(gate.task), OneTeacher(teacher), concurrency=8, say=said.append)
            return score, said
    finally:
        await engine.aclose()


@pytest.fixture
def task() -> Task:
    return get_task("classification").with_rows(rows(2))


@pytest.mark.parametrize(("asked", "needed"), [(16, 14), (15, 14), (8, 7), (3, 3), (1, 1)])
def test_fewer_rows_need_the_same_share(asked: int, needed: int) -> None:
    assert Smoke(asked, ()).needed == needed


FAULTS = {
    "truncated": raw(completion("bell", finish_reason="length")),
    "refused": raw(completion("bell", finish_reason="content_filter")),
    "unanswered": status(400, "no such thing"),
    "unparsable": raw(completion("I would rather not say which of them")),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_three_of_sixteen_stop_the_run_and_two_do_not(tmp_path: Path, kind: str) -> None:
    # A summary may not be cut off; a label may, but has to be one of the labels.
    task = get_task("summarization") if kind == "truncated" else get_task("classification").with_rows(rows(2))
    gate = Gate(task, rows(16), rows(40, first=16))
    async with LoopbackEndpoint(right, fault=faulty(FAULTS[kind], 3)) as server:
        with pytest.raises(JobFailedError) as raised:
            await pass_gate(tmp_path / "three", server, gate)
        assert len(server.requests) == 16
    shown = str(raised.value)
    assert "only 13 of the first 16 answers of teacher are of use" in shown
    assert f"3 {kind} (r0: " in shown
    assert "at least 14" in shown
    assert len(raised.value.lines()) <= 6
    async with LoopbackEndpoint(right, fault=faulty(FAULTS[kind], 2)) as server:
        await pass_gate(tmp_path / "two", server, gate)
        assert len(server.requests) == 56


async def test_a_run_that_was_stopped_stops_again_and_asks_nothing(tmp_path: Path, task: Task) -> None:
    gate = Gate(task, rows(16), [])
    async with LoopbackEndpoint(right, fault=faulty(FAULTS["unparsable"], 5)) as server:
        for _ in range(2):
            with pytest.raises(JobFailedError, match="11 of the first 16"):
                await pass_gate(tmp_path, server, gate)
        assert len(server.requests) == 16


async def test_a_teacher_that_costs_nothing_is_warned_of(tmp_path: Path, task: Task) -> None:
    gate = Gate(task, rows(8), [], stops=False)
    async with LoopbackEndpoint(right, fault=faulty(FAULTS["unparsable"], 4)) as server:
        score, said = await pass_gate(tmp_path, server, gate)
    assert said[0].startswith("of the first 8 answers 4 are of no use: 4 unparsable (r0: ")
    assert score == Score("accuracy", 0.5, 8)


async def test_where_rounds_take_hours_there_is_one(tmp_path: Path, task: Task) -> None:
    gate = Gate(task, rows(16), rows(4, first=16), at_once=True)
    async with LoopbackEndpoint(right, fault=faulty(FAULTS["unparsable"], 3)) as server:
        with pytest.raises(JobFailedError, match="13 of the first 16"):
            await pass_gate(tmp_path, server, gate)
        assert len(server.requests) == 20
    async with LoopbackEndpoint(right) as server:
        assert (await pass_gate(tmp_path / "again", server, gate))[0] == Score("accuracy", 1.0, 20)


async def test_the_score_is_of_all_that_were_asked_first_and_have_gold(tmp_path: Path, task: Task) -> None:
    gate = Gate(task, rows(16, gold=False), rows(10, first=16))
    async with LoopbackEndpoint(lambda messages: "bell") as server:
        score, said = await pass_gate(tmp_path, server, gate)
    assert score == Score("accuracy", 0.5, 10)
    assert said == ["teacher scores 0.500 in accuracy on the first 10 rows with a gold answer"]


async def test_rows_that_the_teacher_was_tuned_on_do_not_score_it(tmp_path: Path, task: Task) -> None:
    gate = Gate(task, rows(16), rows(10, first=16), knows_first=True)
    async with LoopbackEndpoint(lambda messages: "bell") as server:
        score, _ = await pass_gate(tmp_path, server, gate)
    assert score == Score("accuracy", 0.5, 10)


async def test_a_teacher_below_the_wanted_score_stops_the_run(tmp_path: Path, task: Task) -> None:
    async with LoopbackEndpoint(lambda messages: "bell") as server:
        score, _ = await pass_gate(tmp_path, server, Gate(task, rows(16), [], min_score=0.5))
        assert score is not None
        with pytest.raises(JobFailedError, match="not good enough") as raised:
            await pass_gate(tmp_path, server, Gate(task, rows(16), [], min_score=0.51))
    assert "scores 0.500 in accuracy on the first 16 rows" in str(raised.value)
    assert "at least 0.51" in str(raised.value)


async def test_without_gold_answers_there_is_no_score(tmp_path: Path, task: Task) -> None:
    async with LoopbackEndpoint(right) as server:
        assert await pass_gate(tmp_path, server, Gate(task, rows(4, gold=False), [])) == (None, [])


async def test_a_missing_answer_to_a_conversation_is_a_wrong_one(tmp_path: Path) -> None:
    turns = (Message("user", "one 1"), Message("assistant", "gold"), Message("user", "two 2"))
    row = Row("talk", turns, ["gold", "gold"])
    gate = Gate(get_task("conversation"), [row], [], stops=False)
    async with LoopbackEndpoint(right, fault=lambda messages, attempt: status(400)) as server:
        score, _ = await pass_gate(tmp_path, server, gate)
    assert score == Score("rouge_l", 0.0, 1)
