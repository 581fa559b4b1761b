"""Ask a model, wherever it runs: `open_engine` gives an engine, a `Client` around it loses no reply."""

from __future__ import annotations

from potstill.catalog.model import ResolvedModel
from potstill.inference.client import Client
from potstill.inference.identity import model_identity
from potstill.inference.journal import Journal
from potstill.inference.keys import endpoint_key
from potstill.inference.protocol import Engine

__all__ = ["Client", "Journal", "endpoint_key", "model_identity", "open_engine"]


def open_engine(
    model: ResolvedModel, *, concurrency: int | None = None, context: int | None = None, threads: int | None = None
) -> Engine:
    """The engine for a model; the caller closes it with `aclose`.

    Args:
        concurrency: Requests that it will be sent at once: slots of llama.cpp. None: one on this machine, unknown elsewhere.
        context: Tokens of context a request needs, prompt and answer; bounded by the model's own window.
        threads: CPU threads to compute on; None takes all.

    Raises:
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    if model.kind == "endpoint":
        from potstill.inference.endpoint import EndpointEngine

        return EndpointEngine(
            str(model.endpoint), str(model.model), endpoint_key(model),
            concurrency=concurrency, context_window=model.context_window,
        )
    if model.kind == "gguf":
        from potstill.inference.llama_cpp import LlamaCppEngine

        return LlamaCppEngine(model, slots=concurrency or 1, context=context, threads=threads)
    from potstill.inference.transformers import TransformersEngine

    return TransformersEngine(model, threads=threads)
