"""The log-probabilities that come with a reply: of each token written, and of the likeliest ones at its place.

OpenAI names tokens by text and bytes, llama.cpp by their ids too, vLLM by either, as it is asked. Servers differ in which
distribution they tell of. OpenAI and vLLM tell the model's own, before temperature and truncation (vLLM unless it runs with
another `--logprobs-mode` than raw_logprobs), and so does llama.cpp, unless it is asked for post_sampling_probs. SGLang tells
that at the temperature of the sampling, unless it runs with SGLANG_RETURN_ORIGINAL_LOGPROB.

Sources: platform.openai.com/docs/api-reference/chat/object, docs.vllm.ai/en/latest/serving/openai_compatible_server,
docs.vllm.ai/en/latest/configuration/engine_args, llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from potstill.inference.protocol import TokenLogprobs, ToldToken

_BY_ID = re.compile(r"token_id:(\d+)")
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
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= _NOTHING:
        return -math.inf
    return min(float(value), 0.0)


def _entry(entry: Mapping[str, Any]) -> TokenLogprobs:
    top = entry.get("top_logprobs")
    others = [_token(other) for other in top if isinstance(other, Mapping)] if isinstance(top, list) else []
    named = (other for other in others if other.logprob > -math.inf and (other.id is not None or other.data is not None))
    return TokenLogprobs(_token(entry), tuple(named))


def _token(entry: Mapping[str, Any]) -> ToldToken:
    text, data, own_id = entry.get("token"), entry.get("bytes"), entry.get("id")
    text = text if isinstance(text, str) else None
    logprob = read_logprob(entry.get("logprob"))
    by_id = None if text is None else _BY_ID.fullmatch(text)
    if by_id is not None:
        return ToldToken(int(by_id[1]), None, logprob)
    is_id = isinstance(own_id, int) and not isinstance(own_id, bool) and own_id >= 0
    return ToldToken(own_id if is_id else None, _bytes(text, data), logprob)


def _bytes(text: str | None, data: Any) -> bytes | None:
    """The token's bytes; those of its text where they are not told, if that stands for no others."""
    if isinstance(data, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        told = bytes(data)
    elif text is not None:
        told = text.encode(errors="replace")
    else:
        return None
    return None if text is not None and _UNREADABLE in text and told == text.encode() else told
