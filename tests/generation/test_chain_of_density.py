"""Four rounds of one summary from a real endpoint on loopback: what each is asked, and which is kept when one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import Fault, LoopbackEndpoint, Messages, completion, raw, status
from potstill.generation.candidate import Candidate, Failure, answered_row
from potstill.generation.chain_of_density import ROUNDS, ChainOfDensity
from potstill.generation.ways import Teacher
from potstill.inference.client import Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Sampling
from potstill.rows import Row
from potstill.tasks.summarization import Summarization

TASK = Summarization(max_words=40)
ARTICLE = TASK.row({"document": "The council of Ghent voted on Monday to close Mill Street."})


def round_of(messages: Messages) -> int:
    return 1 + sum(message["role"] == "assistant" for message in messages)


def summary(messages: Messages) -> str:
    return f"summary {round_of(messages)}"


async def ask(
    server: LoopbackEndpoint, folder: Path, row: Row = ARTICLE, max_tokens: int = 512, top_logprobs: int = 0
) -> Candidate | Failure:
    engine = EndpointEngine(server.base_url, "teacher", None, timeout_s=20)
    try:
        with Journal(folder) as journal:
            client = Client(engine, journal, concurrency=2, max_attempts=2)
            teacher = Teacher("teacher", client, Sampling(max_tokens=max_tokens), top_logprobs)
            return await ChainOfDensity(TASK).ask(teacher, row, 0)
    finally:
        await engine.aclose()


def failing_in(number: int, fault: Fault):
    return lambda messages, attempt: fault if round_of(messages) == number else None


async def test_each_round_builds_on_the_one_before_and_the_last_is_the_answer(tmp_path: Path) -> None:
    async with LoopbackEndpoint(summary) as server:
        found = await ask(server, tmp_path)
    assert isinstance(found, Candidate)
    assert found.texts == ("summary 4",)
    assert found.completion_tokens == 8  # the loopback endpoint counts words, and all four rounds are paid for
    asked = [request.messages for request in server.requests]
    assert [len(messages) for messages in asked] == [2, 4, 6, 8]
    own = [message["content"] for message in asked[3] if message["role"] == "assistant"]
    assert own == ["summary 1", "summary 2", "summary 3"]
    assert asked[0][0]["content"].startswith("Summarise the text. Use at most 40 words. Keep this first summary general")
    assert all("at most 40 words" in messages[-1]["content"] for messages in asked[1:])
    row = answered_row(ARTICLE, found)
    assert row.meta["density_rounds"] == ROUNDS
    assert "density_stopped" not in row.meta
    assert [message.content for message in row.messages[:-1]] == [message.content for message in ARTICLE.messages]


async def test_a_row_says_which_round_it_came_from_and_each_tells_what_is_wanted(tmp_path: Path) -> None:
    async with LoopbackEndpoint(summary, fault=failing_in(3, raw(completion("half", finish_reason="length")))) as server:
        found = await ask(server, tmp_path, top_logprobs=5)
    assert isinstance(found, Candidate)
    assert [request.body["top_logprobs"] for request in server.requests] == [5] * 3
    (key,) = answered_row(ARTICLE, found).meta["request_keys"]
    with Journal(tmp_path) as journal:
        kept = journal.reply(key)
    assert kept is not None
    assert b"summary 2" in kept.body


async def test_a_summary_has_room_whatever_the_job_allows(tmp_path: Path) -> None:
    async with LoopbackEndpoint(summary) as server:
        await ask(server, tmp_path / "short", max_tokens=16)
        await ask(server, tmp_path / "long", max_tokens=4_000)
    limits = [request.body["max_tokens"] for request in server.requests]
    assert limits == [240] * 4 + [4_000] * 4  # six tokens for each of the 40 words


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (raw(completion("summary 3 breaks", finish_reason="length")), "round 3 was cut off at 512 tokens"),
        (raw(completion("no", finish_reason="content_filter")), "round 3 was refused or filtered"),
        (raw(completion("")), "round 3 is empty"),
    ],
)
async def test_where_a_round_is_not_whole_the_one_before_is_kept(tmp_path: Path, fault: Fault, why: str) -> None:
    async with LoopbackEndpoint(summary, fault=failing_in(3, fault)) as server:
        found = await ask(server, tmp_path)
    assert isinstance(found, Candidate)
    assert (found.texts, found.finish_reasons) == (("summary 2",), ("stop",))
    assert dict(found.notes) == {"density_rounds": 2, "density_stopped": why}
    assert len(server.requests) == 3


async def test_a_first_round_that_is_cut_is_left_for_curation_to_judge(tmp_path: Path) -> None:
    cut = raw(completion("summary 1 breaks", finish_reason="length"))
    async with LoopbackEndpoint(summary, fault=failing_in(1, cut)) as server:
        found = await ask(server, tmp_path)
    assert isinstance(found, Candidate)
    assert (found.texts, found.finish_reasons) == (("summary 1 breaks",), ("length",))


async def test_a_round_without_an_answer_loses_the_row_with_the_reason(tmp_path: Path) -> None:
    async with LoopbackEndpoint(summary, fault=failing_in(2, status(400, "the prompt is too long"))) as server:
        found = await ask(server, tmp_path)
    assert isinstance(found, Failure)
    assert found.reason.startswith("round 2 of 4: ")
    assert "the prompt is too long" in found.reason


async def test_a_users_own_prompt_is_kept_and_told_the_length(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The text."}]}
    async with LoopbackEndpoint(summary) as server:
        await ask(server, tmp_path, TASK.row(own))
    assert server.requests[0].messages[0]["content"].startswith("Be brief. Use at most 40 words. Keep this first")


def test_the_longest_dialogue_holds_all_rounds() -> None:
    longest = ChainOfDensity(TASK).longest(ARTICLE, 512)
    assert (len(longest.asked), longest.answers, longest.answer_tokens) == (2 + 3, 4, 512)
