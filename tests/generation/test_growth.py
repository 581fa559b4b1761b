"""What a teacher is asked when it is to write a new prompt, and what is made of its reply."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from potstill.generation.growth import (
    Unusable,
    Wanted,
    draw,
    generations,
    opening_of,
    persona_request,
    prompt_request,
    read_prompt,
)
from potstill.inference.protocol import Reply
from potstill.rows import Row
from potstill.tasks import Task, get_task


def rows_of(task: Task, *records: dict[str, object]) -> list[Row]:
    return [task.row(record) for record in records]


def topics() -> tuple[Task, list[Row]]:
    rows = rows_of(
        get_task("classification"), *({"text": f"text {n} on {label}", "label": label} for n, label in enumerate("aaab"))
    )
    return get_task("classification").with_rows(rows), rows


def drawn(seeds: list[Row], count: int, grown: list[Row] = [], have: dict[str, int] = {}, examples: int = 3) -> list[Wanted]:  # noqa: B006
    return list(draw(range(count), seeds, grown, ways=("grow", "persona"), examples=examples, have=have))


def reply(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text, finish_reason, 1, 1, 0.1)  # type: ignore[arg-type]


def read(text: str, wanted: Wanted, task: Task, *, opening: str = "", finish_reason: str = "stop") -> Row | Unusable:
    return read_prompt(reply(text, finish_reason), wanted, task, persona=None, opening=opening)


def test_generations_grow_up_to_a_limit() -> None:
    found = list(islice(generations(), 7))
    assert [len(numbers) for numbers in found] == [64, 128, 256, 512, 1024, 1024, 1024]
    assert [numbers.start for numbers in found[1:]] == [numbers.stop for numbers in found[:-1]]


def test_a_request_depends_on_its_number_alone() -> None:
    seeds = rows_of(get_task("text"), *({"text": f"seed {n}"} for n in range(20)))
    few, many = drawn(seeds, 30), drawn(seeds, 60)
    assert many[:30] == few
    requests = {prompt_request(wanted, get_task("text"), None) for wanted in many}
    assert len(requests) == 60
    assert {wanted.way for wanted in many} == {"grow", "persona"}


def test_the_first_example_is_the_users_own_and_some_others_are_not() -> None:
    task = get_task("text")
    seeds, grown = (rows_of(task, *({"text": f"{kind} {n}"} for n in range(20))) for kind in ("seed", "grown"))
    found = drawn(seeds, 200, grown)
    assert all(wanted.examples[0] in seeds for wanted in found)
    assert all(len({row.id for row in wanted.examples}) == len(wanted.examples) <= 3 for wanted in found)
    others = [row in grown for wanted in found for row in wanted.examples[1:]]
    assert 0.2 < sum(others) / len(others) < 0.5


def test_the_label_with_the_fewest_rows_is_asked_for_next() -> None:
    _, seeds = topics()
    labels = Counter(wanted.label for wanted in drawn(seeds, 10, have={"a": 3, "b": 1}))
    assert labels == {"a": 4, "b": 6}  # seven rows of each then


def test_what_is_shown_and_asked_for() -> None:
    task, seeds = topics()
    wanted = Wanted(0, "grow", "Take another subject.", tuple(seeds[:2]), "b")
    (message,) = prompt_request(wanted, task, None)
    for part in ("text 0 on a", "text 1 on a", "label a", "Take another subject.", "Its label has to be b and none of: a."):
        assert part in message.content
    assert "Classify the message" in message.content  # the instructions of who answers
    (persona,) = persona_request(wanted, task)
    assert "Think up one person" in persona.content
    (as_person,) = prompt_request(wanted, task, "A sailor who writes short.")
    assert "A sailor who writes short." in as_person.content
    assert "Take another subject." not in as_person.content


def test_a_new_prompt_has_the_instructions_of_its_model_and_says_where_it_is_from() -> None:
    task, seeds = topics()
    wanted = Wanted(7, "persona", "", tuple(seeds[:2]), "b")
    row = read_prompt(reply(' "A text on b"\n'), wanted, task, persona="A sailor.", opening="")
    assert isinstance(row, Row)
    assert [message.role for message in row.messages] == ["system", "user"]
    assert (row.messages[0], row.messages[1].content) == (seeds[0].messages[0], "A text on b")
    assert row.reference == "b"
    assert row.meta["grown_from"] == [seeds[0].id, seeds[1].id]
    assert (row.meta["grown_by"], row.meta["persona"]) == ("persona", "A sailor.")
    assert "not a gold one" in row.meta["reference_is"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""\nWhere is it?\n"""', "Where is it?"),
        ("“Where is it?”", "Where is it?"),
        ("```\nWhere is it?\n```", "Where is it?"),
        ('"Yes" and "no"', '"Yes" and "no"'),  # not one quotation
        ('He said "no"', 'He said "no"'),
    ],
)
def test_what_a_reply_is_wrapped_in_is_no_part_of_the_prompt(text: str, found: str) -> None:
    task = get_task("text")
    wanted = Wanted(0, "grow", "", tuple(rows_of(task, {"text": "seed"})), None)
    row = read(text, wanted, task)
    assert isinstance(row, Row)
    assert row.messages[-1].content == found


