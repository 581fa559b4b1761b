"""What is counted before a teacher is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopback import LoopbackEndpoint, Messages
from potstill.catalog import Price, ResolvedModel
from potstill.generation import Direct, OneTeacher, Teacher, generate_answers
from potstill.generation.chain_of_density import ROUNDS, ChainOfDensity
from potstill.generation.estimate import DryClient, Estimate, TokenCounter, dry_clients, estimate_rows, tokenizer_of
from potstill.inference import Client, Journal
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Sampling
from potstill.rows import Message, Row
from potstill.tasks import get_task
from potstill.tasks.summarization import Summarization

LIMIT = 50
TEXT = "Where is my lamp number {:02d}? "  # 31 bytes: seven whole tokens
PRICED = ResolvedModel("dear", "endpoint", model="m", price=Price(100.0, 1000.0, "2026-11-01"))


def rows(count: int) -> list[Row]:
    return [Row(f"r{number}", (Message("user", TEXT.format(number)),)) for number in range(count)]


def three_words(messages: Messages) -> str:
    return "one two three"


def dry_teacher(dry: DryClient) -> Teacher:
    return Teacher("dear", dry, Sampling(max_tokens=LIMIT))


async def test_what_the_journal_answers_is_not_counted_again(tmp_path: Path) -> None:
    way = Direct(get_task("text"))
    async with LoopbackEndpoint(three_words) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            teacher = Teacher("dear", Client(engine, journal, concurrency=4), Sampling(max_tokens=LIMIT))
            strategy = OneTeacher(teacher)
            await generate_answers(rows(6), way, strategy, concurrency=4, on_row=lambda number, outcome: None)
            dry = dry_clients([teacher], [PRICED])
            await estimate_rows(rows(10), way, strategy, dry)
        await engine.aclose()
        assert len(server.requests) == 6
    estimate = dry["dear"].estimate
    assert (estimate.requests, estimate.held, estimate.prompt_tokens) == (4, 6, 4 * (7 + 4))
    assert (estimate.most_answer_tokens, estimate.typical_answer_tokens) == (4 * LIMIT, 4 * 3)
    assert estimate.told(PRICED) == (
        "4 requests (6 are answered already), about 44 prompt tokens at 4 bytes each, at most 200 answer tokens (about 12, if "
        "they are as long as those that are there): at most about $0.20, $0.016 if they are as long as those "
        "(prices of 2026-11-01)"
    )


async def test_every_request_of_a_way_is_counted() -> None:
    task = get_task("summarization")
    assert isinstance(task, Summarization)
    dry = DryClient(TokenCounter(), local=False)
    await estimate_rows(rows(3), ChainOfDensity(task), OneTeacher(dry_teacher(dry)), {"dear": dry})
    assert dry.estimate.requests == 3 * ROUNDS


async def test_a_later_turn_is_asked_with_the_longest_answers_to_those_before() -> None:
    talk = Row("talk", tuple(Message(role, "abcd") for role in ("user", "assistant", "user", "assistant", "user")), ["x"] * 3)
    dry = DryClient(TokenCounter(), local=False)
    await estimate_rows([talk], Direct(get_task("conversation")), OneTeacher(dry_teacher(dry)), {"dear": dry})
    # A message of the user has five tokens: one, then two and an answer, then three and two answers.
    assert dry.estimate.prompt_tokens == 5 + (10 + LIMIT) + (15 + 2 * LIMIT)
    assert dry.estimate.most_answer_tokens == 3 * LIMIT


def test_tokens_are_counted_by_the_models_own_tokenizer_where_it_is_at_hand(tiny_student: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = tokenizer_of(ResolvedModel("tiny", "folder", path=tiny_student))
    assert path is not None
    counter = TokenCounter(path)
    own = tokenizers.Tokenizer.from_file(str(path))
    assert counter.count(TEXT) == len(own.encode(TEXT, add_special_tokens=False).ids)
    assert counter.rule == "by its own tokenizer"
    assert tokenizer_of(PRICED) is None


def test_of_many_texts_some_are_counted(tiny_student: Path) -> None:
    counter = TokenCounter(tiny_student / "tokenizer.json")
    exact = [counter.count(TEXT.format(number)) for number in range(2000)]
    assert counter.count(TEXT.format(0) * 2) == pytest.approx(2 * sum(exact) / len(exact), abs=1)


def test_without_a_price_there_are_no_dollars() -> None:
    estimate = Estimate("at 4 bytes each", requests=2, prompt_tokens=20, most_answer_tokens=100)
    assert estimate.told(ResolvedModel("new", "endpoint")).endswith("; the price of new is not known")
    assert estimate.told(ResolvedModel("here", "gguf")).endswith("; nothing to pay, the teacher runs on this machine")
