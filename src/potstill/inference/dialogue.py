"""Ask a model for one row, turn by turn.

In a conversation every assistant turn is asked for anew, on top of the model's own earlier turns, so that a student learns from
(and is judged on) dialogues that one model could have led. All other tasks have one turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.inference.client import Answer, Client
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What a model said to one row: one answer a turn, up to the first that failed."""

    answers: tuple[Answer, ...]
    turns: int

    @property
    def texts(self) -> list[str]:
        """The answered turns, in order."""
        return [answer.reply.text for answer in self.answers if answer.reply is not None]

    @property
    def complete(self) -> bool:
        return len(self.texts) == self.turns

    @property
    def keys(self) -> tuple[str, ...]:
        """What the journal knows the answered turns by, in order."""
        return tuple(answer.key for answer in self.answers if answer.reply is not None and answer.key is not None)

    @property
    def failure(self) -> str | None:
        """Why the row has no full answer, in words a user understands; None where it has one."""
        return next((answer.failure for answer in self.answers if answer.failure is not None), None)


async def answer_row(
    client: Client, messages: Sequence[Message], turns: int, sampling: Sampling, *, sample: int = 0, top_logprobs: int = 0
) -> RowAnswer:
    """Ask for the assistant's turns of a dialogue, one after the other.

    Args:
        client: Where the requests go.
        messages: An optional system message, then user turns with the gold assistant turns between them, a user turn last.
        turns: How many assistant turns are wanted: all of them (conversation), or 1 for the last alone.
        sampling: How each is drawn.
        sample: Numbers independent answers to the same row.
        top_logprobs: See `Request`.
    """
    asked: list[Answer] = []
    dialogue: list[Message] = []
    gold_turns = sum(message.role == "user" for message in messages) - turns
    seen = 0
    for message in messages:
        if message.role == "assistant":
            if seen <= gold_turns:
                dialogue.append(message)
            continue
        dialogue.append(message)
        if message.role != "user":
            continue
        seen += 1
        if seen <= gold_turns:
            continue
        answer = await client.ask(Request(tuple(dialogue), sampling, sample, top_logprobs=top_logprobs))
        asked.append(answer)
        if answer.reply is None:
            break
        dialogue.append(Message("assistant", answer.reply.text))
    return RowAnswer(tuple(asked), turns)
