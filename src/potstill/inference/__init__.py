"""Ask a model, wherever it runs: `open_engine` gives an engine, a `Client` around it loses no reply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from potstill.catalog.model import ResolvedModel
from potstill.inference.anthropic import AnthropicEngine
from potstill.inference.batch import BatchEngine
from potstill.inference.client import Client
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.identity import model_identity
from potstill.inference.journal import Journal
from potstill.inference.keys import endpoint_key
from potstill.inference.protocol import Engine, ScoringEngine

__all__ = ["BatchEngine", "Client", "Journal", "endpoint_key", "model_identity", "open_batches", "open_engine", "open_scorer"]


def open_engine(
    model: ResolvedModel,
    *,
    concurrency: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine for a model; the caller closes it with `aclose`.

    Args:
        concurrency: Requests that it will be sent at once: slots of llama.cpp. None: one on this machine, unknown elsewhere.
        context: Tokens of context a request needs, prompt and answer; bounded by the model's own window.
        threads: CPU threads to compute on; None takes all.
        folder: Where a server that is started for the model keeps what it prints.
        say: Gets what a user should know of the engine, one line each time.

    Raises:
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    if model.kind == "endpoint":
        return _at_endpoint(model, concurrency, say)
    if model.engine in ("vllm", "sglang"):
        from potstill.inference.server import ServedEngine

        return ServedEngine(model, folder=folder, context=context, concurrency=concurrency, say=say)
    if model.kind == "gguf":
        from potstill.inference.llama_cpp import LlamaCppEngine

        return LlamaCppEngine(model, slots=concurrency or 1, context=context, threads=threads)
    from potstill.inference.transformers import TransformersEngine

    return TransformersEngine(model, threads=threads)


def open_scorer(model: ResolvedModel, *, threads: int | None = None) -> ScoringEngine:
    """An engine over a model folder's weights, which tells how likely a given text is; the caller closes it with `aclose`.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputError: the model cannot be opened.
    """
    from potstill.inference.transformers import TransformersEngine

    return TransformersEngine(model, threads=threads)


def open_batches(
    model: ResolvedModel, folder: Path, *, kept: Callable[[str], bool], say: Callable[[str], None] = lambda text: None
) -> BatchEngine:
    """The engine that asks a model behind an endpoint through its vendor's batch API; see `BatchEngine`.

    Raises:
        InputError: a key or an extra is missing.
    """
    from potstill.inference.batch_anthropic import AnthropicBatches
    from potstill.inference.batch_openai import OpenAIBatches

    engine = _at_endpoint(model, None, say)
    service = AnthropicBatches(engine) if isinstance(engine, AnthropicEngine) else OpenAIBatches(engine)
    return BatchEngine(service, folder, kept=kept, say=say)


def _at_endpoint(model: ResolvedModel, concurrency: int | None, say: Callable[[str], None]) -> AnthropicEngine | EndpointEngine:
    address, name, key = str(model.endpoint), str(model.model), endpoint_key(model)
    if model.engine == "anthropic":
        return AnthropicEngine(address, name, key, say=say, concurrency=concurrency, context_window=model.context_window)
    return EndpointEngine(
        address, name, key, server=model.engine, say=say, concurrency=concurrency, context_window=model.context_window
    )
