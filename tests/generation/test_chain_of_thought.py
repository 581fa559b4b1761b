"""Worked answers from a real endpoint on loopback: what the teacher is asked, and what of its replies is the answer."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from loopback import LoopbackEndpoint, Messages, completion, raw, status
from potstill.generation import ChainOfThought, Direct, Way
from potstill.generation.candidate import Candidate, Failure
from potstill.generation.chain_of_thought import read_worked
from potstill.generation.ways import Teacher, WithRationale
from potstill.inference.client import Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import Sampling
from potstill.rows import Row
from potstill.tasks import get_task
from potstill.tasks.worked import Worked

NLI = get_task("nli")
PAIR = NLI.row({"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0})
INTENTS = get_task("classification", ("lost_card", "other"))
TEXT = INTENTS.row({"text": "My card is gone", "label": "lost_card"})
SUM = get_task("math").row({"question": "What is 6 times 7?", "answer": "#### 42"})


async def ask(server: LoopbackEndpoint, folder: Path, way: Way, row: Row, max_tokens: int = 100) -> Candidate | Failure:
    engine = EndpointEngine(server.base_url, "teacher", None, timeout_s=20)
    try:
        with Journal(folder) as journal:
            client = Client(engine, journal, concurrency=2, max_attempts=2)
            return await way.ask(Teacher("teacher", client, Sampling(max_tokens=max_tokens)), row, 0)
    finally:
        await engine.aclose()


def as_json(messages: Messages) -> str:
    return orjson.dumps({"reasoning": "A dog is an animal. To run is to move.", "answer": "entailment"}).decode()


async def test_reasoning_and_answer_are_told_apart(tmp_path: Path) -> None:
    async with LoopbackEndpoint(as_json) as server:
        found = await ask(server, tmp_path, ChainOfThought(NLI), PAIR)
    assert isinstance(found, Candidate)
    assert found.texts == ("entailment",)
    assert found.rationale == "A dog is an animal. To run is to move."
    body = server.requests[0].body
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == ["entailment", "neutral", "contradiction"]
    assert list(schema["properties"]) == ["reasoning", "answer"]  # reasoning that comes after the answer would explain it only
    system = body["messages"][0]["content"]
    assert "JSON" in system
    assert "label only" not in system
    assert body["max_tokens"] == 100


async def test_labels_are_told_and_the_users_own_prompt_is_kept(tmp_path: Path) -> None:
    own = INTENTS.row({"messages": [{"role": "system", "content": "You sort mail."}, {"role": "user", "content": "Hello"}]})
    async with LoopbackEndpoint(lambda messages: '{"reasoning": "Nothing is lost.", "answer": "other"}') as server:
        for number, row in enumerate((TEXT, own)):
            assert isinstance(await ask(server, tmp_path / str(number), ChainOfThought(INTENTS), row), Candidate)
    plain, users = (request.messages[0]["content"] for request in server.requests)
    assert plain.startswith("Classify the message. The labels are: lost_card, other. Reason step by step")
    assert users.startswith("You sort mail. The labels are: lost_card, other. Reason step by step")


async def test_an_endpoint_without_schemas_is_asked_the_same_and_after_a_restart_nothing_again(tmp_path: Path) -> None:
    """Whether an endpoint takes schemas shows only when it refuses one; what it was asked must not depend on it."""
    def refuse(messages: Messages, attempt: int):
        return None if "response_format" not in server.requests[-1].body else status(400, "response_format is not supported")

    async with LoopbackEndpoint(as_json, fault=refuse) as server:
        first = await ask(server, tmp_path, ChainOfThought(NLI), PAIR)
        asked = len(server.requests)
        assert await ask(server, tmp_path, ChainOfThought(NLI), PAIR) == first
    assert isinstance(first, Candidate)
    assert first.texts == ("entailment",)
    assert [("response_format" in request.body) for request in server.requests] == [True, False]
    assert asked == 2


async def test_a_worked_solution_is_asked_for_as_ever(tmp_path: Path) -> None:
    """The prompt of math asks for one already: answers that were paid for serve here too."""
    async with LoopbackEndpoint(lambda messages: "Six sevens are 42.\n#### 42") as server:
        plain = await ask(server, tmp_path, Direct(get_task("math")), SUM)
        found = await ask(server, tmp_path, ChainOfThought(get_task("math")), SUM)
    assert len(server.requests) == 1
    assert isinstance(plain, Candidate)
    assert isinstance(found, Candidate)
    assert (plain.texts, plain.rationale) == (("Six sevens are 42.\n#### 42",), None)
    assert (found.texts, found.rationale) == (("#### 42",), "Six sevens are 42.")


@pytest.mark.parametrize(
    "text",
    [
        "A dog is an animal, so this is entailment.\nAnswer: ent",
        '{"reasoning": "A dog is an animal.", "answer": "entail',
        '{"answer": "entailment", "reasoning": "A dog',
    ],
)
async def test_a_reply_that_was_cut_off_is_no_answer(tmp_path: Path, text: str) -> None:
    cut = raw(completion(text, finish_reason="length"))
    async with LoopbackEndpoint(as_json, fault=lambda messages, attempt: cut) as server:
        found = await ask(server, tmp_path, ChainOfThought(NLI), PAIR)
    assert isinstance(found, Failure)
    assert "cut off at generation.max_tokens (100)" in found.reason


async def test_a_refusal_stays_one(tmp_path: Path) -> None:
    filtered = raw(completion("no", finish_reason="content_filter"))
    async with LoopbackEndpoint(as_json, fault=lambda messages, attempt: filtered) as server:
        found = await ask(server, tmp_path, WithRationale(ChainOfThought(NLI)), PAIR)
    assert isinstance(found, Candidate)
    assert found.finish_reasons == ("refused",)


async def test_what_an_endpoint_thinks_beside_its_answer_is_the_reasoning(tmp_path: Path) -> None:
    body = orjson.loads(completion("neutral"))
    body["choices"][0]["message"]["reasoning_content"] = "Dogs may stand."
    thought = raw(orjson.dumps(body))
    async with LoopbackEndpoint(as_json, fault=lambda messages, attempt: thought) as server:
        plain = await ask(server, tmp_path / "plain", WithRationale(Direct(NLI)), PAIR)
        asked = await ask(server, tmp_path / "asked", WithRationale(ChainOfThought(NLI)), PAIR)
    for found in (plain, asked):
        assert isinstance(found, Candidate)
        assert (found.texts, found.rationale) == (("neutral",), "Dogs may stand.")


async def test_without_reasoning_there_is_nothing_to_teach(tmp_path: Path) -> None:
    async with LoopbackEndpoint(lambda messages: "neutral") as server:
        assert isinstance(await ask(server, tmp_path, Direct(NLI), PAIR), Candidate)
        found = await ask(server, tmp_path, WithRationale(Direct(NLI)), PAIR)
    assert isinstance(found, Failure)
    assert "no reasoning" in found.reason


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ('{"reasoning": "Dogs are animals.", "answer": "entailment"}', "Dogs are animals.", "entailment"),
        ('```json\n{"reason": "Dogs are animals.", "answer_choice": "A"}\n```', "Dogs are animals.", "A"),
        ('Here it is: {"Reasoning": ["one", "two"], "Answer": 7}', "one\ntwo", "7"),
        ("{'reasoning': 'It isn\\'t told.', 'answer': 'neutral',}", "It isn't told.", "neutral"),
        ('{"reasoning": "He said "no" twice.", "answer": "neutral"}', 'He said "no" twice.', "neutral"),
        ("Dogs are animals.\n\n**Answer:** entailment", "Dogs are animals.", "entailment"),
        ("Dogs are animals.\nFinal answer:\nentailment.", "Dogs are animals.", "entailment."),
        ("Not contradiction.\nNot neutral either.\nentailment", "Not contradiction.\nNot neutral either.", "entailment"),
        ("Answer: neutral", None, "neutral"),
        ("The set {a: 1} is no JSON.\nAnswer: neutral", "The set {a: 1} is no JSON.", "neutral"),
        ("I'm sorry, but I can't help with that.\nNext?", None, "I'm sorry, but I can't help with that.\nNext?"),
    ],
)
def test_the_forms_of_a_worked_answer(text: str, rationale: str | None, answer: str) -> None:
    assert read_worked(text, NLI) == Worked(rationale, answer)


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "Dogs are animals.", "answer": "entailment',
        '{"answer": "neutral", "reasoning": "the set {a} and then',
        '{"answer": "neutral", "reasoning": "the set {a}',
        '{"reasoning": "Dogs are animals."}',
        '{"reasoning": "Dogs are animals.", "answer": null}',
    ],
)
def test_json_that_breaks_off_or_has_no_answer_is_none(text: str) -> None:
    assert read_worked(text, NLI) is None


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ("6 * 7 = 42\n#### 42", "6 * 7 = 42", "#### 42"),
        ("6 * 7 = 42\n#### 42\n\nDone.", "6 * 7 = 42", "#### 42"),
        ("6 * 7 is what we want. The answer is 42.", "6 * 7 is what we want. The answer is 42.", "#### 42"),
        ("#### 42", None, "#### 42"),
        ("I do not know.", None, "I do not know."),
    ],
)
def test_the_forms_of_a_worked_solution(text: str, rationale: str | None, answer: str) -> None:
    assert read_worked(text, get_task("math")) == Worked(rationale, answer)
