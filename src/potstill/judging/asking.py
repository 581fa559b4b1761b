"""Ask a judge many questions, each once, and keep the answers in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potstill.inference.client import Answer, Client
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message

Messages = tuple[Message, ...]

LOCAL_TOKENS = 384  # a reason of two sentences, with room for a judge that likes to talk
ENDPOINT_TOKENS = 2048  # a model behind an endpoint may think before it answers, and its thoughts count


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back from a judge: a whole text, or why there is none."""

    text: str | None
    failure: str | None


def judge_request(client: Client, messages: Messages, schema: str) -> Request:
    """The question as it is sent: the likeliest verdict, so that the same question has the same verdict.

    Args:
        schema: The JSON Schema of the reply, for engines that hold to one.
    """
    limit = LOCAL_TOKENS if client.local else ENDPOINT_TOKENS
    return Request(messages, Sampling(temperature=0.0, max_tokens=limit, json_schema=schema))


async def ask_each(
    client: Client, questions: Sequence[Messages], schema: str, on_done: Callable[[int, int], None]
) -> list[Heard]:
    """One reply a question, in order; equal questions are asked once. on_done: number done, and of all.

    Raises:
        EndpointError: the endpoint refuses every request or does not answer at all.
    """
    places: dict[Messages, list[int]] = {}
    for place, messages in enumerate(questions):
        places.setdefault(messages, []).append(place)
    heard: dict[int, Heard] = {}

    def keep(answer: Answer) -> None:
        for place in places[answer.request.messages]:
            heard[place] = heard_of(answer)
        on_done(len(heard), len(questions))

    await client.ask_all((judge_request(client, messages, schema) for messages in places), keep)
    return [heard[place] for place in range(len(questions))]


def heard_of(answer: Answer) -> Heard:
    """A reply that was cut off may have ended before its verdict, or in the middle of it: it has none."""
    reply = answer.reply
    if reply is None:
        return Heard(None, answer.failure)
    if reply.finish_reason == "length":
        return Heard(None, "the judge's reply was cut off by its token limit")
    if reply.finish_reason == "refused":
        return Heard(None, "the judge declined to answer")
    return Heard(reply.text, None)
