"""Worked answers: how a model is asked to reason before it answers, and how the reasoning and the answer are told apart.

A worked answer is one text: the reasoning, and a last line with a mark and the answer alone. Models that can be held to a JSON
schema may give the two as the fields of an object instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from potstill.rows import Message

Form = Literal["line", "json"]

MARK = "Answer:"
REASON = "Reason step by step first, in a few short sentences."
AS_LINE = f"Then end with a line that has {MARK} and then the answer alone."
AS_JSON = 'Reply with one JSON object: "reasoning" holds these sentences, "answer" the answer alone.'
RATIONALE_ONLY = "Instead of the answer, write the reasoning that leads to it."

# The mark opens a line, and one line of answer follows it, which ends the text. "**Final answer:** B" is the same in bold.
_MARKED = re.compile(
    r"(?:\A|\n)[ \t>*_#]*(?:final[ \t]+)?answer[ \t]*[*_]*:[*_\s]*(?P<answer>[^\n]*[^\n\s*_])[\s*_]*\Z", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Worked:
    """A worked answer in its two parts. rationale: the reasoning, None where there is none."""

    rationale: str | None
    answer: str


def split_marked(text: str) -> Worked | None:
    """The parts of an answer that ends in a marked line; None where it does not."""
    found = _MARKED.search(text)
    return Worked(text[: found.start()].strip() or None, found["answer"].strip()) if found else None


def without_reasoning(text: str) -> str:
    """The final answer of a worked text; any other text as it is."""
    worked = split_marked(text)
    return worked.answer if worked else text


def split_last_line(text: str) -> Worked:
    """The parts of an answer that bears no mark: what stands on its last line is the answer."""
    before, _, last = text.strip().rpartition("\n")
    return Worked(before.strip() or None, last.strip())


def reasoned_first(messages: Sequence[Message], form: Form, before: str = "") -> tuple[Message, ...]:
    """The messages with the wish to reason first, after the system prompt they have; `before` stands before it."""
    told = " ".join(part for part in (before, REASON, AS_LINE if form == "line" else AS_JSON) if part)
    first = messages[0]
    if first.role != "system":
        return (Message("system", told), *messages)
    return (replace(first, content=f"{first.content} {told}".strip()), *messages[1:])


def asked_for_rationale(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with the wish for the reasoning alone.

    It goes into a message that is there already, because some chat templates take no system message.
    """
    place = 0 if messages[0].role == "system" else len(messages) - 1
    changed = replace(messages[place], content=f"{messages[place].content}\n\n{RATIONALE_ONLY}".strip())
    return (*messages[:place], changed, *messages[place + 1 :])


@lru_cache(maxsize=64)
def worked_schema(choices: tuple[str, ...]) -> str:
    """The JSON schema of a worked answer, as text; `choices` are the only answers where there are any."""
    answer: dict[str, Any] = {"type": "string", "enum": list(choices)} if choices else {"type": "string"}
    return json.dumps({
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "answer": answer},
        "required": ["reasoning", "answer"],
        "additionalProperties": False,
    })
