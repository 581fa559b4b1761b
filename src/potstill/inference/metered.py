"""A client that adds up what the replies it hands out have taken, wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potstill.inference.client import Answer, Client
from potstill.inference.journal import Journal
from potstill.inference.protocol import Engine, Reply, Request


@dataclass(slots=True)
class Usage:
    """Requests that got a reply, and the tokens of those replies; None where the endpoint did not tell them all."""

    requests: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    def add(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        self.requests += 1
        self.prompt_tokens = _sum(self.prompt_tokens, prompt_tokens)
        self.completion_tokens = _sum(self.completion_tokens, completion_tokens)


class Meter:
    """Counts each request once, however often it is asked: a reply of the journal was paid for like any other.

    Failed attempts are not in it; the journal has them (`potstill.inference.spending`). Costs some 60 bytes a request.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self._counted: set[int] = set()

    def note(self, key: str, reply: Reply) -> None:
        """Take the reply to the request of this key."""
        short = int(key[:16], 16)
        if short not in self._counted:
            self._counted.add(short)
            self.usage.add(reply.prompt_tokens, reply.completion_tokens)


class MeteredClient(Client):
    """A client whose replies pass a meter."""

    def __init__(self, engine: Engine, journal: Journal, meter: Meter, **options: Any) -> None:
        super().__init__(engine, journal, **options)
        self._meter = meter

    async def ask(self, request: Request) -> Answer:
        """As `Client.ask`."""
        answer = await super().ask(request)
        if answer.reply is not None:
            self._meter.note(request.key(self._identity), answer.reply)
        return answer


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
