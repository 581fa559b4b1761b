"""How endpoints of one protocol differ: addresses, headers, names, closed answers, and parameters they refuse."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from yarl import URL

from loopback import Fault, LoopbackEndpoint, Messages, raw, status
from potstill.errors import InputError
from potstill.inference.dialect import chat_url
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Request

AskFor = Callable[..., Request]
SCHEMA = '{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}'


def answer(messages: Messages) -> str:
    return "yes"


def refusal(message: str, **error: str) -> Fault:
    return raw(orjson.dumps({"error": {"message": message, "type": "invalid_request_error", **error}}), code=400)


class Picky:
    """An endpoint that refuses parameters in the words of a vendor, as long as they are sent."""

    def __init__(self, **refusals: Fault) -> None:
        self.refusals = refusals
        self.server = LoopbackEndpoint(answer, fault=self._fault)

    def _fault(self, messages: Messages, attempt: int) -> Fault | None:
        body = self.server.requests[-1].body
        return next((fault for name, fault in self.refusals.items() if name in body), None)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("temperature", refusal("Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) "
                                "value is supported.", param="temperature", code="unsupported_value")),
        ("top_p", refusal("Unsupported parameter: 'top_p' is not supported with this model.", param="top_p",
                          code="unsupported_parameter")),
        ("top_p", refusal("`temperature` and `top_p` cannot both be specified for this model.")),
        ("stop", status(422, "Extra inputs are not permitted: stop")),
        ("response_format", refusal("This response_format type is unavailable now")),
    ],
)
async def test_what_an_endpoint_refuses_by_name_is_left_out_from_then_on(ask_for: AskFor, name: str, fault: Fault) -> None:
    picky, said = Picky(**{name: fault}), list[str]()
    async with picky.server as server:
        engine = EndpointEngine(server.base_url, "m", None, say=said.append)
        replies = [await engine.generate(ask_for(text, temperature=0.7, stop=("\n",), json_schema=SCHEMA)) for text in "abc"]
        await engine.aclose()
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert [name in request.body for request in server.requests] == [True, False, False, False]
    others = {"temperature", "top_p", "stop", "response_format"} - {name}
    assert all(others <= set(request.body) for request in server.requests)
    assert len(said) == 1
    assert name in said[0]
    assert engine.capabilities.json_schema == (name != "response_format")


async def test_a_model_that_thinks_wants_another_limit_and_no_temperature(ask_for: AskFor) -> None:
    picky = Picky(
        max_tokens=refusal("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                           "instead.", param="max_tokens", code="unsupported_parameter"),
        temperature=refusal("Unsupported value: 'temperature'", param="temperature", code="unsupported_value"),
    )
    async with picky.server as server:
        engine = EndpointEngine(server.base_url, "m", None)
        assert (await engine.generate(ask_for("hi", max_tokens=9))).status == 200
        await engine.aclose()
    assert server.requests[-1].body["max_completion_tokens"] == 9
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 200000. This model supports at most 16384 completion tokens.",
        "temperature: Input should be less than or equal to 2",
        "The model's maximum context length is 8192 tokens.",
    ],
)
async def test_a_wrong_value_is_the_requests_own_fault(ask_for: AskFor, message: str) -> None:
    async with LoopbackEndpoint(answer, fault=lambda m, n: refusal(message)) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        assert (await engine.generate(ask_for("hi"))).status == 400
        await engine.aclose()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("server_name", "field", "value"),
    [("vllm", "structured_outputs", {"choice": ["yes", "no (or so)"]}), ("sglang", "regex", r"(yes|no \(or so\))")],
)
async def test_servers_of_ones_own_close_the_set_of_answers(
    ask_for: AskFor, server_name: str, field: str, value: object
) -> None:
    request = ask_for("hi", choices=("yes", "no (or so)"))
    async with LoopbackEndpoint(answer) as server:
        for known in (server_name, None):
            engine = EndpointEngine(server.base_url, "m", None, server=known)  # type: ignore[arg-type]
            assert engine.capabilities.choices == (known is not None)
            await engine.generate(request)
            await engine.aclose()
    assert server.requests[0].body[field] == value
    assert set(server.requests[1].body) == {"model", "messages", "temperature", "top_p", "max_tokens"}


async def test_a_schema_is_sent_as_the_format_of_the_answer(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(answer) as server:
        engine = EndpointEngine(server.base_url, "m", None)
        assert engine.capabilities.json_schema
        await engine.generate(ask_for("hi", json_schema=SCHEMA))
        await engine.aclose()
    sent = server.requests[0].body["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": orjson.loads(SCHEMA)}}


def test_a_schema_is_part_of_the_key(ask_for: AskFor) -> None:
    assert ask_for("hi", json_schema=SCHEMA).key({}) != ask_for("hi").key({})


async def test_azure_has_a_deployment_a_version_and_a_header_of_its_own(ask_for: AskFor) -> None:
    async with LoopbackEndpoint(answer) as server:
        root = server.base_url.removesuffix("/v1")
        url = f"{root}/openai/deployments/gpt-4o?api-version=2024-10-21"
        for key in ("an-azure-key", "eyJhbGciOi.eyJhdWQiOi.c2lnbmF0dXJl"):
            engine = EndpointEngine(url, "gpt-4o", key)
            assert (await engine.generate(ask_for("hi"))).status == 200
            await engine.aclose()
    by_key, by_token = (request.headers for request in server.requests)
    assert by_key["api-key"] == "an-azure-key"
    assert "Authorization" not in by_key
    assert by_token["Authorization"].startswith("Bearer eyJ")
    assert server.paths == [url.removeprefix(root).replace("?", "/chat/completions?")] * 2


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("https://r.openai.azure.com/openai/v1", "https://r.openai.azure.com/openai/v1/chat/completions"),
        ("https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1/chat/completions"),
        ("https://r.openai.azure.com/?api-version=2024-10-21",
         "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("http://localhost:11434/v1/", "http://localhost:11434/v1/chat/completions"),
        ("http://me:hidden@localhost:1234/v1", "http://localhost:1234/v1/chat/completions"),
    ],
)
def test_where_requests_go(address: str, asked: str) -> None:
    assert str(chat_url(URL(address), "d")) == asked


def test_a_deployment_without_a_version_is_told_at_once() -> None:
    with pytest.raises(InputError, match="has no version") as raised:
        EndpointEngine("https://r.openai.azure.com/openai/deployments/d", "d", None)
    assert "api-version" in str(raised.value)
