"""Texts to vectors of length 1, by an embedding model: at an OpenAI-style endpoint, or in the hub's layout on this machine.

What goes in: texts. What comes out: one vector a text; the cosine of two texts is the product of theirs. What it costs: at an
endpoint one request a different text that the journal does not hold yet, through the client, as for any other model; here one
pass of the network, in float32 on a CPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from potstill.catalog.model import ResolvedModel
from potstill.errors import EndpointError, InputError, MissingExtraError
from potstill.inference.account import Account
from potstill.inference.client import Answer, Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.identity import local_folder
from potstill.inference.journal import Journal
from potstill.inference.keys import endpoint_key
from potstill.inference.protocol import Capabilities, MalformedReplyError, RawReply, Reply, Request, Sampling
from potstill.quiet import quiet_transformers
from potstill.rows import Message

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """A model that texts can be given to; closed at the end of a `with` block."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector of length 1 a text, in order: shape (texts, dimensions).

        Raises:
            BudgetError: the budget is used up.
            EndpointError: the endpoint does not answer, or refuses a text.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exit_info: object) -> None: ...


def open_embedder(model: ResolvedModel, journal_folder: Path, account: Account) -> Embedder:
    """The embedding model, opened.

    Args:
        journal_folder: Where replies of an endpoint are kept.
        account: What they cost and may cost.

    Raises:
        InputError: a key, a file or an extra is missing, or it is no model that embeds texts.
    """
    if model.kind == "endpoint":
        return EndpointEmbedder(model, journal_folder, account)
    return LocalEmbedder(model)


class EmbeddingEngine:
    """Asks an endpoint for the vector of one text, which is the only message of a request. The reply's text is the vector.

    An engine like any other, so that journal, retries, rate and budget are those of all models.
    """

    def __init__(self, endpoint: EndpointEngine, model: str) -> None:
        self._endpoint, self._model = endpoint, model

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self._endpoint.identity, "embeddings": True}

    @property
    def capabilities(self) -> Capabilities:
        return self._endpoint.capabilities

    async def generate(self, request: Request) -> RawReply:
        """Ask once; see `EndpointEngine.generate`."""
        body = {"model": self._model, "input": request.messages[0].content}
        return await self._endpoint.call("POST", "embeddings", body)

    def parse(self, raw: RawReply) -> Reply:
        """The vector as JSON, a list of numbers.

        Raises:
            MalformedReplyError: there is none.
        """
        try:
            data = orjson.loads(raw.body)
            vector = [float(value) for value in data["data"][0]["embedding"]]
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise MalformedReplyError("the reply holds no embedding", found=raw.body[:120].decode(errors="replace")) from error
        if not np.isfinite(vector).all() or not any(vector):
            raise MalformedReplyError("the embedding is no direction", found=str(vector[:4]))
        usage = data.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Reply(orjson.dumps(vector).decode(), "stop", tokens, 0, raw.latency_s)

    async def aclose(self) -> None:
        await self._endpoint.aclose()


class EndpointEmbedder:
    """An embedding model behind an endpoint; equal texts are asked for once, and none again that the journal holds."""

    def __init__(self, model: ResolvedModel, journal_folder: Path, account: Account) -> None:
        endpoint = EndpointEngine(str(model.endpoint), str(model.model), endpoint_key(model), concurrency=model.concurrency)
        self._engine = EmbeddingEngine(endpoint, str(model.model))
        self._name, self._account, self._concurrency = model.name, account, model.concurrency
        self._journal = Journal(journal_folder)
        self._runner = asyncio.Runner()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`."""
        wanted = list(dict.fromkeys(texts))
        found = self._runner.run(self._ask(wanted))
        places = {text: number for number, text in enumerate(wanted)}
        return _unit(np.array([found[places[text]] for text in texts], dtype=np.float32))

    async def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        client = Client(self._engine, self._journal, concurrency=self._concurrency, account=self._account)
        found: dict[str, list[float]] = {}

        def keep(answer: Answer) -> None:
            text = answer.request.messages[0].content
            if answer.reply is None:
                raise EndpointError("a text cannot be embedded", where=self._name, found=answer.failure)
            found[text] = orjson.loads(answer.reply.text)

        await client.ask_all((Request((Message("user", text),), Sampling(max_tokens=1)) for text in texts), keep)
        return [found[text] for text in texts]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None:
        try:
            self._runner.run(self._engine.aclose())
        finally:
            self._runner.close()
            self._journal.close()


class LocalEmbedder:
    """A model of kind "folder" or "hub": the states of its last layer, pooled as its own 1_Pooling/config.json says (the layout
    of sentence-transformers), by their mean where it says nothing (Reimers and Gurevych 2019, arXiv:1908.10084)."""

    BATCH = 16  # texts of like length

    def __init__(self, model: ResolvedModel) -> None:
        try:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("train", error.name or "transformers") from error
        folder = local_folder(model)
        self._torch: Any = torch
        trust = {"trust_remote_code": model.trust_remote_code}
        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **trust)
                network = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **trust)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise InputError(
                "the embedding model cannot be opened", where=model.name, found=str(error).strip().partition("\n")[0],
                expected="a model that transformers knows, with a tokenizer and safetensors weights",
            ) from error
        self._network: Any = network.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._pooling = _pooling(folder)
        longest = getattr(network.config, "max_position_embeddings", 512) or 512
        self._tokens = min(longest, model.context_window or 512)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.embed`; what lies beyond 512 tokens, or the model's window, is not read."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), self.BATCH):
            numbers = order[start : start + self.BATCH]
            for number, vector in zip(numbers, self._pooled([texts[number] for number in numbers]), strict=True):
                found[number] = vector
        return _unit(np.array(found, dtype=np.float32))

    def _pooled(self, texts: Sequence[str]) -> Any:
        self._tokenizer.padding_side = "right"
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=self._tokens, return_tensors="pt")
        tokens = tokens.to(self._network.device)
        with self._torch.inference_mode():
            states = self._network(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"]
        if self._pooling == "cls":
            return states[:, 0].cpu().numpy()
        if self._pooling == "last":
            return states[self._torch.arange(len(texts)), mask.sum(1) - 1].cpu().numpy()
        weights = mask[..., None].float()
        return ((states * weights).sum(1) / weights.sum(1)).cpu().numpy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None: ...


def _pooling(folder: Path) -> str:
    """How a model's own files say that its states become one vector."""
    path = folder / "1_Pooling" / "config.json"
    said = orjson.loads(path.read_bytes()) if path.is_file() else {}
    kinds = {"pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    return next((kind for key, kind in kinds.items() if said.get(key)), "mean")


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12), dtype=np.float32)
