"""What goes over the wire to an endpoint, what its replies mean, and that the key goes nowhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import orjson
import pytest

from loopback import Fault, LoopbackEndpoint, Messages, raw, serve_in_thread, status
from potstill.errors import EndpointError
from potstill.inference.client import Client
from potstill.inference.completion import parse_completion
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import MalformedReplyError, RawReply, Reply, Request, TransportError

AskFor = Callable[..., Request]
KEY = "sk-secret-0123456789abcdef"


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def send(server: LoopbackEndpoint, request: Request, *, key: str | None = None, url: str | None = None) -> RawReply:
    engine = EndpointEngine(url or server.base_url, "the-model", key)
    try:
        return await engine.generate(request)
    finally:
        await engine.aclose()


def parse(data: object) -> Reply:
    return parse_completion(RawReply(200, data if isinstance(data, bytes) else orjson.dumps(data), 0.25))


def chat(message: object, finish_reason: str | None = "stop") -> dict[str, object]:
    return {"choices": [{"message": message, "finish_reason": finish_reason}]}


async def test_the_request_says_what_the_sampling_says(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout) as server:
        raw_reply = await send(server, ask_for("hi", temperature=0.5, top_p=0.9, max_tokens=7, stop=("\n",)))
    assert server.requests[0].body == {
        "model": "the-model",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "stop": ["\n"],
    }
    assert "Authorization" not in server.requests[0].headers
    reply = parse_completion(raw_reply)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("HI", "stop", 7, 1)
    assert reply.latency_s > 0


async def test_the_newer_name_of_max_tokens_is_learnt_once(ask_for: AskFor) -> None:
    message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."

    async with LoopbackEndpoint(shout) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        server._fault = lambda messages, attempt: status(400, message) if "max_tokens" in server.requests[-1].body else None
        replies = [await engine.generate(ask_for(text, max_tokens=9)) for text in "abc"]
        await engine.aclose()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert [request.body.get("max_completion_tokens") for request in server.requests] == [None, 9, 9, 9]


async def test_an_address_may_name_the_whole_path_and_a_query(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout) as server:
        for url in (server.base_url + "/", server.base_url + "/chat/completions", server.base_url + "?api-version=2"):
            assert (await send(server, ask_for("hi"), url=url)).status == 200


async def test_a_redirect_is_not_followed(ask_for: AskFor, tmp_path: Path) -> None:
    moved = Fault(301, b"", headers={"Location": "http://127.0.0.1:9/"})
    async with LoopbackEndpoint(shout, fault=lambda m, n: moved) as server:
        assert (await send(server, ask_for("hi"), key=KEY)).status == 301


async def test_retry_after_may_be_a_date(ask_for: AskFor) -> None:
    date = formatdate(time.time() + 30, usegmt=True)
    async with LoopbackEndpoint(shout, fault=lambda m, n: status(503, retry_after=date)) as server:
        waited = (await send(server, ask_for("hi"))).retry_after_s
    assert waited is not None
    assert 27 < waited <= 30


async def test_credentials_in_the_address_are_sent_and_not_shown(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(shout) as server:
        url = server.base_url.replace("http://", "http://me:hidden@")
        assert (await send(server, ask_for("hi"), url=url)).status == 200
        assert server.requests[0].headers["Authorization"].startswith("Basic ")
        assert "hidden" not in str(EndpointEngine(url, "m", None).identity)
        assert EndpointEngine(url, "m", None).identity == EndpointEngine(server.base_url + "/", "m", None).identity
    with pytest.raises(TransportError) as raised:
        await send(server, ask_for("hi"), url=url)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("code", [200, 400, 401, 500])
async def test_the_key_is_in_one_header_and_in_no_message_log_or_file(
    ask_for: AskFor, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    async with LoopbackEndpoint(shout, fault=lambda m, n: raw(echo, code=code)) as server:
        engine = EndpointEngine(server.base_url, "m", KEY)
        shown = repr(engine.identity)
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=1, max_attempts=1)
            try:
                shown += repr(await client.ask(ask_for("hi")))
            except EndpointError as error:
                shown += str(error) + repr(error.as_json())
        await engine.aclose()
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert "Incorrect API key" in shown
    assert KEY not in shown
    assert KEY not in caplog.text
    assert KEY.encode() not in all_bytes(tmp_path)


async def test_a_dummy_key_leaves_answers_alone(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(lambda messages: "The list is EMPTY.") as server:
        assert b"EMPTY" in (await send(server, ask_for("hi"), key="EMPTY")).body


async def test_a_server_in_a_thread_serves_too(ask_for: AskFor) -> None:
    with serve_in_thread(shout) as server:
        assert parse_completion(await send(server, ask_for("hi"))).text == "HI"


@pytest.mark.parametrize(
    ("message", "finish", "text", "meaning"),
    [
        ({"content": "yes"}, "stop", "yes", "stop"),
        ({"content": "yes"}, None, "yes", "stop"),
        ({"content": "yes"}, "eos", "yes", "stop"),
        ({"content": "half"}, "length", "half", "length"),
        ({"content": "half"}, "max_tokens", "half", "length"),
        ({"content": ""}, "content_filter", "", "refused"),
        ({"content": None, "refusal": "I cannot"}, "stop", "I cannot", "refused"),
        ({"content": None, "reasoning_content": "hm"}, "length", "", "length"),
        ({"content": "4", "reasoning_content": "2+2", "reasoning": "x"}, "stop", "4", "stop"),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, "stop", "ab", "stop"),
    ],
)
def test_what_a_reply_means(message: object, finish: str | None, text: str, meaning: str) -> None:
    reply = parse(chat(message, finish))
    assert (reply.text, reply.finish_reason, reply.latency_s) == (text, meaning, 0.25)
    assert reply.prompt_tokens is None


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({"content": "4"}, None),
        ({"content": "4", "reasoning_content": "2+2"}, "2+2"),
        ({"content": "4", "reasoning_content": None, "reasoning": "two and two"}, "two and two"),
        ({"content": "4", "reasoning": {"effort": "low"}}, None),
        ({"content": "4", "reasoning_content": " "}, None),
    ],
)
def test_what_was_thought_is_kept_beside_the_answer(message: object, reasoning: str | None) -> None:
    reply = parse(chat(message))
    assert (reply.text, reply.reasoning) == ("4", reasoning)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe", {}, {"choices": []}, {"choices": [None]}, {"choices": [{}]}, {"choices": "x"},
        {"choices": [{"message": "x"}]}, {"choices": [{"message": None}]}, chat({"content": 5}),
    ],
    ids=str,
)
def test_what_is_no_answer_is_malformed(body: object) -> None:
    with pytest.raises(MalformedReplyError, match="the"):
        parse(body)


def test_a_page_in_place_of_json_asks_whether_this_is_an_endpoint() -> None:
    with pytest.raises(MalformedReplyError, match="is this a chat endpoint"):
        parse(b"<!doctype html><title>Welcome</title>")


def test_an_error_with_status_200_is_told_in_its_words() -> None:
    with pytest.raises(MalformedReplyError, match="upstream overloaded"):
        parse({"error": {"message": "upstream overloaded"}})
