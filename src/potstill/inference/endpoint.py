"""A model behind an OpenAI-style chat endpoint: a vendor's, or a server such as vLLM, SGLang, llama-server, Ollama.

The API key goes into one request header and nowhere else: should an endpoint send it back, it is struck out of the reply before
anyone sees or keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from potstill.inference.completion import parse_completion
from potstill.inference.dialect import Dialect, Server, chat_url, key_header, shown, told_by
from potstill.inference.keys import clean, strike_out
from potstill.inference.limits import read_limits, retry_after_s
from potstill.inference.protocol import Capabilities, RawReply, Reply, Request, TransportError

CONNECT_TIMEOUT_S = 20.0
_JSON = {"Content-Type": "application/json"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class EndpointEngine:
    """Asks one model of one endpoint; as many requests at once as its caller sends.

    Args:
        base_url: What stands before /chat/completions, for example https://host/v1. A user name and password in it are sent,
            but are part of neither the identity nor any message.
        model: The name under which the endpoint serves the model.
        api_key: Sent in one header; None sends none.
        server: What runs there, where it is known: vLLM and SGLang answer with one of `Sampling.choices`.
        say: Told once of each parameter that the endpoint refuses, and that is left out from then on.
        timeout_s: From sending to the last byte of the reply.
        concurrency: How many requests the endpoint is known to serve at once.
        context_window: In tokens, where known.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None,
        *,
        server: Server | None = None,
        say: Callable[[str], None] = lambda text: None,
        timeout_s: float = 300.0,
        concurrency: int | None = None,
        context_window: int | None = None,
    ) -> None:
        url = URL(base_url)
        self._url, self._shown_url = chat_url(url, model), shown(url)
        self._model, self._key, self._timeout_s = model, api_key, timeout_s
        self._headers = _headers(url, api_key)
        self._proxy = _proxy(url)
        self._dialect, self._server = Dialect(model, server, say), server
        self._session: aiohttp.ClientSession | None = None
        self._concurrency, self._context_window = concurrency, context_window

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"endpoint": self._shown_url, "model": self._model}

    @property
    def capabilities(self) -> Capabilities:
        """As far as is known: what an endpoint refuses shows when it is asked."""
        return Capabilities(
            choices=self._dialect.choices, json_schema=self._dialect.json_schema, local=False,
            max_concurrency=self._concurrency, context_window=self._context_window,
            logprobs=told_by(self._server),
        )

    async def generate(self, request: Request) -> RawReply:
        """Ask once; a status other than 200 is a reply too.

        Raises:
            TransportError: no connection, a timeout, or a reply that was cut off.
        """
        while True:
            body = self.body(request)
            raw = await self._send("POST", self._url, orjson.dumps(body), _JSON)
            if not self.learn(raw, body):
                return raw

    def body(self, request: Request) -> dict[str, Any]:
        """The body of a request to chat/completions."""
        return self._dialect.body(request)

    def learn(self, raw: RawReply, sent: Mapping[str, Any]) -> bool:
        """Whether the same request is worth another try, because what was refused in it is left out from now on."""
        return self._dialect.learn(raw, sent)

    async def call(self, method: str, path: str, data: Mapping[str, Any] | aiohttp.FormData | None = None) -> RawReply:
        """Ask another part of the same API, such as "batches"; `data` goes as JSON or as a form.

        Raises:
            TransportError: as `generate`.
        """
        root = str(self._url.with_query(None)).removesuffix("chat/completions")
        url = URL(root + path).update_query(self._url.query)
        if isinstance(data, aiohttp.FormData):
            return await self._send(method, url, data, {})
        return await self._send(method, url, None if data is None else orjson.dumps(data), _JSON)

    def parse(self, raw: RawReply) -> Reply:
        return parse_completion(raw)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(
        self, method: str, url: URL, data: bytes | aiohttp.FormData | None, headers: Mapping[str, str]
    ) -> RawReply:
        session = self._open_session()
        started = time.perf_counter()
        try:
            async with session.request(
                method, url, data=data, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                received = await response.read()
                latency_s = time.perf_counter() - started
                body, told = strike_out(received, response.status, self._key), response.headers
                return RawReply(response.status, body, latency_s, retry_after_s(told), read_limits(told))
        except TimeoutError as error:
            what = f"{self._shown_url} sent no whole reply within {time.perf_counter() - started:.3g} s"
            raise TransportError(what) from error
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or type(error.os_error).__name__
            raise TransportError(f"{self._shown_url} cannot be reached: {reason}", sent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"the connection to {self._shown_url} broke: {clean(str(error), self._key)}") from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, self._timeout_s))
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector)
        return self._session


def _headers(url: URL, api_key: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if api_key is not None:
        headers |= key_header(url, api_key)
    elif url.user is not None:
        headers["Authorization"] = aiohttp.BasicAuth(url.user, url.password or "").encode()
    return headers


def _proxy(url: URL) -> str | None:
    """The proxy of the environment; never for this machine itself."""
    host = url.host or ""
    if host in _LOOPBACK or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)
