"""A teacher on loopback that keeps its own bill, as a vendor does: for every request that it has received.

It counts a token a byte, more than any tokenizer, and bills those whose replies are lost on the way too. `bill.fault` is what a
`LoopbackEndpoint` takes as its `fault`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from loopback import Fault, Messages
from potstill.catalog import Price

_TEMPLATE_TOKENS = 12  # before all messages
_MESSAGE_TOKENS = 5  # around each


@dataclass
class VendorsBill:
    """What was received and is to be paid, in tokens and dollars.

    answer: what the teacher says. lost: the share of the replies that are cut, broken, or come without a count of tokens.
    own_prompt: tokens that it adds to each request's.
    """

    answer: Callable[[Messages], str]
    price: Price
    lost: float = 0.0
    own_prompt: int = 0
    tokens: int = 0
    usd: float = 0.0
    requests: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def fault(self, messages: Messages, attempt: int) -> Fault:
        """The reply to a request, which is billed whatever becomes of it."""
        text = self.answer(messages)
        around = self.own_prompt + _TEMPLATE_TOKENS
        read = around + sum(len(message["content"].encode()) + _MESSAGE_TOKENS for message in messages)
        written = len(text.encode())
        self.requests += 1
        self.tokens += read + written
        self.usd += (read * self.price.input + written * self.price.output) / 1e6
        body = _completion(text, read, written)
        if self.random.random() >= self.lost:
            return Fault(body=body)
        return self.random.choice(
            [Fault(body=body, cut=20), Fault(cut=-1), Fault(500, b"out of order"), Fault(body=_completion(text, None, None))]
        )


def _completion(text: str, read: int | None, written: int | None) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    if read is not None:
        body["usage"] = {"prompt_tokens": read, "completion_tokens": written}
    return orjson.dumps(body)
