"""What comes of asking a teacher for a row: candidates, the rows that they make, and the rows to which no usable reply came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from potstill.inference.protocol import FinishReason
from potstill.rows import Message, Row


@dataclass(frozen=True, slots=True)
class Candidate:
    """One whole answer of one teacher to a row.

    texts and finish_reasons: one a turn that was asked for. completion_tokens: of all requests behind it, None where the
    endpoint does not tell. latency_s: their sum. teacher: the name its user gave it. sample: numbers its answers to this row.
    rationale: the reasoning that led to the answer, where there is any. request_keys: what the journal knows the replies by,
    one a turn. notes: what else the row's `meta` shall hold.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[FinishReason, ...]
    completion_tokens: int | None
    latency_s: float
    teacher: str
    sample: int = 0
    rationale: str | None = None
    request_keys: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """No usable answer, and why, in words a user understands."""

    reason: str


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row without a usable reply, and why."""

    row: Row
    reason: str


# What becomes of a row: the rows that training may learn from, or none and why.
Outcome = tuple[Row, ...] | RejectedRow


def answered_row(row: Row, candidate: Candidate, **meta: Any) -> Row:
    """The row with the candidate's turns in place of the gold ones, and in `meta` how they came about."""
    reasoning = {} if candidate.rationale is None else {"rationale": candidate.rationale}
    return replace(row, messages=_with_own_turns(row.messages, candidate.texts)).with_meta(
        teacher=candidate.teacher,
        finish_reasons=list(candidate.finish_reasons),
        completion_tokens=candidate.completion_tokens,
        latency_s=round(candidate.latency_s, 4),
        request_keys=list(candidate.request_keys),
        **reasoning,
        **candidate.notes,
        **meta,
    )


def _with_own_turns(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The dialogue with its last `len(texts)` assistant turns being `texts`, the gold ones among them replaced."""
    gold_turns = sum(message.role == "user" for message in messages) - len(texts)
    own = iter(texts)
    result: list[Message] = []
    users = 0
    for message in messages:
        if message.role == "assistant" and users > gold_turns:
            continue
        result.append(message)
        if message.role == "user":
            users += 1
            if users > gold_turns:
                result.append(Message("assistant", next(own)))
    return tuple(result)
