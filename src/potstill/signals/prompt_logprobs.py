"""A teacher behind vLLM or SGLang is asked about texts that it did not write.

What goes in: texts in the student's tokens, which must be the teacher's too. What comes out: a top-k signal a text. What it
costs: one request a different text that the journal does not hold yet, in which the teacher reads the text and writes one
token. The client is that of all models: what was paid for survives, and is not asked for again.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self, TypeVar

import orjson

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError
from potstill.inference import Client, Journal, endpoint_key
from potstill.inference.account import Account
from potstill.inference.client import run_all
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import Reply, Request, Sampling, TokenLogprobs
from potstill.rows import Message
from potstill.signals.endpoint import NOT_ONE, Text
from potstill.signals.prompt_engine import PromptEngine
from potstill.signals.signal import TopK
from potstill.signals.token_bytes import TokenBytes
from potstill.signals.top_entries import Entries, top_signal

T = TypeVar("T", bound=Text)


class PromptLogprobs:
    """One teacher at a server that is running, with its journal; closed at the end of a `with` block.

    Args:
        model: An endpoint whose `engine` says what runs there.
        journal_folder: Where replies are kept.
        account: What they cost and may cost.
        top: How many of the likeliest tokens are told at each place; vLLM tells 20 at most unless --max-logprobs says more.

    Raises:
        InputError: the key is missing, or the model is no such endpoint.
    """

    def __init__(self, model: ResolvedModel, journal_folder: Path, account: Account | None, *, top: int) -> None:
        if model.kind != "endpoint" or model.engine not in ("vllm", "sglang"):
            raise InputError(
                "this teacher cannot be asked about a text it did not write", where=model.name,
                found=model.engine or model.kind, expected="an endpoint with engine: vllm or engine: sglang",
            )
        endpoint = EndpointEngine(str(model.endpoint), str(model.model), endpoint_key(model), concurrency=model.concurrency)
        self._engine = PromptEngine(endpoint, str(model.model), "sglang" if model.engine == "sglang" else "vllm")
        self._name, self._account, self._concurrency, self._top = model.name, account, model.concurrency, top
        self._journal = Journal(journal_folder)
        self._runner = asyncio.Runner()

    def ask(
        self, texts: Iterable[T], tokens: TokenBytes, on_signal: Callable[[T, TopK], None], without: Counter[str]
    ) -> None:
        """Ask about all texts, as many at once as the server bears; each is pulled when it can be asked about.

        Args:
            tokens: Of the student's tokenizer.
            on_signal: Gets each text with its signal, at temperature 1, in no certain order.
            without: Counts the texts to which no usable reply came, by reason.

        Raises:
            BudgetError: the budget is used up.
            EndpointError: the server refuses or does not answer at all; what was received stays in the journal.
            InputError: the teacher's tokens are not the student's.
        """
        self._runner.run(self._ask(texts, tokens, on_signal, without))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_info: object) -> None:
        try:
            self._runner.run(self._engine.aclose())
        finally:
            self._runner.close()
            self._journal.close()

    async def _ask(
        self, texts: Iterable[T], tokens: TokenBytes, on_signal: Callable[[T, TopK], None], without: Counter[str]
    ) -> None:
        client = Client(self._engine, self._journal, concurrency=self._concurrency, account=self._account)
        queue = iter(texts)

        async def work() -> None:
            for text in queue:
                request = Request(
                    (Message("user", orjson.dumps(text.input_ids).decode()),), Sampling(max_tokens=1), top_logprobs=self._top
                )
                answer = await client.ask(request)
                found = answer.failure if answer.reply is None else self._signal(text, answer.reply, tokens)
                if isinstance(found, TopK):
                    on_signal(text, found)
                else:
                    without[found or NOT_ONE] += 1

        await run_all(work() for _ in range(client.concurrency))

    def _signal(self, text: Text, reply: Reply, tokens: TokenBytes) -> TopK | None:
        told = reply.logprobs or ()
        self._check(text, told, tokens)
        return top_signal([
            _entries(of_token, tokens) for of_token, is_target in zip(told, text.target_mask, strict=True) if is_target
        ])

    def _check(self, text: Text, told: tuple[TokenLogprobs, ...], tokens: TokenBytes) -> None:
        """Ids are taken at their word only where the teacher calls each token of the text what the student calls it.

        Raises:
            InputError: it does not.
        """
        if len(told) != len(text.input_ids):
            raise InputError(
                "the server tells of another text than it was asked about", where=self._name, found=f"{len(told)} tokens",
                expected=f"{len(text.input_ids)}",
            )
        for token_id, of_token in zip(text.input_ids[1:], told[1:], strict=True):
            own = next((other for other in (of_token.written, *of_token.top) if other.id == token_id), None)
            ours, theirs = tokens.of(token_id), None if own is None else own.data
            if own is None or not _same(ours, theirs):
                raise InputError(
                    "the teacher's tokens are not the student's", where=f"{self._name}, token {token_id}",
                    found=f"{(theirs or b'').decode(errors='replace')!r}",
                    expected=f"{(ours or b'').decode(errors='replace')!r}, as in the student's tokenizer",
                    hint="take signals from the teacher's own answers, or train on its text",
                )


def _entries(told: TokenLogprobs, tokens: TokenBytes) -> Entries:
    """Log-probabilities by id. Rows of the teacher's head that are no tokens, padding, are left to the tail."""
    every = (*told.top, told.written)
    named = {token.id: token.logprob for token in every if token.id is not None and token.logprob > -math.inf}
    return {token_id: logprob for token_id, logprob in named.items() if tokens.of(token_id) is not None}


def _same(ours: bytes | None, theirs: bytes | None) -> bool:
    """Whether both may be the same token. A token that is told alone loses the space before it, and parts of a character have
    no text, or that of the whole character."""
    if ours is None or not theirs or not ours.isascii():
        return True
    return ours.strip() == theirs.strip()
