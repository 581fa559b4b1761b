"""A teacher that tells the true log-probabilities of a real network, in the words of each kind of server.

    with serve_in_thread(answer, TellingEndpoint, teacher=teacher, style="openai") as server: ...

`answer` gives the text; the network says how likely each of its tokens was. Styles: "openai" names tokens by bytes, "vllm" by
id, "text" by what they look like alone (SGLang, older servers); with `end=False` the token that ends the turn is left out, as
OpenAI does. `/v1/completions` (vLLM) and `/generate` (SGLang) tell of a prompt's own tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import torch
from aiohttp import web

from loopback import LoopbackEndpoint, Messages
from potstill.rows import Message
from potstill.templates import ChatTemplate

END_OF_TURN = "<|im_end|>"


@dataclass
class TellingTeacher:
    """A network with its tokenizer and template."""

    network: Any
    tokenizer: Any
    template: ChatTemplate

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """(tokens, vocabulary): row t is what the network expects after token t."""
        with torch.inference_mode():
            return torch.log_softmax(self.network(torch.tensor([list(ids)])).logits[0].float(), dim=-1)

    def chat_logprobs(self, messages: Messages, text: str, top: int, style: str, end: bool) -> list[dict[str, Any]]:
        prompt = self._ids(
            self.template.render([Message(**message) for message in messages], add_generation_prompt=True)  # type: ignore[arg-type]
        )
        answer = self._ids(text) + (self._ids(END_OF_TURN) if end else [])
        rows = self.logprobs(prompt + answer)[len(prompt) - 1 :]
        told = []
        for token_id, row in zip(answer, rows, strict=False):
            best = row.topk(top).indices.tolist()
            others = [self._named(other, row, style) for other in best]
            told.append({**self._named(token_id, row, style), "top_logprobs": others})
        return told

    def prompt_logprobs(self, ids: Sequence[int], top: int) -> list[list[tuple[int, float]]]:
        """For each token of a text its own log-probability first, then those of the likeliest; the first has none."""
        rows = self.logprobs(ids)
        found: list[list[tuple[int, float]]] = [[]]
        for token_id, row in zip(ids[1:], rows, strict=False):
            named = dict.fromkeys([token_id, *row.topk(top).indices.tolist()])
            found.append([(other, float(row[other])) for other in named])
        return found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def _named(self, token_id: int, row: torch.Tensor, style: str) -> dict[str, Any]:
        text = f"token_id:{token_id}" if style == "vllm" else self.tokenizer.decode([token_id])
        data = self._bytes(token_id) if style == "openai" else text.encode()
        return {"token": text, "logprob": float(row[token_id]), "bytes": list(data)}

    def _bytes(self, token_id: int) -> bytes:
        """By the table of the tokenizers library, apart from the code under test."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        token = self.tokenizer.convert_ids_to_tokens(token_id)
        if token_id in self.tokenizer.added_tokens_decoder:
            return str(token).encode()
        back = {character: byte for byte, character in bytes_to_unicode().items()}
        return bytes(back[character] for character in token)


class TellingEndpoint(LoopbackEndpoint):
    """prompts: the token ids of each text that was asked about. longest: texts of more tokens are refused in these words."""

    def __init__(
        self, answer: Callable[[Messages], str], *, teacher: TellingTeacher, style: str = "openai", end: bool = True,
        longest: tuple[int, str] = (256, ""), **options: Any,
    ) -> None:
        super().__init__(answer, **options)
        self.teacher, self.style, self.end, self.longest = teacher, style, end, longest
        self.prompts: list[list[int]] = []

    def add_routes(self, app: web.Application) -> None:
        super().add_routes(app)
        app.router.add_post("/v1/completions", self._vllm_completions)
        app.router.add_post("/generate", self._sglang_generate)

    def completion_of(self, body: dict[str, Any]) -> bytes:
        text = self._answer(body["messages"])
        choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = body["top_logprobs"]
            choice["logprobs"] = {
                "content": self.teacher.chat_logprobs(body["messages"], text, top, self.style, self.end)
            }
        return orjson.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})

    async def _vllm_completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["max_tokens"], body["temperature"], body["model"]) == (1, 0.0, "the-model")
        self.prompts.append(body["prompt"])
        most, refusal = self.longest
        if len(body["prompt"]) > most:
            return web.json_response({"error": {"message": refusal}}, status=400)
        told: list[Any] = [
            {
                str(token_id): {"logprob": logprob, "rank": 1, "decoded_token": self.teacher.tokenizer.decode([token_id])}
                for token_id, logprob in place
            } or None
            for place in self.teacher.prompt_logprobs(body["prompt"], body["prompt_logprobs"])
        ]
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return web.json_response({"choices": [{"text": " a", "prompt_logprobs": told}], "usage": usage})

    async def _sglang_generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["return_logprob"], body["logprob_start_len"]) == (True, 0)
        self.prompts.append(body["input_ids"])
        places = self.teacher.prompt_logprobs(body["input_ids"], body["top_logprobs_num"])
        own = [
            [place[0][1] if place else None, token_id, None] for place, token_id in zip(places, body["input_ids"], strict=True)
        ]
        top = [[[logprob, other, None] for other, logprob in place] or None for place in places]
        meta = {"prompt_tokens": len(own), "completion_tokens": 1, "input_token_logprobs": own, "input_top_logprobs": top}
        return web.json_response({"text": " a", "meta_info": meta})
