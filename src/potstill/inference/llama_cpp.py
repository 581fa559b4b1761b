"""A GGUF model in this process: llama.cpp through xllamacpp, several slots that share every pass over the weights.

What goes in: requests, rendered by the model's own template. What comes out: raw replies in the shape of an OpenAI text
completion. What it costs: the file in memory, a key-value cache of `slots` x `context` tokens, and all threads it is given.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, MissingExtraError
from potstill.gguf_metadata import read_metadata
from potstill.inference.completion import parse_completion
from potstill.inference.cpus import available_cpus
from potstill.inference.identity import model_identity
from potstill.inference.protocol import Capabilities, RawReply, Reply, Request, Sampling
from potstill.templates import ChatTemplate

DEFAULT_CONTEXT = 4096
_SPIN_ROUNDS = "10000"
_SEEDS = 2**32 - 1  # llama.cpp takes this very value to mean "any seed"


class LlamaCppEngine:
    """Asks one GGUF model.

    Args:
        model: A model of kind "gguf".
        slots: Requests at once.
        context: Tokens of context a slot; None takes 4,096. The model's own window bounds it.
        threads: CPU threads; None takes all that this process may use.

    Raises:
        MissingExtraError: xllamacpp is not installed.
        InputError: the file is no GGUF file, has no chat template, or llama.cpp cannot load it.
    """

    def __init__(self, model: ResolvedModel, *, slots: int = 1, context: int | None = None, threads: int | None = None) -> None:
        path = Path(str(model.path))
        self._template = ChatTemplate.from_gguf(path)
        self._identity = model_identity(model)
        wanted = context or DEFAULT_CONTEXT
        self._context = min(wanted, model.context_window) if model.context_window else wanted
        self._server: Any = _load(path, slots, self._context, threads or available_cpus())
        self._bos = self._template.bos_token if _adds_bos(path, self._server, self._template.bos_token) else ""
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="llama.cpp")
        self._capabilities = Capabilities(
            choices=True, local=True, max_concurrency=slots, context_window=self._context, logprobs="raw"
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def generate(self, request: Request) -> RawReply:
        """Ask once. A prompt that does not fit the context is a reply with status 400.

        Raises:
            InputError: the model's template refuses the dialogue.
        """
        body = self._body(request)
        started = time.perf_counter()
        reply = await asyncio.get_running_loop().run_in_executor(self._threads, self._server.handle_completions, body)
        latency_s = time.perf_counter() - started
        error = reply.get("error")
        status = int(error.get("code") or 500) if isinstance(error, Mapping) else 200
        return RawReply(status, orjson.dumps(reply), latency_s)

    def parse(self, raw: RawReply) -> Reply:
        return parse_completion(raw)

    async def aclose(self) -> None:
        """Wait for the requests in flight, then give the memory back."""
        await asyncio.to_thread(self._threads.shutdown)
        self._server = None
        gc.collect()

    def _body(self, request: Request) -> dict[str, Any]:
        prompt = self._template.render(request.messages, add_generation_prompt=True)
        sampling = request.sampling
        body: dict[str, Any] = {
            "prompt": prompt.removeprefix(self._bos),
            "n_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "seed": _seed(request),
            # A prompt that reuses another's cache is computed in other batches, and may end in other last bits.
            "cache_prompt": False,
            "stop": list(sampling.stop),
        }
        if request.token_ids or request.top_logprobs:
            body["n_probs"] = max(1, request.top_logprobs)  # the ids come with the probabilities
        if sampling.choices:
            body["grammar"] = _grammar(sampling)
        return body


def import_llama_cpp() -> Any:
    """The xllamacpp module, whose threads wait for each other by spinning, but not for long.

    GNU's OpenMP reads how long when it is loaded. Its own 300,000 rounds are no faster on free cores (159 tokens/s against 159,
    SmolLM2-135M on two), but where another program computes on the same cores a waiting thread keeps the awaited one from
    running: 24 tokens/s, against 61 with 10,000 rounds. Who sets one of the two variables is obeyed.

    Raises:
        MissingExtraError: it is not installed.
    """
    ours = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if ours:
        os.environ["GOMP_SPINCOUNT"] = _SPIN_ROUNDS
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtraError("local", "xllamacpp") from error
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]  # torch brings an OpenMP of its own, which keeps its ways
    return xllamacpp


def _load(path: Path, slots: int, context: int, threads: int) -> Any:
    xllamacpp = import_llama_cpp()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_parallel = slots
    parameters.n_ctx = slots * context
    parameters.kv_unified = False
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.warmup = False
    parameters.cache_ram_mib = 0
    parameters.verbosity = 0  # llama.cpp writes to stderr on its own
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise InputError("llama.cpp cannot load the model", where=str(path), found=error) from error
    # Its loop starts in a thread of its own, and would never end if told to before it has begun: an answer shows that it has.
    server.handle_completions({"prompt": "a", "n_predict": 0})
    return server


def _adds_bos(path: Path, server: Any, bos_token: str) -> bool:
    """Whether llama.cpp puts the first token before every prompt itself, so that a rendered one must not hold it too.

    Where the file does not say, that depends on its vocabulary's kind, by a list within llama.cpp; so it is asked.
    """
    name = "tokenizer.ggml.add_bos_token"
    says = read_metadata(path, {name}).get(name)
    if says is not None or not bos_token:
        return bool(says)
    tokens: int = server.handle_completions({"prompt": bos_token, "n_predict": 0})["usage"]["prompt_tokens"]
    return tokens > 1


def _seed(request: Request) -> int:
    """The same request draws the same answer, whatever is told with it; another sample number, another one."""
    return int(replace(request, top_logprobs=0).key({})[:8], 16) % _SEEDS


def _grammar(sampling: Sampling) -> str:
    """GBNF that allows one of the choices (llama.cpp, grammars/README.md); its strings are escaped as JSON's are."""
    return "root ::= " + " | ".join(orjson.dumps(choice).decode() for choice in sampling.choices)
