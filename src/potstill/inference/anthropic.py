"""A Claude model through Anthropic's own SDK: the system message apart, thinking beside the answer, reasons of its own to stop.

Anthropic's protocol differs from OpenAI's in all of these, and its OpenAI-style endpoint leaves half of them out. The SDK's own
retries are off: tries, rates and budgets are the client's work, and every try has to be in the journal.

Source: platform.claude.com/docs/en/api/messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from yarl import URL

from potstill.errors import MissingExtraError
from potstill.inference.completion import HTTP_HINT, read_object, shown_body
from potstill.inference.dialect import Refusals, shown
from potstill.inference.keys import clean, strike_out
from potstill.inference.limits import read_limits, retry_after_s
from potstill.inference.protocol import (
    Capabilities,
    FinishReason,
    MalformedReplyError,
    RawReply,
    Reply,
    Request,
    TransportError,
)

# The last version in which models that can be told how freely to choose their words take a temperature. Newer models refuse it
# in any version, and then it is left out.
_API_VERSION = "2023-06-01"
_NOT_IN_SDK = ("temperature", "top_p")
_MAY_GO: Mapping[str, str | None] = {"top_p": None, "temperature": None, "stop_sequences": None, "output_config": None}
_FINISH: Mapping[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


class AnthropicEngine:
    """Asks one model; as many requests at once as its caller sends.

    Args:
        base_url: What stands before /v1/messages, for example https://api.anthropic.com; a /v1 at its end is left out.
        model: Anthropic's name of the model.
        api_key: None for a gateway that needs none.
        say: Told once of each parameter that the model refuses, and that is left out from then on.
        timeout_s: From sending to the last byte of the reply.
        concurrency: How many requests the endpoint is known to serve at once.
        context_window: In tokens, where known.

    Raises:
        MissingExtraError: the SDK is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        *,
        say: Callable[[str], None] = lambda text: None,
        timeout_s: float = 600.0,
        concurrency: int | None = None,
        context_window: int | None = None,
    ) -> None:
        try:
            import anthropic
        except ImportError as error:
            raise MissingExtraError("anthropic", "anthropic") from error
        self._errors: Any = anthropic
        url = _root(base_url)
        self._identity = anthropic_identity(base_url, model)
        self._model, self._key, self._timeout_s = model, api_key, timeout_s
        # Without a key of ours the SDK would look for one by itself, in places that the job does not name.
        self._sdk = anthropic.AsyncAnthropic(
            api_key=api_key or "none", base_url=str(url), max_retries=0, timeout=timeout_s,
            default_headers={"anthropic-version": _API_VERSION},
        )
        self._refused = Refusals(model, _MAY_GO, say)
        self._concurrency, self._context_window = concurrency, context_window

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        """As far as is known: what a model refuses shows when it is asked."""
        return Capabilities(
            choices=False, json_schema="output_config" not in self._refused, local=False,
            max_concurrency=self._concurrency, context_window=self._context_window,
        )

    async def generate(self, request: Request) -> RawReply:
        """Ask once; a status other than 200 is a reply too.

        Raises:
            TransportError: no connection, a timeout, or a reply that was cut off.
        """
        while True:
            body = self.body(request)
            arguments = _as_arguments(body)
            raw = await self._raw(lambda: self._sdk.messages.with_raw_response.create(**arguments))  # noqa: B023 (awaited here)
            if not self.learn(raw, body):
                return raw

    def learn(self, raw: RawReply, sent: Mapping[str, Any]) -> bool:
        """Whether the same request is worth another try, because what was refused in it is left out from now on."""
        return self._refused.learn(raw, sent)

    async def call(self, make: Callable[[Any], Awaitable[Any]]) -> RawReply:
        """Ask another part of the same API: `make` gets the SDK's message batches, with raw responses.

        Raises:
            TransportError: as `generate`.
        """
        return await self._raw(lambda: make(self._sdk.messages.batches.with_raw_response))

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request to /v1/messages.

        `top_p` is sent only where it says something: newer models take it or `temperature`, not both.
        """
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "messages": [message.as_dict() for message in request.messages if message.role != "system"],
            "temperature": sampling.temperature,
        }
        system = [message.content for message in request.messages if message.role == "system"]
        if system:
            body["system"] = "\n\n".join(system)
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop_sequences"] = list(sampling.stop)
        if sampling.json_schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": orjson.loads(sampling.json_schema)}}
        return self._refused.without(body)

    def parse(self, raw: RawReply) -> Reply:
        return parse_message(raw)

    async def aclose(self) -> None:
        await self._sdk.close()

    async def _raw(self, make: Callable[[], Awaitable[Any]]) -> RawReply:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await make()
                received = await response.read()
                status, headers = response.status_code, response.headers
        except self._errors.APIStatusError as error:
            received, status, headers = error.response.content, error.response.status_code, error.response.headers
        except (TimeoutError, self._errors.APITimeoutError) as error:
            what = f"{self._identity['endpoint']} sent no whole reply within {time.perf_counter() - started:.3g} s"
            raise TransportError(what) from error
        except self._errors.APIConnectionError as error:
            raise self._broken(error) from error
        latency_s = time.perf_counter() - started
        received = strike_out(received, status, self._key)
        return RawReply(status, received, latency_s, retry_after_s(headers), read_limits(headers))

    def _broken(self, error: Exception) -> TransportError:
        cause = error.__cause__ or error
        reason = clean(str(cause) or type(cause).__name__, self._key)
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
            return TransportError(f"{self._identity['endpoint']} cannot be reached: {reason}", sent=False)
        return TransportError(f"the connection to {self._identity['endpoint']} broke: {reason}")


def _as_arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as the SDK takes it, which no longer knows all that the API knows."""
    known = {name: value for name, value in body.items() if name not in _NOT_IN_SDK}
    return {**known, "extra_body": {name: body[name] for name in _NOT_IN_SDK if name in body}}


def anthropic_identity(base_url: str, model: str) -> Mapping[str, Any]:
    """What makes the model this model; needs no SDK."""
    return {"endpoint": f"{shown(_root(base_url))}/v1/messages", "model": model}


def parse_message(raw: RawReply) -> Reply:
    """The text of a message; thinking is kept apart from it.

    Raises:
        MalformedReplyError: not JSON, an error in place of an answer, or no content where it should stand.
    """
    data = read_object(raw.body)
    content = data.get("content")
    if data.get("type") != "message" or not isinstance(content, list):
        raise MalformedReplyError("the reply is no message of Anthropic's", found=shown_body(raw.body), hint=HTTP_HINT)
    usage = data.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}
    read = [counts.get(name) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
    written = counts.get("output_tokens")
    return Reply(
        text=_joined(content, "text"),
        finish_reason=_FINISH.get(str(data.get("stop_reason")), "stop"),
        prompt_tokens=sum(count for count in read if isinstance(count, int)) if isinstance(read[0], int) else None,
        completion_tokens=written if isinstance(written, int) else None,
        latency_s=raw.latency_s,
        reasoning=_joined(content, "thinking") or None,
    )


def _joined(content: Sequence[Any], kind: str) -> str:
    """The texts of all blocks of a kind; a block has its text under the name of its kind."""
    blocks = (block for block in content if isinstance(block, Mapping) and block.get("type") == kind)
    return "".join(block[kind] for block in blocks if isinstance(block.get(kind), str))


def _root(base_url: str) -> URL:
    url = URL(base_url)
    return url.with_path(url.path.rstrip("/").removesuffix("/messages").removesuffix("/v1"), keep_query=True)
