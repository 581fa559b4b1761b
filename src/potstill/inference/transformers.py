"""Weights in the hub's layout, run by transformers: exact, and able to score given text; slow at writing it.

What goes in: requests, rendered by the model's own template, or text to score. What comes out: raw replies as llama.cpp's, and
log-probabilities. What it costs: the weights in memory, in float32 on a CPU, and one pass a text: one at a time, so that what a
text scores does not depend on its neighbours.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, MissingExtraError
from potstill.inference.completion import completion_body, error_body, parse_completion
from potstill.inference.identity import local_folder, model_identity
from potstill.inference.protocol import Capabilities, FinishReason, RawReply, Reply, Request, Score
from potstill.quiet import quiet_transformers
from potstill.templates import ChatTemplate


class TransformersEngine:
    """Asks one model of kind "folder" or "hub".

    Raises:
        MissingExtraError: torch or transformers is not installed.
        InputError: the model cannot be opened, or has no chat template.
    """

    def __init__(self, model: ResolvedModel, *, threads: int | None = None) -> None:
        try:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("train", error.name or "transformers") from error
        folder = local_folder(model)
        self._torch: Any = torch
        self._template = ChatTemplate.from_folder(folder)
        self._identity = model_identity(model)
        if threads is not None:
            torch.set_num_threads(threads)
        on_gpu = torch.cuda.is_available()
        trust = {"trust_remote_code": model.trust_remote_code}
        try:
            with quiet_transformers():
                self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, **trust)
                network = AutoModelForCausalLM.from_pretrained(
                    folder, dtype="auto" if on_gpu else torch.float32, use_safetensors=True, **trust
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise InputError(
                "the model cannot be opened", where=model.name, found=str(error).strip().partition("\n")[0],
                expected="a causal language model that transformers knows, with safetensors weights",
            ) from error
        self._network: Any = network.eval().to("cuda" if on_gpu else "cpu")
        self._stops = self._stop_ids()
        self._one_at_a_time = threading.Lock()
        self._capabilities = Capabilities(
            choices=False, local=True, max_concurrency=1,
            context_window=getattr(network.config, "max_position_embeddings", None),
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
        return await asyncio.to_thread(self._generate, request)

    def parse(self, raw: RawReply) -> Reply:
        return parse_completion(raw)

    async def score(self, prompts: Sequence[str], continuations: Sequence[str | Sequence[int]]) -> list[Score]:
        """Log-probabilities of each continuation after its rendered prompt, in nats; two texts are tokenised apart."""
        pairs = zip(prompts, continuations, strict=True)
        return [await asyncio.to_thread(self._score, prompt, continuation) for prompt, continuation in pairs]

    async def aclose(self) -> None:
        """Give the memory back."""
        self._network = self._tokenizer = None

    def _stop_ids(self) -> list[int]:
        configured = self._network.generation_config.eos_token_id
        known = [configured] if isinstance(configured, int) else list(configured or [])
        named = [self._tokenizer.convert_tokens_to_ids(token) for token in self._template.stop_tokens]
        unknown = self._tokenizer.unk_token_id  # what a tokenizer makes of a text that is no token
        return list(dict.fromkeys([*known, *(token for token in named if isinstance(token, int) and token != unknown)]))

    def _ids(self, text: str) -> Any:
        return self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self._network.device)

    def _generate(self, request: Request) -> RawReply:
        torch, sampling = self._torch, request.sampling
        prompt = self._ids(self._template.render(request.messages, add_generation_prompt=True))
        room = (self._capabilities.context_window or prompt.shape[1] + sampling.max_tokens) - prompt.shape[1]
        started = time.perf_counter()
        if room < 1:
            return RawReply(400, error_body("the prompt is longer than the model's context window"), 0.0)
        drawn = sampling.temperature > 0
        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if drawn else {}
        seeded = _seeded(torch, request) if drawn else nullcontext()
        with self._one_at_a_time, quiet_transformers(), torch.inference_mode(), seeded:
            started = time.perf_counter()
            written = self._network.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=min(sampling.max_tokens, room), do_sample=drawn,
                eos_token_id=self._stops, pad_token_id=self._stops[0] if self._stops else 0, **options,
            )
        latency_s = time.perf_counter() - started
        answer = written[0, prompt.shape[1] :].tolist()
        finish: FinishReason = "stop" if answer and answer[-1] in self._stops else "length"
        text, finish = _cut_at(self._tokenizer.decode(answer, skip_special_tokens=True), sampling.stop, finish)
        return RawReply(200, completion_body(text, finish, prompt.shape[1], len(answer)), latency_s)

    def _score(self, prompt: str, continuation: str | Sequence[int]) -> Score:
        torch = self._torch
        if isinstance(continuation, str):
            target = self._ids(continuation)
        else:
            target = torch.tensor([list(continuation)], device=self._network.device)
        ids = torch.cat([self._ids(prompt), target], dim=1)
        count = target.shape[1]
        with self._one_at_a_time, torch.inference_mode():
            logits = self._network(ids, logits_to_keep=count + 1, use_cache=False).logits[0, :-1].float()
        logprobs = torch.log_softmax(logits, dim=-1)
        best, first = logprobs.max(dim=-1)
        chosen = logprobs.gather(1, target[0, :, None])[:, 0]
        return Score(
            tokens=tuple(target[0].tolist()),
            logprobs=tuple(chosen.tolist()),
            best_logprobs=tuple(best.tolist()),
            top1=tuple((first == target[0]).tolist()),
        )


@contextmanager
def _seeded(torch: Any, request: Request) -> Iterator[None]:
    """The same request draws the same answer, and nothing else in this process is disturbed."""
    with torch.random.fork_rng():
        torch.manual_seed(int(request.key({})[:8], 16))
        yield


def _cut_at(text: str, stops: Sequence[str], finish: FinishReason) -> tuple[str, FinishReason]:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], "stop") if places else (text, finish)
