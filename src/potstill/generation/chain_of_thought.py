"""A way to ask: the teacher reasons step by step before it answers.

Where the endpoint can be held to a JSON schema, reasoning and answer are the fields of an object, else a marked last line tells
the answer from the reasoning. Whichever was asked for, both are read, and JSON with small mistakes in it is mended. A reply
that was cut off is never read: what a mended half says is not what the teacher would have said.
What it costs: one request an answer, as without, and the tokens of the reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import json_repair
import orjson

from potstill.generation.candidate import Candidate, Failure
from potstill.generation.ways import Dialogue, Teacher, candidate_of
from potstill.inference.dialogue import answer_row
from potstill.rows import Row
from potstill.tasks import Task, looks_refused
from potstill.tasks.worked import Form, Worked, split_marked, worked_schema

# Models that are not held to the schema take other names for the same; these are the usual ones.
_REASONING_KEYS = ("reasoning", "reason", "rationale", "explanation", "thoughts", "thought", "steps")
_ANSWER_KEYS = ("answer", "final_answer", "answer_choice", "label", "choice")
_OBJECT = re.compile(rf"\{{\s*[\"'“]?(?:{'|'.join((*_REASONING_KEYS, *_ANSWER_KEYS))})[\"'”]?\s*:", re.IGNORECASE)
_CLOSED = re.compile(r"[\"'”’\]\d]\s*,?\s*\}\Z")  # the last value ends before the brace, which is no part of a text
_TAIL = 60  # characters of a reply that are shown


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """Reasoning first, then the answer; the row gets the answer, and its `meta` the reasoning."""

    task: Task

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        form: Form = "json" if teacher.client.json_schema and self.task.worked_as_json else "line"
        sampling = teacher.sampling
        if form == "json":
            sampling = replace(sampling, json_schema=worked_schema(self.task.choices(row)))
        answer = await answer_row(teacher.client, self.task.worked_messages(row, form), 1, sampling, sample=sample)
        candidate = candidate_of(answer, teacher.name, sample)
        if isinstance(candidate, Failure) or "refused" in candidate.finish_reasons:
            return candidate
        (text,) = candidate.texts
        if "length" in candidate.finish_reasons:
            limit = f"generation.max_tokens ({sampling.max_tokens})"
            return Failure(f"the worked answer was cut off at {limit}: it ends with {text[-_TAIL:]!r}")
        worked = read_worked(text, self.task)
        if worked is None:
            return Failure(f"the reply is JSON without an answer, or breaks off: it ends with {text[-_TAIL:]!r}")
        return replace(candidate, texts=(worked.answer,), rationale=worked.rationale or candidate.rationale)

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        return Dialogue(self.task.worked_messages(row), 1, max_tokens)


def read_worked(text: str, task: Task) -> Worked | None:
    """Reasoning and answer of a whole reply, JSON or text; None where it is JSON that breaks off or has no answer.

    A reply that declines to answer is all answer, for curation to see it.
    """
    start = _OBJECT.search(text)
    if start is not None and split_marked(text) is None:
        return _from_json(text[start.start() :], task)
    return Worked(None, text.strip()) if looks_refused(text) else task.split_worked(text)


def _from_json(text: str, task: Task) -> Worked | None:
    whole = text.rstrip(" \t\r\n`")
    if not _CLOSED.search(whole):
        return None
    fields = _object(whole)
    answer = _first(fields, _ANSWER_KEYS)
    if answer is None:
        return None
    return Worked(_first(fields, _REASONING_KEYS), task.bare(answer))


def _object(text: str) -> Mapping[str, Any]:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        data = json_repair.loads(text)
    return {str(key).casefold(): value for key, value in data.items()} if isinstance(data, dict) else {}


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these fields that says something, as text; steps in a list are lines."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, list):
            value = "\n".join(str(entry) for entry in value)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None
