"""How OpenAI-style endpoints differ: their address, the key's header, what they call things, and what they refuse.

OpenAI's reasoning models want max_completion_tokens and no temperature; Azure has a deployment in the path, a version in the
query and a header of its own for the key; vLLM and SGLang can close the set of answers. What differs from model to model is not
kept in a table: a parameter that an endpoint refuses by name is left out from then on.

Sources: platform.openai.com/docs/api-reference/chat, learn.microsoft.com/azure/ai-foundry/openai/reference,
docs.vllm.ai/en/latest/features/structured_outputs, docs.sglang.ai/advanced_features/structured_outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson
from yarl import URL

from potstill.errors import InputError
from potstill.inference.completion import error_field, error_message
from potstill.inference.protocol import RawReply, Request

Server = Literal["vllm", "sglang"]

_AZURE_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com", ".openai.azure.us")
_DEPLOYMENT = "/openai/deployments/"
_SPECIAL = re.compile(r"[.^$*+?{}\[\]\\|()]")  # in a regular expression; grammars know no other escapes
# By what words a refusal is one of the parameter, not of its value.
_REFUSAL = re.compile(
    r"unsupported|not supported|does ?n.t support|does not support|unrecognized|unknown|not permitted|not allowed|deprecated"
    r"|unavailable|only the default|cannot both be specified|extra inputs",
    re.IGNORECASE,
)
# What may be left out, and then goes under another name where it has one; without the rest there is no request. Where two
# exclude each other, the first one goes.
_MAY_GO: Mapping[str, str | None] = {
    "max_tokens": "max_completion_tokens", "max_completion_tokens": None, "top_p": None, "temperature": None, "stop": None,
    "response_format": None, "structured_outputs": None, "regex": None,
}


class Refusals:
    """The parameters that one model was found to refuse.

    Args:
        may_go: What may be left out, with the name that it has instead, if any.
        say: Told once of each.
    """

    def __init__(self, model: str, may_go: Mapping[str, str | None], say: Callable[[str], None]) -> None:
        self._model, self._may_go, self._say = model, may_go, say
        self._refused: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._refused

    def without(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A body without what is refused."""
        return {name: value for name, value in body.items() if name not in self._refused}

    def learn(self, raw: RawReply, sent: Mapping[str, Any]) -> bool:
        """Whether the same request is worth another try, because what was refused in it is now left out or named otherwise."""
        if raw.status not in (400, 422):
            return False
        message, parameter = error_message(raw.body), error_field(raw.body, "param") or ""
        if not _REFUSAL.search(f"{message} {error_field(raw.body, 'code')}"):
            return False
        candidates = [name for name in self._may_go if name in sent]
        refused = next((name for name in candidates if parameter.partition(".")[0] == name), None)
        refused = refused or next((name for name in candidates if re.search(rf"\b{name}\b", message)), None)
        if refused is None:
            return False
        if refused not in self._refused:
            self._refused.add(refused)
            other = self._may_go[refused]
            self._say(f"{self._model} does not take {refused}: it is {f'sent as {other}' if other else 'left out'} from now on")
        return True


class Dialect:
    """The bodies that one model of one endpoint takes; it learns from refusals.

    Args:
        model: The name under which the endpoint serves the model.
        server: What runs there, where that is known: only then can the set of answers be closed.
        say: Told once of every parameter that is left out.
    """

    def __init__(self, model: str, server: Server | None = None, say: Callable[[str], None] = lambda text: None) -> None:
        self._model, self._server = model, server
        self._refused = Refusals(model, _MAY_GO, say)

    @property
    def choices(self) -> bool:
        """Whether a closed set of answers is enforced."""
        return self._server is not None and "structured_outputs" not in self._refused and "regex" not in self._refused

    @property
    def json_schema(self) -> bool:
        """Whether a JSON Schema is enforced, as far as is known."""
        return "response_format" not in self._refused

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request to chat/completions."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [message.as_dict() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens" if "max_tokens" in self._refused else "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.choices and self._server == "vllm":
            body["structured_outputs"] = {"choice": list(sampling.choices)}
        elif sampling.choices and self._server == "sglang":
            body["regex"] = "(" + "|".join(_SPECIAL.sub(r"\\\g<0>", choice) for choice in sampling.choices) + ")"
        elif sampling.json_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": orjson.loads(sampling.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
            if self._server == "vllm":
                body["return_tokens_as_token_ids"] = True  # its texts of tokens that are parts of a character are all alike
        return self._refused.without(body)

    def learn(self, raw: RawReply, sent: Mapping[str, Any]) -> bool:
        """See `Refusals.learn`."""
        return self._refused.learn(raw, sent)


def told_by(server: Server | None) -> Literal["raw", "tempered"]:
    """Which log-probabilities a server tells, see `Capabilities.logprobs`; one that is not known is taken to tell OpenAI's."""
    return "tempered" if server == "sglang" else "raw"


def chat_url(url: URL, model: str) -> URL:
    """The address that requests go to; its user name and fragment are left out.

    Raises:
        InputError: an address of an Azure deployment without a version.
    """
    path = url.path.rstrip("/")
    if is_azure(url) and path in ("", "/openai"):
        path = f"{_DEPLOYMENT}{model}" if "api-version" in url.query else "/openai/v1"
    if _DEPLOYMENT in path and "api-version" not in url.query:
        raise InputError(
            "the address of a deployment of Azure OpenAI has no version", where=shown(url),
            expected=".../openai/deployments/NAME?api-version=2024-10-21, or https://RESOURCE.openai.azure.com/openai/v1",
        )
    path = path if path.endswith("/chat/completions") else path + "/chat/completions"
    return url.with_user(None).with_fragment(None).with_path(path, keep_query=True)


def is_azure(url: URL) -> bool:
    """Whether an address is one of Azure OpenAI, which has a header of its own for keys."""
    return (url.host or "").endswith(_AZURE_HOSTS) or _DEPLOYMENT in url.path


def key_header(url: URL, api_key: str) -> dict[str, str]:
    """How the key is sent. Azure takes a token of Entra (a JSON Web Token) as the others take keys."""
    if is_azure(url) and not (api_key.startswith("eyJ") and api_key.count(".") == 2):
        return {"api-key": api_key}
    return {"Authorization": f"Bearer {api_key}"}


def shown(url: URL) -> str:
    """An address as it may be shown: without user name, password and query."""
    return str(url.with_user(None).with_query(None).with_fragment(None)).removesuffix("/")
