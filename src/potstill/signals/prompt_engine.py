"""What goes to vLLM and SGLang, and what comes back, when they are asked about a text that they did not write.

Both tell the model's own distribution here, whatever the temperature.

Sources: docs.vllm.ai/en/latest/serving/openai_compatible_server (/v1/completions with `prompt_logprobs`), and
docs.sglang.ai/basic_usage/native_api (/generate with `return_logprob`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from potstill.inference.completion import read_object, shown_body
from potstill.inference.dialect import Server
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.logprobs import read_logprob
from potstill.inference.protocol import Capabilities, MalformedReplyError, RawReply, Reply, Request, TokenLogprobs, ToldToken

_UNTOLD = ToldToken(None, None, -math.inf)


class PromptEngine:
    """Asks for the log-probabilities of a text, whose token ids are the only message of a request, as a JSON list.

    An engine like any other; the `logprobs` of its replies are those of the prompt's tokens, the first of which has none.
    """

    def __init__(self, endpoint: EndpointEngine, model: str, server: Server) -> None:
        self._endpoint, self._model, self._server = endpoint, model, server

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self._endpoint.identity, "prompt_logprobs": True}

    @property
    def capabilities(self) -> Capabilities:
        told = self._endpoint.capabilities
        return Capabilities(choices=False, local=False, max_concurrency=told.max_concurrency, logprobs="raw")

    async def generate(self, request: Request) -> RawReply:
        """Ask once.

        Raises:
            TransportError: nothing came back, or not all of it.
        """
        content = request.messages[0].content
        prompt = orjson.loads(content) if content.startswith("[") else content
        if self._server == "vllm":
            body = {
                "model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0,
                "prompt_logprobs": request.top_logprobs,
            }
            return await self._endpoint.call("POST", "completions", body)
        body = {
            "text" if isinstance(prompt, str) else "input_ids": prompt, "return_logprob": True, "logprob_start_len": 0,
            "top_logprobs_num": request.top_logprobs, "return_text_in_logprobs": True,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
        }
        return await self._endpoint.call("POST", "../generate", body)  # it stands beside /v1, not below it

    def parse(self, raw: RawReply) -> Reply:
        """Raises:
        MalformedReplyError: it tells nothing of the prompt.
        """
        data = read_object(raw.body)
        try:
            told = _of_vllm(data) if self._server == "vllm" else _of_sglang(data)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise MalformedReplyError(
                "the reply has no log-probabilities of the prompt", found=shown_body(raw.body),
                hint=f"is this {'vLLM' if self._server == 'vllm' else 'SGLang'}, as the model's engine says?",
            ) from error
        counts = data.get("usage") or data.get("meta_info") or {}
        return Reply("", "stop", counts.get("prompt_tokens"), counts.get("completion_tokens"), raw.latency_s, logprobs=told)

    async def aclose(self) -> None:
        await self._endpoint.aclose()


def _of_vllm(data: Mapping[str, Any]) -> tuple[TokenLogprobs, ...]:
    """From a list of {token id: {logprob, rank, decoded_token}}, null for the first; the text's own token comes first."""
    read: list[TokenLogprobs] = []
    for place in data["choices"][0]["prompt_logprobs"]:
        found = [
            ToldToken(int(token_id), _data(entry.get("decoded_token")), read_logprob(entry["logprob"]))
            for token_id, entry in (place or {}).items()
        ]
        read.append(TokenLogprobs(found[0] if found else _UNTOLD, tuple(found)))
    return tuple(read)


def _of_sglang(data: Mapping[str, Any]) -> tuple[TokenLogprobs, ...]:
    """From [logprob, token id, text] of each token of the text, and lists of the same for the likeliest at its place."""
    meta = data["meta_info"]
    places = zip(meta["input_token_logprobs"], meta["input_top_logprobs"], strict=True)
    return tuple(TokenLogprobs(_triple(own), tuple(_triple(other) for other in top or ())) for own, top in places)


def _triple(entry: Any) -> ToldToken:
    logprob, token_id, text = entry
    return ToldToken(int(token_id), _data(text), read_logprob(logprob))


def _data(text: Any) -> bytes | None:
    return text.encode() if isinstance(text, str) and "\ufffd" not in text else None
