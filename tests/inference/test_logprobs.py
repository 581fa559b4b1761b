"""Log-probabilities beside an answer: how they are asked for, what comes with the reply, and who refuses them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import LoopbackEndpoint, Messages, status
from potstill.errors import EndpointError
from potstill.inference.client import Client
from potstill.inference.completion import parse_completion
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.journal import Journal
from potstill.inference.protocol import RawReply, Reply, Request, TokenLogprobs, ToldToken

AskFor = Callable[..., Request]


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def parse(content: Any) -> Reply:
    choice = {"message": {"content": "hi"}, "finish_reason": "stop", "logprobs": {"content": content}}
    return parse_completion(RawReply(200, orjson.dumps({"choices": [choice]}), 0.1), logprobs=True)


def told(**entry: Any) -> TokenLogprobs:
    reply = parse([entry])
    assert reply.logprobs is not None
    return reply.logprobs[0]


@pytest.mark.parametrize(
    ("server", "more"), [(None, {}), ("vllm", {"return_tokens_as_token_ids": True}), ("sglang", {})]
)
async def test_an_endpoint_is_asked_for_as_many_as_are_wanted(ask_for: AskFor, server: Any, more: dict[str, Any]) -> None:
    async with LoopbackEndpoint(shout) as endpoint:
        engine = EndpointEngine(endpoint.base_url, "m", None, server=server)
        await engine.generate(replace(ask_for("hi"), top_logprobs=7))
        await engine.generate(ask_for("hi"))
        await engine.aclose()
    asked, plain = (request.body for request in endpoint.requests)
    assert {name: asked[name] for name in asked if name not in plain} == {"logprobs": True, "top_logprobs": 7, **more}


def test_whoever_wants_the_answer_alone_does_not_read_them() -> None:
    choice = {"message": {"content": "hi"}, "logprobs": {"content": [{"token": "hi", "logprob": -1.0}]}}
    assert parse_completion(RawReply(200, orjson.dumps({"choices": [choice]}), 0.1)).logprobs is None


def test_openai_names_tokens_by_their_bytes() -> None:
    found = told(
        token="\\xf0\\x9f", bytes=[240, 159], logprob=-0.5,
        top_logprobs=[{"token": "a", "bytes": None, "logprob": -1.5}, {"token": " b", "bytes": [32, 98], "logprob": -2}],
    )
    assert found.written == ToldToken(None, b"\xf0\x9f", -0.5)
    assert found.top == (ToldToken(None, b"a", -1.5), ToldToken(None, b" b", -2.0))


def test_llama_cpp_tells_ids_too_and_vllm_nothing_else_where_it_is_asked_to() -> None:
    assert told(id=30, token=".", bytes=[46], logprob=-0.1).written == ToldToken(30, b".", -0.1)
    by_id = {"token": "token_id:30", "bytes": list(b"token_id:30"), "logprob": -0.1}
    assert told(**by_id, top_logprobs=[by_id]) == TokenLogprobs(ToldToken(30, None, -0.1), (ToldToken(30, None, -0.1),))


def test_a_text_that_may_be_any_of_many_tokens_names_none() -> None:
    parts = {"token": "\ufffd", "bytes": list("\ufffd".encode()), "logprob": -1.0}
    found = told(**parts, top_logprobs=[parts, {"token": "\ufffd", "bytes": [159], "logprob": -2.0}])
    assert found.written == ToldToken(None, None, -1.0)
    assert found.top == (ToldToken(None, b"\x9f", -2.0),)


@pytest.mark.parametrize("value", [-9999.0, -9999, None, "x", -3.4028234663852886e38, True])
def test_what_stands_for_no_probability_is_none(value: object) -> None:
    found = told(token="a", logprob=value, top_logprobs=[{"token": "b", "logprob": value}, {"token": "c", "logprob": -1.0}])
    assert found.written.logprob == -math.inf
    assert [token.data for token in found.top] == [b"c"]


def test_a_probability_above_one_by_rounding_is_one() -> None:
    assert told(token="a", logprob=1e-7).written.logprob == 0.0


@pytest.mark.parametrize("content", [None, [], "x", [None], [{"token": "a", "logprob": -1.0}, 5], {}])
def test_what_cannot_be_read_token_by_token_is_not_told(content: object) -> None:
    assert parse(content).logprobs is None


@pytest.mark.parametrize("entry", [{}, {"token": 5}, {"bytes": [400]}, {"token": None, "bytes": "ab", "id": -1}])
def test_a_token_without_a_name_is_a_token_nevertheless(entry: dict[str, Any]) -> None:
    assert told(**entry, logprob=-1.0, top_logprobs="none").written == ToldToken(None, None, -1.0)


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'logprobs' is not supported with this model.",
        "Requested sample logprobs of 30, which is greater than max allowed: 20",
        "Invalid value: 'top_logprobs' must be less than or equal to 20.",
    ],
)
async def test_an_endpoint_that_refuses_them_ends_the_job_and_says_what_to_change(
    ask_for: AskFor, tmp_path: Path, message: str
) -> None:
    async with LoopbackEndpoint(shout, fault=lambda messages, attempt: status(400, message)) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=1)
            with pytest.raises(EndpointError, match="fewer log-probabilities") as raised:
                await client.ask(replace(ask_for("hi"), top_logprobs=30))
            assert (await client.ask(ask_for("hi"))).failure is not None  # that of one row, where none were asked for
        await engine.aclose()
    assert message in str(raised.value)
    assert len(server.requests) == 2


async def test_an_answer_says_by_what_the_journal_knows_it(ask_for: AskFor, tmp_path: Path) -> None:
    request = replace(ask_for("hi"), top_logprobs=5)
    async with LoopbackEndpoint(shout) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=1)
            asked, held = await client.ask(request), await client.ask(request)
            assert asked.key == held.key == request.key(engine.identity)
            assert held.from_journal
            assert journal.reply(str(asked.key)) is not None
        await engine.aclose()


def test_engines_say_what_they_tell() -> None:
    assert EndpointEngine("http://host/v1", "m", None).capabilities.logprobs == "raw"
    assert EndpointEngine("http://host/v1", "m", None, server="sglang").capabilities.logprobs == "tempered"