@pytest.mark.parametrize(
    ("text", "finish_reason", "rule"),
    [
        ("A long", "length", "prompt_truncated"),
        ("  \n", "stop", "prompt_unusable"),
        ("I'm sorry, but I can't help with that.", "stop", "prompt_refused"),
        ("Something", "refused", "prompt_refused"),
    ],
)
def test_replies_that_make_no_prompt(text: str, finish_reason: str, rule: str) -> None:
    task = get_task("text")
    wanted = Wanted(0, "grow", "", tuple(rows_of(task, {"text": "seed"})), None)
    found = read(text, wanted, task, finish_reason=finish_reason)
    assert isinstance(found, Unusable)
    assert found.rule == rule


def test_a_pair_needs_both_its_parts() -> None:
    task = get_task("nli")
    seeds = rows_of(task, {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"})
    wanted = Wanted(0, "grow", "", tuple(seeds), "neutral")
    whole = read("Premise: A dog runs.\nHypothesis: It is brown.", wanted, task)
    assert isinstance(whole, Row)
    assert task.asked(whole) == ("Premise: A dog runs.", "It is brown.")
    assert whole.reference == "neutral"
    half = read("A dog runs.", wanted, task)
    assert isinstance(half, Unusable)
    assert "form" in half.reason


def test_what_all_prompts_begin_with_is_put_before_one_that_does_not() -> None:
    task = get_task("qa")
    seeds = rows_of(task, *({"question": question} for question in ("Who is it?", "Who was there?", "Why?")))
    opening = opening_of(seeds)
    assert opening == "Question: "
    wanted = Wanted(0, "grow", "", tuple(seeds), None)
    for text in ("Question: How far is it?", "How far is it?"):
        row = read(text, wanted, task, opening=opening)
        assert isinstance(row, Row)
        assert row.messages[-1].content == "Question: How far is it?"
    free = rows_of(get_task("text"), {"text": "Tell me this"}, {"text": "Tell me that"})
    assert opening_of(free) == ""  # they happen to begin alike


def test_a_conversation_grows_by_its_opening() -> None:
    task = get_task("conversation")
    turns = [("user", "hello"), ("assistant", "hi"), ("user", "where is it"), ("assistant", "here")]
    (seed,) = rows_of(task, {"messages": [{"role": role, "content": text} for role, text in turns]})
    row = read("My parcel is lost.", Wanted(0, "grow", "", (seed,), None), task)
    assert isinstance(row, Row)
    assert [(message.role, message.content) for message in row.messages] == [("user", "My parcel is lost.")]
    assert row.reference is None


@pytest.mark.parametrize(
    ("name", "record", "why"),
    [
        ("qa", {"question": "Who?", "context": "Ann came."}, "a context"),
        ("qa", {"question": "Who?", "choices": ["Ann", "Bob"]}, "choices"),
        ("summarization", {"document": "It rains."}, "a document"),
        ("text", {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]}, "several turns"),
    ],
)
def test_rows_that_nobody_could_write_anew(name: str, record: dict[str, object], why: str) -> None:
    task = get_task(name)
    assert why in str(task.why_no_model(task.row(record)))
    assert get_task("math").why_no_model(get_task("math").row({"question": "1 + 1?"})) is None
