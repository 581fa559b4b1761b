"""Question answering: extractive (with a context), multiple choice, or open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, ClassVar

from potstill.metrics import exact_match, normalise_answer, token_f1
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore, optional_text, text_field

_EXTRACTIVE = "Answer the question with words copied from the context, as few as possible."
_CHOICE = "Answer the question with the letter of the right choice and nothing else."
_OPEN = "Answer the question in as few words as possible."
_LETTER = re.compile(r"^\W*(?:(?:the\s+)?(?:correct\s+|right\s+)?(?:answer|choice|option)(?:\s+is)?\W*)?([A-Z])(?![\w'])", re.I)
_CHOICE_LINE = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)
# A gold answer with more words than this can be told in many ways, and word overlap would refute right answers.
_VERIFIABLE_WORDS = 12
_AGREES_FROM = 0.5


@dataclass(frozen=True)
class QA(Task):
    """Main metric: token F1, as SQuAD defines it; accuracy (of the letter) where choices are given."""

    multiple_choice: bool = False

    name: ClassVar[str] = "qa"
    metrics: ClassVar[tuple[str, ...]] = ("token_f1", "accuracy")
    own_fields: ClassVar[tuple[str, ...]] = ("context", "question", "answers", "answer", "choices", "answerKey")

    @property
    def main_metric(self) -> str:
        return "accuracy" if self.multiple_choice else "token_f1"

    def with_rows(self, rows: Sequence[Row]) -> QA:
        return replace(self, multiple_choice=bool(rows) and all(choices_of(row) for row in rows))

    def own_form(self, record: Mapping[str, Any]) -> tuple[list[Message], Reference] | None:
        if "question" not in record:
            return None
        question, context = text_field(record, "question"), optional_text(record, "context")
        before = f"Context: {context}\n\n" if context else ""
        if record.get("choices") is not None:
            choices = _choices_field(record["choices"])
            listed = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))
            messages = [Message("system", _CHOICE), Message("user", f"{before}Question: {question}\n{listed}")]
            return messages, _gold_letter(record, choices)
        prompt = _EXTRACTIVE if context else _OPEN
        return [Message("system", prompt), Message("user", f"{before}Question: {question}")], _golds(record)

    def parse(self, text: str, row: Row) -> Parsed:
        choices = choices_of(row)
        if choices:
            return _parse_choice(text, choices)
        line = next((line.strip() for line in text.splitlines() if line.strip()), None)
        return Parsed(line) if line else Parsed(None, "the answer is empty")

    def verify(self, text: str, row: Row) -> bool | None:
        if not row.references:
            return None
        answer = self.parse(text, row).value or ""
        if choices_of(row):
            return answer == self.parse(row.references[0], row).value
        if min(len(gold.split()) for gold in row.references) > _VERIFIABLE_WORDS:
            return None
        return any(_contains(answer, gold) or _contains(gold, answer) for gold in row.references) or (
            token_f1(answer, row.references) >= _AGREES_FROM
        )

    def target(self, text: str, row: Row) -> str:
        return self.parse(text, row).value or text.strip()

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        f1: list[float] = []
        accuracy: list[float] = []
        for prediction, row in zip(predictions, rows, strict=True):
            answer = self.parse(prediction if isinstance(prediction, str) else prediction[-1], row).value or ""
            golds = row.references
            if choices_of(row):
                golds = [self.parse(gold, row).value or gold for gold in golds]
            f1.append(token_f1(answer, golds))
            accuracy.append(exact_match(answer, golds) if not choices_of(row) else float(answer in golds))
        return TaskScore({"accuracy": accuracy} if self.multiple_choice else {"token_f1": f1, "accuracy": accuracy}, {})


def choices_of(row: Row) -> dict[str, str]:
    """The lettered choices that a row's question lists; empty where it is no multiple-choice question."""
    if not row.messages or row.messages[0].content != _CHOICE:
        return {}
    return dict(_CHOICE_LINE.findall(row.messages[-1].content))


def _parse_choice(text: str, choices: Mapping[str, str]) -> Parsed:
    named = _LETTER.match(text)
    if named and named.group(1).upper() in choices:
        return Parsed(named.group(1).upper())
    said = normalise_answer(text)
    matching = [letter for letter, choice in choices.items() if normalise_answer(choice) == said]
    if not matching:
        matching = [letter for letter, choice in choices.items() if _contains(text, choice)]
    return Parsed(matching[0]) if len(matching) == 1 else Parsed(None, "it names none of the choices, or several")


def _contains(text: str, part: str) -> bool:
    """Whether all words of `part` stand in `text`, together and in order."""
    wanted = normalise_answer(part)
    return bool(wanted) and f" {wanted} " in f" {normalise_answer(text)} "


def _choices_field(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = value.get("text")
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise RowError("the field 'choices' is no list of 2 to 26 texts")
    return [text_field({"choices": entry.get("text") if isinstance(entry, dict) else entry}, "choices") for entry in value]


def _gold_letter(record: Mapping[str, Any], choices: list[str]) -> str | None:
    name = "answerKey" if record.get("answerKey") not in (None, "") else "answer"
    given = record.get(name)
    if given in (None, ""):
        return None
    if isinstance(given, int) and 0 <= given < len(choices):
        return ascii_uppercase[given]
    text = text_field(record, name)
    letters = ascii_uppercase[: len(choices)]
    if text.upper() in letters and len(text) == 1:
        return text.upper()
    if text in choices:
        return letters[choices.index(text)]
    raise RowError(f"the field '{name}' is {text!r}, expected a choice or its letter ({letters[0]} to {letters[-1]})")


def _golds(record: Mapping[str, Any]) -> Reference:
    answers = record.get("answers", record.get("answer"))
    if isinstance(answers, dict):
        answers = answers.get("text")
    if answers is None or answers == "" or answers == []:
        return None
    if isinstance(answers, list):
        return list(dict.fromkeys(text_field({"answers": answer}, "answers") for answer in answers))
    return text_field({"answer": answers}, "answer")
