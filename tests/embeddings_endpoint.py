"""The loopback endpoint, which also turns texts into vectors: words that mean the same have the same direction.

    with serve_in_thread(answer, EmbeddingEndpoint) as server:
        ...  server.embedded: the texts, in order
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web

from loopback import LoopbackEndpoint, Messages

DIMENSIONS = 64
SYNONYMS = {"parcel": "package", "purchase": "order", "reach": "arrive", "whereabouts": "where", "do": "will", "the": "my"}


def vector(text: str) -> list[float]:
    """The sum of a direction a word, synonyms having one; not of length 1."""
    words = [SYNONYMS.get(word, word) for word in text.lower().replace("?", "").split()]
    total = np.zeros(DIMENSIONS)
    for word in words:
        seed = sum(ord(letter) * 31**place for place, letter in enumerate(word))
        total += np.random.default_rng(seed).standard_normal(DIMENSIONS)
    return total.tolist()


class EmbeddingEndpoint(LoopbackEndpoint):
    """`fails` is how many requests are answered with status 500 first; `says` replaces the body of good replies."""

    def __init__(self, answer: Callable[[Messages], str], *, fails: int = 0, says: Any = None, **options: Any) -> None:
        super().__init__(answer, **options)
        self.fails, self.says = fails, says
        self.embedded: list[str] = []
        self.keys: set[str | None] = set()

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_post("/v1/embeddings", self._embed)

    async def _embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.keys.add(request.headers.get("Authorization"))
        if self.fails > 0:
            self.fails -= 1
            return web.json_response({"error": {"message": "scripted"}}, status=500)
        self.embedded.append(body["input"])
        tokens = len(body["input"].split())
        data = [{"object": "embedding", "index": 0, "embedding": vector(body["input"])}]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response(self.says or {"object": "list", "data": data, "model": body["model"], "usage": usage})
