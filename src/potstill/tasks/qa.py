"""Question answering: extractive (with a context), multiple choice, or open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, ClassVar

from potstill.metrics import exact_match, normalise_answer, parse_label, token_f1
from potstill.rows import Message, Reference, Row
from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore, last_turn, optional_text, text_field
from potstill.tasks.worked import without_reasoning

_EXTRACTIVE = "Answer the question with words copied from the context, as few as possible."
_CHOICE = "Answer the question with the letter of the right choice and nothing else."
_OPEN = "Answer the question in as few words as possible."
# "B", "(B) Paris", "b.", "**Answer: B**", "The correct answer is B": a letter that nothing but punctuation follows.
_LETTER = re.compile(
    r"\W*(?:(?:the\s+)?(?:\w+\s+)?(?:answer|choice|option)(?:\s+is)?\W*)?([A-Z])(?:[).:,;*_\]\"'`]|\s*(?:$|\n))", re.IGNORECASE
)
# The "a" of "a mixture" and the "I" of "I think" are no letters of a choice.
_NO_LETTER = re.compile(r"\b[AaIi]\s+(?!(?:is|because|since|as|and|or|but|not)\b)(?=[a-z])")
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
    reasons: ClassVar[bool] = True
    own_shape: ClassVar[str] = "question/answers (with a context or choices, or without)"
    new_prompt: ClassVar[str] = "a question that has a short answer which experts agree on"

    @property
    def main_metric(self) -> str:
        return "accuracy" if self.multiple_choice else "token_f1"

    def with_rows(self, rows: Iterable[Row]) -> QA:
        have_choices = [bool(choices_of(row)) for row in rows]
        return replace(self, multiple_choice=bool(have_choices) and all(have_choices))

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

    def choices(self, row: Row) -> tuple[str, ...]:
        return tuple(choices_of(row))

    def why_no_model(self, row: Row) -> str | None:
        if choices_of(row):
            return "its question lists choices, of which only its author knows the right one"
        if len(self.asked(row)) > 1:
            return "its question is about a context, which has to be a real text"
        return super().why_no_model(row)

    def parse(self, text: str, row: Row) -> Parsed:
        text, choices = without_reasoning(text), choices_of(row)
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

    def same_answer(self, value: str, other: str) -> bool:
        return (normalise_answer(value) or value) == (normalise_answer(other) or other)

    def asked(self, row: Row) -> tuple[str, ...]:
        (text,) = super().asked(row)
        context, _, question = text.rpartition("\n\nQuestion: ")
        return (context, question) if context.startswith("Context: ") else (text,)

    def target(self, text: str, row: Row) -> str:
        return self.parse(text, row).value or text.strip()

    def score(self, predictions: Sequence[Prediction], rows: Sequence[Row]) -> TaskScore:
        f1: list[float] = []
        accuracy: list[float] = []
        for prediction, row in zip(predictions, rows, strict=True):
            answer = self.parse(last_turn(prediction), row).value or ""
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
    question = next(message.content for message in row.messages if message.role == "user")
    # A context may have lines that look like choices; the choices come last.
    return dict(_CHOICE_LINE.findall(question, question.rfind("\nA. ") + 1))


def _parse_choice(text: str, choices: Mapping[str, str]) -> Parsed:
    """The letter that an answer opens with; else that of the choice it states; else the one letter it states."""
    named = _LETTER.match(text)
    if named and named.group(1).upper() in choices:
        return Parsed(named.group(1).upper())
    stated = parse_label(text, tuple(choices.values()))
    letter = next((letter for letter, choice in choices.items() if choice == stated), None)
    letter = letter or parse_label(_NO_LETTER.sub("", text), tuple(choices))
    return Parsed(letter) if letter else Parsed(None, "it names none of the choices, or several")


def _contains(text: str, part: str) -> bool:
    """Whether all words of `part` stand in `text`, together and in order."""
    wanted = normalise_answer(part)
    return bool(wanted) and f" {wanted} " in f" {normalise_answer(text)} "


def _choices_field(value: Any) -> list[str]:
    """The texts of the choices, each on one line; ARC has them as {"text": [...], "label": [...]}."""
    entries = value.get("text") if isinstance(value, dict) else value
    if not isinstance(entries, list) or not 2 <= len(entries) <= len(ascii_uppercase):
        raise RowError("the field 'choices' is no list of 2 to 26 texts")
    return [" ".join(_entry_text(entry, "choices").split()) for entry in entries]


def _gold_letter(record: Mapping[str, Any], choices: list[str]) -> str | None:
    """The letter of the right choice, which is given as a letter, as its text, or as an integer from 0 (as in MMLU)."""
    name = "answerKey" if record.get("answerKey") not in (None, "") else "answer"
    given = record.get(name)
    if given in (None, ""):
        return None
    letters = ascii_uppercase[: len(choices)]
    if isinstance(given, int) and 0 <= given < len(choices):
        return letters[given]
    text = " ".join(text_field(record, name).split())
    numbered = record["choices"].get("label") if isinstance(record["choices"], dict) else None
    for names in (letters, numbered or (), choices):
        places = [place for place, known in enumerate(names) if str(known).casefold() == text.casefold()]
        if places:
            return letters[places[0]]
    raise RowError(f"the field '{name}' is {text!r}, expected a choice or its letter ({letters[0]} to {letters[-1]})")


def _golds(record: Mapping[str, Any]) -> Reference:
    """One gold answer, or several as a list; SQuAD has them as {"text": [...]} or as a list of {"text": ...}."""
    name = "answers" if record.get("answers") is not None else "answer"
    answers = record.get(name)
    if isinstance(answers, dict):
        answers = answers.get("text")
    if answers is None or answers == "" or answers == []:
        return None
    if isinstance(answers, list):
        return list(dict.fromkeys(_entry_text(answer, name) for answer in answers))
    return text_field({name: answers}, name)


def _entry_text(entry: Any, name: str) -> str:
    return text_field({name: entry.get("text") if isinstance(entry, dict) else entry}, name)
