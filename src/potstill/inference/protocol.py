"""The one protocol by which every model is asked, wherever it runs.

An engine turns a `Request` into a `RawReply` (what came back, byte for byte) and a raw reply into a `Reply` (its meaning). The
two are apart so that the journal can keep the first before anything looks at it. Engines know nothing of retries, rates,
budgets or the journal: that is the client's work (`client.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal, Protocol

from potstill.errors import PotstillError
from potstill.rows import Message, content_hash

FinishReason = Literal["stop", "length", "refused"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. `temperature` 0 is greedy; `max_tokens` bounds the answer.

    `choices`, where given, is a closed set: an engine whose capabilities say so answers with one of them. `json_schema`, where
    given, is a JSON Schema as text: an engine whose capabilities say so answers with JSON that it describes. Vendors want every
    object in it to list all its keys as required and to allow no others.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: str | None = None


_SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))
_sampling_values = attrgetter(*_SAMPLING_FIELDS)  # a key is made for every request: `asdict` takes ten times as long


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model. `sample` numbers independent answers to the same question.

    token_ids: also tell which tokens were written, where the engine can. Not part of the key: the answer is the same.
    top_logprobs: also tell the log-probabilities of so many of the likeliest tokens at each place, where the engine can
    (`Capabilities.logprobs`). Part of the key where any are asked for: a reply without them would be of no use.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    token_ids: bool = False
    top_logprobs: int = 0

    def key(self, identity: Mapping[str, Any]) -> str:
        """What makes two requests the same one: model, messages, sampling, sample number; never a row's position.

        32 hexadecimal digits of 128-bit BLAKE2b over canonical JSON.
        """
        asked = {
            "model": dict(identity),
            "messages": [message.as_dict() for message in self.messages],
            "sampling": dict(zip(_SAMPLING_FIELDS, _sampling_values(self.sampling), strict=True)),
            "sample": self.sample,
        }
        return content_hash({**asked, "top_logprobs": self.top_logprobs} if self.top_logprobs else asked)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What an endpoint tells of its limits with a reply: what is left, and the seconds until it is full again."""

    remaining_requests: float | None = None
    reset_requests_s: float | None = None
    remaining_tokens: float | None = None
    reset_tokens_s: float | None = None


@dataclass(frozen=True, slots=True)
class RawReply:
    """What came back, before anything parsed it.

    status: HTTP status, or 200 and 500 for models in this process. latency_s: seconds from sending to the last byte.
    retry_after_s: seconds the endpoint asked to wait, where it did. limits: what else it told; not kept in the journal.
    """

    status: int
    body: bytes
    latency_s: float
    retry_after_s: float | None = None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token as a reply names it: by its id in the model's own vocabulary, by its bytes, by both, or by nothing that counts.

    logprob: in nats; minus infinity where it is not told.
    """

    id: int | None
    data: bytes | None
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What a model tells of one token it wrote: the token, and the likeliest ones at its place, as many as were asked for.

    Some servers count the written token among the likeliest ones, others do not, and some name a token twice.
    """

    written: ToldToken
    top: tuple[ToldToken, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The meaning of a raw reply. Token counts are None where the endpoint does not tell.

    token_ids: every token that was written, the one that ended the turn included; None where that was not asked or not told.
    reasoning: what the model thought before it answered, where the endpoint tells it apart from the answer.
    logprobs: of the tokens written, as the server lists them; None where they were not asked for, not told or not read.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    completion_tokens: int | None
    latency_s: float
    token_ids: tuple[int, ...] | None = None
    reasoning: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A model's view of a given continuation, one entry a token of it.

    logprobs: natural logarithms of the probability of each token. best_logprobs: the same of the model's own first choice at
    that place. top1: whether the token was that first choice.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    best_logprobs: tuple[float, ...]
    top1: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    choices: `Sampling.choices` is enforced. json_schema: `Sampling.json_schema` is. local: the model runs in this process, so
    its memory can be measured here and a reply costs no money. max_concurrency: requests it serves at once (slots), None if
    unknown. batched: replies come hours later, many at once. logprobs: which log-probabilities come with a reply that is asked
    for them: of the model's own distribution ("raw"), of that at the sampling temperature ("tempered"), or none.
    """

    choices: bool
    local: bool
    max_concurrency: int | None = None
    context_window: int | None = None
    json_schema: bool = False
    batched: bool = False
    logprobs: Literal["none", "raw", "tempered"] = "none"


class MalformedReplyError(PotstillError):
    """A reply that is no answer: broken JSON, a missing field, another protocol. Worth another try."""


class TransportError(PotstillError):
    """The connection failed, was cut, or timed out. Worth another try. sent: the endpoint may have got the request."""

    def __init__(self, what: str, *, sent: bool = True) -> None:
        super().__init__(what)
        self.sent = sent


class Engine(Protocol):
    """A model that can be asked. Made by `potstill.inference.open_engine`, closed with `aclose`."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes the model this model, by content (never a path): part of every request's key."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def generate(self, request: Request) -> RawReply:
        """Ask once.

        Raises:
            TransportError: nothing came back, or not all of it.
        """
        ...

    def parse(self, raw: RawReply) -> Reply:
        """The meaning of a raw reply of this engine with status 200.

        Raises:
            MalformedReplyError: it has none.
        """
        ...

    async def aclose(self) -> None: ...


class ScoringEngine(Engine, Protocol):
    """An engine that also tells how likely a given text is."""

    async def score(self, prompts: Sequence[str], continuations: Sequence[str | Sequence[int]]) -> list[Score]:
        """Log-probabilities of each continuation, a text or token ids, after its rendered prompt."""
        ...
