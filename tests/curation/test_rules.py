"""The rules that look at one row: what each rejects, what it keeps, and the reason it gives."""

from __future__ import annotations

from collections.abc import Callable

from potstill.curation.rules import ContradictsGold, Refused, Truncated, Unparsable
from potstill.rows import Message, Row
from potstill.tasks import Task, get_task

Generated = Callable[..., Row]


def dialogue(*turns: str, gold: list[str] | None = None, finish: tuple[str, ...] = ()) -> Row:
    """A conversation whose turns, the user's first, alternate."""
    roles = ("user", "assistant") * len(turns)
    messages = tuple(Message(role, turn) for role, turn in zip(roles, turns, strict=False))  # type: ignore[arg-type]
    return Row("d", messages, gold, {"finish_reasons": list(finish or ["stop"] * (len(turns) // 2))})


def test_a_refusal_is_rejected_in_the_teachers_words(text: Task, generated: Generated) -> None:
    rule = Refused(text)
    assert rule.name == "refused"
    declined = generated("How?", "I'm sorry, but I can't help with that.")
    assert rule.reject(declined) == """the teacher declined to answer: "I'm sorry, but I can't help with that.\""""
    assert rule.reject(generated("How?", "I'm sorry to hear that, let me look.")) is None


def test_an_answer_that_the_endpoint_filtered_is_rejected(text: Task, generated: Generated) -> None:
    assert Refused(text).reject(generated("How?", "Well,", finish="refused")) == "the endpoint filtered or refused the answer"


def test_a_refusal_is_kept_where_the_gold_answer_declines_too(text: Task, generated: Generated) -> None:
    declined = generated("How?", "I cannot assist with that request.", gold="Sorry, I can't help with that.")
    assert Refused(text).reject(declined) is None


def test_one_refused_turn_rejects_a_conversation_but_a_gold_turn_before_does_not(text: Task) -> None:
    refusing = dialogue("a", "I can't help with that.", "b", "Yes.")
    assert Refused(get_task("conversation")).reject(refusing) is not None
    # For a task with one answer only the last turn is the teacher's.
    assert Refused(text).reject(refusing) is None


def test_a_cut_answer_is_rejected_with_its_end(text: Task, generated: Generated) -> None:
    rule = Truncated(text)
    assert rule.name == "truncated"
    reason = rule.reject(generated("Tell me a story.", "Once upon a time there was a", finish="length"))
    assert reason == "cut off at generation.max_tokens: it ends with 'Once upon a time there was a'"
    assert rule.reject(generated("Tell me a story.", "No.")) is None


def test_the_cut_turn_of_a_conversation_is_the_one_shown() -> None:
    reason = Truncated(get_task("conversation")).reject(dialogue("a", "cut here", "b", "whole.", finish=("length", "stop")))
    assert reason is not None
    assert reason.endswith("'cut here'")


def test_a_label_may_be_cut_off_after_what_counts(generated: Generated) -> None:
    assert Truncated(get_task("nli")).reject(generated("Premise: ...", "neutral, because", finish="length")) is None


def test_an_answer_without_the_tasks_form_is_rejected(generated: Generated) -> None:
    rule = Unparsable(get_task("nli"))
    assert rule.name == "unparsable"
    assert rule.reject(generated("a", "Hard to say.")) == "it names none of the labels, or several: 'Hard to say.'"
    assert rule.reject(generated("a", "Neutral.")) is None
    assert Unparsable(get_task("math")).reject(generated("a", "No idea.")) == "it has no final number: 'No idea.'"


def test_an_answer_that_contradicts_the_gold_one_is_rejected_with_both(generated: Generated) -> None:
    rule = ContradictsGold(get_task("math"))
    assert rule.name == "contradicts_gold"
    assert rule.reject(generated("a", "#### 5", gold="2+2=4\n#### 4")) == "found '5', the gold answer is '4'"
    assert rule.reject(generated("a", "The answer is 4.0", gold="#### 4")) is None


def test_where_the_task_cannot_tell_nothing_contradicts(text: Task, generated: Generated) -> None:
    assert ContradictsGold(get_task("math")).reject(generated("a", "#### 5")) is None
    assert ContradictsGold(text).reject(generated("a", "Black.", gold="White.")) is None


def test_a_choice_is_verified_on_the_generated_row() -> None:
    task = get_task("qa")
    row = task.row({"question": "Metal?", "choices": ["iron", "wood"], "answer": "A"})
    for answer, verdict in (("A. iron", None), ("wood", "found 'B', the gold answer is 'A'")):
        answered = Row("q", (*row.messages, Message("assistant", answer)), row.reference, {"finish_reasons": ["stop"]})
        assert ContradictsGold(task).reject(answered) == verdict
