"""What goes over the wire to Anthropic's API, what its messages mean, and that the key goes nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from anthropic_server import AnthropicServer, error, message
from loopback import Fault, Messages, cut, drop
from potstill.catalog import resolve
from potstill.errors import EndpointError
from potstill.inference import Client, Journal, model_identity, open_engine
from potstill.inference.anthropic import AnthropicEngine, parse_message
from potstill.inference.protocol import MalformedReplyError, RawReply, Reply, Request, Sampling, TransportError
from potstill.rows import Message
from potstill.spec import ModelSpec

pytest.importorskip("anthropic")

AskFor = Callable[..., Request]
KEY = "sk-ant-secret-0123456789abcdef"
SCHEMA = '{"type":"object","properties":{},"required":[],"additionalProperties":false}'


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


async def send(server: AnthropicServer, request: Request, *, key: str | None = KEY) -> RawReply:
    engine = AnthropicEngine(server.base_url + "/v1", "claude-loopback", key)
    try:
        return await engine.generate(request)
    finally:
        await engine.aclose()


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def parse(data: object) -> Reply:
    return parse_message(RawReply(200, data if isinstance(data, bytes) else orjson.dumps(data), 0.25))


async def test_the_request_has_anthropics_shape() -> None:
    dialogue = (Message("system", "Be brief."), Message("user", "hi"), Message("assistant", "yes?"), Message("user", "go"))
    sampling = Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("\n",), json_schema=SCHEMA)
    async with AnthropicServer(shout) as server:
        reply = parse_message(await send(server, Request(dialogue, sampling)))
    assert server.requests[0].body == {
        "model": "claude-loopback",
        "system": "Be brief.",
        "messages": [message.as_dict() for message in dialogue[1:]],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "stop_sequences": ["\n"],
        "output_config": {"format": {"type": "json_schema", "schema": orjson.loads(SCHEMA)}},
    }
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("GO", "stop", 11, 1)
    assert reply.latency_s > 0


def test_no_log_probabilities_are_told() -> None:
    assert AnthropicEngine("http://127.0.0.1:9", "claude", None).capabilities.logprobs == "none"


async def test_what_says_nothing_is_not_sent(ask_for: AskFor) -> None:
    async with AnthropicServer(shout) as server:
        await send(server, ask_for("hi"))
    assert set(server.requests[0].body) == {"model", "messages", "max_tokens", "temperature"}


async def test_models_that_take_no_temperature_are_asked_without(ask_for: AskFor) -> None:
    def fault(body: dict[str, object], attempt: int) -> Fault | None:
        refused = "`temperature` is deprecated for this model."
        return error(400, "invalid_request_error", refused) if "temperature" in body else None

    async with AnthropicServer(shout, fault=fault) as server:
        assert (await send(server, ask_for("hi", temperature=0.7))).status == 200
    assert [request.headers["anthropic-version"] for request in server.requests] == ["2023-06-01"] * 2


async def test_what_a_model_refuses_is_left_out_from_then_on(ask_for: AskFor) -> None:
    def fault(body: dict[str, object], attempt: int) -> Fault | None:
        both = "temperature" in body and "top_p" in body
        refused = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return error(400, "invalid_request_error", refused) if both else None

    said: list[str] = []
    async with AnthropicServer(shout, fault=fault) as server:
        engine = AnthropicEngine(server.base_url, "claude-loopback", KEY, say=said.append)
        replies = [await engine.generate(ask_for(text, temperature=0.5, top_p=0.9)) for text in "abc"]
        await engine.aclose()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert [("top_p" in request.body, "temperature" in request.body) for request in server.requests] == [
        (True, True), (False, True), (False, True), (False, True)
    ]
    assert len(said) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 429, 500, 529])
async def test_an_error_is_a_reply_that_is_sent_once(ask_for: AskFor, code: int) -> None:
    scripted = error(code, "some_error", "no", retry_after="3", anthropic_ratelimit_requests_remaining="0")
    async with AnthropicServer(shout, fault=lambda b, n: scripted) as server:
        raw = await send(server, ask_for("hi"))
    assert (raw.status, raw.body, raw.retry_after_s) == (code, scripted.body, 3.0)
    assert raw.limits is not None
    assert raw.limits.remaining_requests == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [cut(), drop()])
async def test_a_connection_that_breaks_may_have_brought_the_request(ask_for: AskFor, fault: Fault) -> None:
    async with AnthropicServer(shout, fault=lambda b, n: fault) as server:
        with pytest.raises(TransportError, match="broke") as raised:
            await send(server, ask_for("hi"))
    assert raised.value.sent


async def test_nobody_there_has_got_nothing(ask_for: AskFor) -> None:
    async with AnthropicServer(shout) as server:
        pass
    with pytest.raises(TransportError, match="cannot be reached") as raised:
        await send(server, ask_for("hi"))
    assert not raised.value.sent


@pytest.mark.parametrize("code", [200, 400, 401, 500])
async def test_the_key_is_in_one_header_and_in_no_message_log_or_file(
    ask_for: AskFor, tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = error(code, "authentication_error", f"invalid key: {KEY}")
    async with AnthropicServer(shout, fault=lambda b, n: echo) as server:
        engine = AnthropicEngine(server.base_url, "m", KEY)
        shown = repr(engine.identity)
        with Journal(tmp_path) as journal:
            client = Client(engine, journal, concurrency=1, max_attempts=1)
            try:
                shown += repr(await client.ask(ask_for("hi")))
            except EndpointError as raised:
                shown += str(raised) + repr(raised.as_json())
        await engine.aclose()
    holding = [name for name, value in server.requests[0].headers.items() if KEY in value]
    assert len(holding) == 1
    assert KEY not in shown
    assert KEY not in caplog.text
    assert KEY.encode() not in all_bytes(tmp_path)


async def test_a_reply_is_kept_byte_for_byte_and_read_again(ask_for: AskFor, tmp_path: Path) -> None:
    async with AnthropicServer(shout) as server:
        model = resolve(ModelSpec(model="claude-loopback", endpoint=server.base_url, engine="anthropic"))
        engine = open_engine(model)
        assert engine.identity == model_identity(model)
        with Journal(tmp_path) as journal:
            answers = [await Client(engine, journal, concurrency=1).ask(ask_for("hi")) for _ in range(2)]
            assert journal.reply(ask_for("hi").key(engine.identity)).body == orjson.dumps(message("HI"))  # type: ignore[union-attr]
        await engine.aclose()
    assert [answer.reply.text for answer in answers if answer.reply] == ["HI", "HI"]
    assert [answer.from_journal for answer in answers] == [False, True]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("pause_turn", "stop"), (None, "stop"), ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"), ("refusal", "refused"),
    ],
)
def test_why_it_stopped(reason: str, meaning: str) -> None:
    assert parse(message("half", stop_reason=reason)).finish_reason == meaning


def test_thinking_is_kept_beside_the_answer() -> None:
    reply = parse(message("4", thinking="2+2"))
    assert (reply.text, reply.reasoning) == ("4", "2+2")
    assert parse(message("4")).reasoning is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", {}, {"type": "message"}, {"type": "error", "error": {"message": "x"}}, {"choices": []}], ids=str
)
def test_what_is_no_message_is_malformed(body: object) -> None:
    with pytest.raises(MalformedReplyError, match="the reply"):
        parse(body)


def test_a_claude_of_the_catalogue_needs_no_endpoint() -> None:
    named = resolve(ModelSpec(model="claude-haiku"))
    unnamed = resolve(ModelSpec(model="claude-of-tomorrow", engine="anthropic"))
    for model in (named, unnamed):
        assert (model.kind, model.engine, model.api_key_env) == ("endpoint", "anthropic", "ANTHROPIC_API_KEY")
        assert model_identity(model)["endpoint"] == "https://api.anthropic.com/v1/messages"
