"""What a setback means: try again, give up on the row, or stop the job; and how long to wait."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from potstill.errors import EndpointError
from potstill.inference.completion import error_code, error_message
from potstill.inference.protocol import MalformedReplyError, RawReply, TransportError

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0

Meaning = Literal["again", "wait", "row", "stop"]
_TRY_AGAIN = (408, 409, 425)
_ROW_REFUSED = (400, 413, 422)
_REDIRECTED = "it sends requests on to another address, which gets no key from here: name that address as the endpoint"
_WHAT_TO_DO = {
    **dict.fromkeys((301, 302, 303, 307, 308), _REDIRECTED),
    401: "the key is missing or wrong: check the variable that api_key_env names",
    402: "the account has no credit left: top it up, then run again; nothing that was received is asked for again",
    403: "the key may not use this model: check the account, or the model's name",
    404: "check the endpoint's address (it usually ends in /v1) and the model's name",
}
_OVERLOADED = (503, 529)
# OpenAI sends the status of "too fast" for "no money left" too, and only the code tells them apart; Anthropic sends that of a
# wrong request, and only the words do.
_NO_CREDIT, _NO_CREDIT_WORDS = "insufficient_quota", "credit balance is too low"
_LOGPROBS = re.compile("log_?prob", re.IGNORECASE)
_NO_LOGPROBS = (
    "ask for fewer log-probabilities (OpenAI tells at most 20 a token, vLLM as many as its --max-logprobs says), or train "
    "without them if the model tells none"
)


@dataclass(frozen=True, slots=True)
class Setback:
    """A try that brought no answer.

    meaning: "again" counts as a failed try; "wait" does not (the endpoint is only too busy); "row" is final for this request;
    "stop" is final for all. why: in words a user understands. unreachable: nothing came back at all. no_credit: for lack of
    money. hint: what to do about it, where no status says so.
    """

    meaning: Meaning
    why: str
    status: int | None = None
    retry_after_s: float | None = None
    unreachable: bool = False
    no_credit: bool = False
    hint: str | None = None


def from_reply(raw: RawReply, name: str, *, logprobs: bool = False) -> Setback:
    """What a reply with another status than 200 means; `name` is the endpoint's. logprobs: those were asked for."""
    message = error_message(raw.body) or "no message"
    why = f"{name} answered with status {raw.status}: {message}"
    overloaded = raw.status in _OVERLOADED and raw.retry_after_s is not None  # it knows when it will be better
    if error_code(raw.body) == _NO_CREDIT or _NO_CREDIT_WORDS in message:
        return Setback("stop", why, raw.status, no_credit=True)
    if logprobs and raw.status in _ROW_REFUSED and _LOGPROBS.search(message):
        return Setback("stop", why, raw.status, hint=_NO_LOGPROBS)
    if overloaded or raw.status == 429:
        meaning: Meaning = "wait"
    elif raw.status in _TRY_AGAIN or raw.status >= 500:
        meaning = "again"
    else:
        meaning = "row" if raw.status in _ROW_REFUSED else "stop"
    return Setback(meaning, why, raw.status, raw.retry_after_s)


def from_error(error: MalformedReplyError | TransportError) -> Setback:
    """A reply without meaning, or none."""
    details = [error.what, *(part for part in (error.found, error.hint) if part)]
    return Setback("again", "; ".join(details), unreachable=isinstance(error, TransportError))


def place(identity: Mapping[str, Any]) -> str:
    """How errors name the model that was asked."""
    return f"{identity['endpoint']}, model {identity['model']}" if "endpoint" in identity else "the model in this process"


def stop_error(setback: Setback, identity: Mapping[str, Any]) -> EndpointError:
    """The error that ends the job at once."""
    status = 402 if setback.no_credit else setback.status
    return EndpointError(
        f"the endpoint refuses every request (status {setback.status})",
        where=place(identity),
        found=setback.why,
        hint=setback.hint or _WHAT_TO_DO.get(status or 0, "check the endpoint's address; it usually ends in /v1"),
    )


def wait_s(setback: Setback, setbacks: int) -> float:
    """Seconds until the next try: what the endpoint asked for, else exponential with full jitter.

    aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter. `setbacks` counts from 1.
    """
    ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(setbacks - 1, 16))
    if setback.retry_after_s is not None:
        return setback.retry_after_s + random.uniform(0, FIRST_WAIT_S)
    return random.uniform(0, ceiling)
