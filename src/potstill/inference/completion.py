"""The shape of an OpenAI-style reply, chat or text, read the same way for endpoints and for models in this process.

Sources: platform.openai.com/docs/api-reference/chat and /completions; servers differ in what they leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from potstill.inference.logprobs import parse_logprobs
from potstill.inference.protocol import FinishReason, MalformedReplyError, RawReply, Reply

_FINISH: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refused",
    "refusal": "refused",
}
_SHOWN = 120


def parse_completion(raw: RawReply, *, logprobs: bool = False) -> Reply:
    """The first choice of a reply. Reasoning that stands in a field of its own is kept apart from the text.

    logprobs: also read the log-probabilities, which takes longer than all the rest; whoever only wants the answer does not.

    A refusal (`message.refusal`, or a content filter's finish reason) has finish reason "refused" and its own words as text.

    Raises:
        MalformedReplyError: not JSON, an error in place of an answer, or no text where it should stand.
    """
    data = read_object(raw.body)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        what = f"the reply is an error: {error_message(raw.body)}" if "error" in data else "the reply has no choices"
        raise MalformedReplyError(what, found=shown_body(raw.body), expected="choices with one message", hint=HTTP_HINT)
    choice = choices[0]
    message = {"content": choice["text"]} if "text" in choice else choice.get("message")
    if not isinstance(message, Mapping):
        raise MalformedReplyError("the reply has a choice without a message", found=shown_body(raw.body), hint=HTTP_HINT)
    text, refusal = _text(message.get("content"), raw.body), message.get("refusal")
    finish = _FINISH.get(str(choice.get("finish_reason")), "stop")
    usage = data.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Reply(
        text=text or (refusal if isinstance(refusal, str) else ""),
        finish_reason="refused" if refusal else finish,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        latency_s=raw.latency_s,
        token_ids=_token_ids(choice.get("logprobs"), _count(usage.get("completion_tokens"))),
        reasoning=_reasoning(message),
        logprobs=parse_logprobs(choice.get("logprobs")) if logprobs else None,
    )


def completion_body(text: str, finish_reason: str, prompt_tokens: int, completion_tokens: int) -> bytes:
    """The raw reply of a model in this process, in the shape that `parse_completion` reads."""
    return orjson.dumps(
        {
            "object": "text_completion",
            "choices": [{"index": 0, "text": text, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        }
    )


def error_body(message: str) -> bytes:
    """The raw reply of a model in this process that cannot answer."""
    return orjson.dumps({"error": {"message": message}})


def error_message(body: bytes) -> str:
    """What an error reply says, in one line; servers put it into error.message, error, message or detail."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return shown_body(body)
    for _ in range(2):
        if isinstance(data, Mapping):
            data = next((data[key] for key in ("error", "message", "detail", "msg") if data.get(key)), data)
    return " ".join(data.split()) if isinstance(data, str) else shown_body(orjson.dumps(data))


def error_code(body: bytes) -> str | None:
    """The word by which an error reply names its kind (error.code), where it has one."""
    return error_field(body, "code")


def error_field(body: bytes, name: str) -> str | None:
    """A text in the `error` of an error reply, where it has one of that name."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    error = data.get("error") if isinstance(data, Mapping) else None
    value = error.get(name) if isinstance(error, Mapping) else None
    return value if isinstance(value, str) else None


HTTP_HINT = "is this a chat endpoint? its address usually ends in /v1"


def read_object(body: bytes) -> Mapping[str, Any]:
    """The JSON object that a reply is.

    Raises:
        MalformedReplyError: it is none.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedReplyError("the reply is not JSON", found=shown_body(body), hint=HTTP_HINT) from error
    if not isinstance(data, dict):
        raise MalformedReplyError("the reply is no JSON object", found=shown_body(body), hint=HTTP_HINT)
    return data


def _text(content: Any, body: bytes) -> str:
    """The text of a message's content: a string, nothing, or a list of parts of which the text parts count."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text")]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    raise MalformedReplyError("the message's content is no text", found=shown_body(body), hint=HTTP_HINT)


def _reasoning(message: Mapping[str, Any]) -> str | None:
    """DeepSeek and most servers call it reasoning_content, OpenRouter, Ollama and newer vLLM reasoning."""
    told = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text for text in told if isinstance(text, str) and text.strip()), None)


def _token_ids(logprobs: Any, completion_tokens: int | None) -> tuple[int, ...] | None:
    """The ids that llama.cpp tells beside the probabilities; it leaves out tokens that are parts of a character."""
    entries = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(entries, list) or len(entries) != completion_tokens:
        return None
    ids = [entry["id"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("id"), int)]
    return tuple(ids) if len(ids) == len(entries) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown_body(body: bytes) -> str:
    """The start of a reply, in one line that can be printed."""
    text = " ".join(body.decode("utf-8", errors="replace").split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
