"""The log-probabilities that come with a reply: of each token written, and of the likeliest ones at its place.

OpenAI names tokens by text and bytes, llama.cpp by their ids too, vLLM by either, as it is asked. Servers differ in which
distribution they tell of. OpenAI and vLLM tell the model's own, before temperature and truncation (vLLM unless it runs with
another `--logprobs-mode` than raw_logprobs), and so does llama.cpp, unless it is asked for post_sampling_probs. SGLang tells
that at the temperature of the sampling, unless it runs with SGLANG_RETURN_ORIGINAL_LOGPROB, and where the set of answers is
closed, that among these answers.

Sources: platform.openai.com/docs/api-reference/chat/object, docs.vllm.ai/en/latest/serving/openai_compatible_server,
docs.vllm.ai/en/latest/configuration/engine_args, llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from potstill.inference.protocol import TokenLogprobs, ToldToken

_BY_ID = "token_id:"
# Stands for minus infinity in JSON, which has none; llama.cpp writes the least float in its place.
_NOTHING = -9999.0
# What a server writes for bytes that are no character by themselves, if it tells text alone: any of many tokens.
_UNREADABLE = "\ufffd"


def parse_logprobs(told: Any) -> tuple[TokenLogprobs, ...] | None:
    """What stands under `logprobs` of a choice; None where there is nothing that can be read, token by token."""
    entries = told.get("content") if isinstance(told, Mapping) else None
    if not isinstance(entries, list) or not entries:
        return None
    read = [_entry(entry) for entry in entries if isinstance(entry, Mapping)]
    return tuple(read) if len(read) == len(entries) else None


def read_logprob(value: Any) -> float:
    """A log-probability; minus infinity for what is none, and for the numbers that stand for it."""
    if isinstance(value, float | int) and _NOTHING < value < math.inf and value is not True and value is not False:
        return value if value < 0.0 else 0.0
    return -math.inf


def _entry(entry: Mapping[str, Any]) -> TokenLogprobs:
    top = entry.get("top_logprobs")
    others = [_token(other) for other in top if isinstance(other, Mapping)] if isinstance(top, list) else []
    named = (other for other in others if other.logprob > -math.inf and (other.id is not None or other.data is not None))
    return TokenLogprobs(_token(entry), tuple(named))


def _token(entry: Mapping[str, Any]) -> ToldToken:
    text, own_id = entry.get("token"), entry.get("id")
    text, logprob = text if isinstance(text, str) else None, read_logprob(entry.get("logprob"))
    if text is not None and text.startswith(_BY_ID) and text[len(_BY_ID) :].isdecimal():
        return ToldToken(int(text[len(_BY_ID) :]), None, logprob)
    is_id = isinstance(own_id, int) and own_id is not True and own_id >= 0
    return ToldToken(own_id if is_id else None, _bytes(text, entry.get("bytes")), logprob)


def _bytes(text: str | None, data: Any) -> bytes | None:
    """The token's bytes; those of its text where they are not told, if that stands for no others."""
    by_text = None if text is None else text.encode(errors="replace")
    try:
        told = bytes(data) if isinstance(data, list) else by_text
    except (TypeError, ValueError):  # no list of bytes
        told = by_text
    return None if text is not None and _UNREADABLE in text and told == by_text else told
