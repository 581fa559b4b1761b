"""NLI and classification: how the label of an answer is read, learnt from the rows, and told to the teacher."""

from __future__ import annotations

import pytest

from potstill.errors import InputError
from potstill.tasks import Task, get_task

PAIR = {"premise": "It rains.", "hypothesis": "It is wet."}


def intents(*labels: str) -> Task:
    task = get_task("classification")
    return task.with_rows([task.row({"text": f"text {label}", "label": label}) for label in labels])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("entailment", "entailment"),
        ("Entailment.", "entailment"),
        ("**Neutral**", "neutral"),
        ("The answer is neutral", "neutral"),
        ("The relationship is: contradiction, because it cannot be dry.", "contradiction"),
        ("Neutral. It is no contradiction that both happen.", "neutral"),
        ('{"label": "contradiction"}', "contradiction"),
        ("It is not a contradiction; the answer is entailment.", "entailment"),
        ("entailment or neutral", None),
        ("I am not sure.", None),
        ("", None),
    ],
)
def test_the_forms_of_an_nli_answer(text: str, label: str | None) -> None:
    task = get_task("nli")
    row = task.row({**PAIR, "label": 0})
    parsed = task.parse(text, row)
    assert parsed.value == label
    assert (parsed.reason is None) == (label is not None)
    assert task.verify(text, row) is (label == "entailment")


def test_without_a_gold_label_nothing_is_verified() -> None:
    task = get_task("nli")
    assert task.verify("neutral", task.row(PAIR)) is None


def test_the_student_learns_the_bare_label_and_may_be_cut_off_after_it() -> None:
    task = get_task("nli")
    row = task.row({**PAIR, "label": 0})
    assert task.target("The answer is entailment, because rain is wet.", row) == "entailment"
    assert task.tolerates_cut
    assert task.max_tokens(512) < 64
    assert task.max_tokens(8) == 8


def test_nli_with_another_label_set_takes_it_from_the_rows() -> None:
    task = get_task("nli")
    rows = [task.row({**PAIR, "label": label}) for label in ("entailment", "not_entailment")]
    assert task.with_rows(rows).labels == ("entailment", "not_entailment")
    assert task.with_rows(rows).parse("It is not_entailment.", rows[0]).value == "not_entailment"
    assert task.with_rows(rows[:1]).labels == ("entailment", "neutral", "contradiction")


def test_labels_are_those_of_the_rows_and_those_that_meta_lists() -> None:
    task = get_task("classification")
    rows = [task.row({"text": "a", "label": "no"}), task.row({"text": "b", "labels": ["yes", "maybe"]})]
    assert task.with_rows(rows).labels == ("maybe", "no", "yes")
    other_meaning = [task.row({"text": "c", "label": "no", "labels": odd}) for odd in (3, "no", None, [1, 2])]
    assert task.with_rows(other_meaning).labels == ("no",)


def test_classification_without_any_label_is_an_error_before_anyone_is_asked() -> None:
    task = get_task("classification")
    with pytest.raises(InputError, match="name no labels"):
        task.with_rows([task.row({"text": "a"})])
    assert task.teacher_messages(task.row({"text": "a"})) == task.row({"text": "a"}).messages
    assert get_task("classification", ("a", "b")).with_rows([task.row({"text": "a"})]).labels == ("a", "b")


def test_the_teacher_is_told_the_labels_and_the_student_is_not() -> None:
    task = intents("no", "yes")
    row = task.row({"text": "I know what I saw yesterday", "label": "no"})
    system = task.teacher_messages(row)[0]
    assert (system.role, "The labels are: no, yes." in system.content) == ("system", True)
    assert "labels" not in row.messages[0].content


def test_a_text_that_happens_to_name_all_labels_does_not_hide_them_from_the_teacher() -> None:
    task = intents("positive", "negative")
    row = task.row({"text": "Neither positive nor negative, I would say."})
    assert "The labels are" in task.teacher_messages(row)[0].content


def test_a_prompt_of_the_users_own_that_lists_the_labels_stays_as_it_is() -> None:
    yes_no = intents("no", "yes")
    hidden = yes_no.row({"prompt": "Nobody called yesterday."})
    assert "The labels are: no, yes." in yes_no.teacher_messages(hidden)[0].content
    task = intents("C", "C++")
    listing = task.row({"instruction": "Is this C or C++?", "input": "int x;"})
    assert task.teacher_messages(listing) == listing.messages
    silent = task.row({"instruction": "Which language is it?", "input": "int C;"})
    assert [message.role for message in task.teacher_messages(silent)] == ["system", "user"]


def test_accuracy_counts_an_unreadable_answer_as_wrong() -> None:
    task = intents("a", "b")
    rows = [task.row({"text": f"t{n}", "label": label}) for n, label in enumerate("aabb")]
    score = task.score(["a", "Label: b", "who knows", "b"], rows)
    assert score.per_row == {"accuracy": [1.0, 0.0, 0.0, 1.0], "parsed": [1.0, 1.0, 0.0, 1.0]}
    # a: 1 hit, 2 gold, 1 predicted: 2/3; b: 1 hit, 2 gold, 2 predicted: 1/2
    assert score.corpus["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert task.main_metric == "accuracy"
