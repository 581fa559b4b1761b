"""What asking will take, before it is asked: requests, tokens and dollars.

The very requests are made that would be sent, in the way and by the strategy of the job, and counted where the journal does
not hold their answers. No model is asked, so later turns of a dialogue are not known yet: each is counted at the longest answer
that it may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.catalog import Price, ResolvedModel
from potstill.generation.strategies import Strategy
from potstill.generation.ways import Teacher, Way
from potstill.inference.client import Answer, Client
from potstill.inference.protocol import Reply, Request
from potstill.inference.spending import Cost, dollars
from potstill.rows import Row

BYTES_PER_TOKEN = 4  # of English text
MESSAGE_TOKENS = 4  # what a template puts around a message
_COUNTED_TEXTS = 2000  # by a tokenizer; the others by what those had
_UNKNOWN = "\0an answer that is not there yet"


class TokenCounter:
    """Counts the tokens of texts: by a model's own tokenizer where its files are on this machine, else by their bytes.

    rule: how, in words.
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        self._tokenizer: Any = None
        self._texts = self._bytes = self._tokens = 0
        if tokenizer is not None and find_spec("tokenizers") is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self.rule = "by its own tokenizer" if self._tokenizer else f"at {BYTES_PER_TOKEN} bytes each"

    def count(self, text: str) -> int:
        length = len(text.encode())
        if self._tokenizer is None:
            return length // BYTES_PER_TOKEN
        if self._texts >= _COUNTED_TEXTS:
            return round(length * self._tokens / max(self._bytes, 1))
        tokens = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        self._texts, self._bytes, self._tokens = self._texts + 1, self._bytes + length, self._tokens + tokens
        return tokens


def tokenizer_of(model: ResolvedModel) -> Path | None:
    """The tokenizer.json of a model, where it is on this machine; also of one that an endpoint serves by its hub id."""
    if model.kind == "folder" and model.path is not None:
        path = model.path / "tokenizer.json"
        return path if path.is_file() else None
    if model.kind == "gguf" or model.model is None or "/" not in model.model or find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model.model, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


@dataclass(slots=True)
class Estimate:
    """What a teacher still has to be asked, in tokens.

    rule: how those of the prompts are counted. held: requests that the journal answers; held_tokens: those answers' tokens.
    """

    rule: str
    requests: int = 0
    prompt_tokens: int = 0
    most_answer_tokens: int = 0
    held: int = 0
    held_tokens: int = 0

    @property
    def typical_answer_tokens(self) -> int | None:
        """If further answers are as long as those that are there."""
        return round(self.requests * self.held_tokens / self.held) if self.held and self.held_tokens else None

    def usd(self, price: Price, answer_tokens: int) -> float:
        return Cost.of(self.prompt_tokens, answer_tokens, price).usd

    def told(self, model: ResolvedModel) -> str:
        """In one line, with what it costs."""
        before = f" ({self.held} are answered already)" if self.held else ""
        typical = self.typical_answer_tokens
        usual = "" if typical is None else f" (about {typical}, if they are as long as those that are there)"
        counted = (
            f"{self.requests} requests{before}, about {self.prompt_tokens} prompt tokens {self.rule}, "
            f"at most {self.most_answer_tokens} answer tokens{usual}"
        )
        if model.kind != "endpoint":
            return f"{counted}; nothing to pay, the teacher runs on this machine"
        if model.price is None:
            return f"{counted}; the price of {model.name} is not known"
        most, share = dollars(self.usd(model.price, self.most_answer_tokens)), ""
        if model.batch:
            share = f", {model.price.batch:.0%} of it for what goes in batches"
        less = "" if typical is None else f", {dollars(self.usd(model.price, typical))} if they are as long as those"
        return f"{counted}: at most about {most}{less}{share} (prices of {model.price.date or 'the catalogue'})"


class DryClient(Client):
    """Asks nobody: it answers from the journal, and notes what it would have had to ask for."""

    def __init__(
        self, counter: TokenCounter, *, local: bool, json_schema: bool = False,
        held: Callable[[Request], Answer | None] = lambda request: None,
    ) -> None:
        self._counter, self._local, self._held = counter, local, held
        self.json_schema = json_schema
        self.estimate = Estimate(counter.rule)

    @property
    def local(self) -> bool:
        return self._local

    async def ask(self, request: Request) -> Answer:
        found, estimate, limit = self._held(request), self.estimate, request.sampling.max_tokens
        if found is not None and found.reply is not None:
            estimate.held += 1
            estimate.held_tokens += found.reply.completion_tokens or 0
            return found
        estimate.requests += 1
        estimate.most_answer_tokens += limit
        estimate.prompt_tokens += sum(self._prompt_tokens(message.content, limit) for message in request.messages)
        return Answer(request, Reply(_UNKNOWN, "stop", None, None, 0.0), None, from_journal=False)

    def _prompt_tokens(self, content: str, limit: int) -> int:
        """Of a message; an answer that is not there yet, alone or within it, counts as long as it may get."""
        known = content.replace(_UNKNOWN, "")
        return content.count(_UNKNOWN) * limit + (self._counter.count(known) + MESSAGE_TOKENS if known else 0)


async def estimate_rows(rows: Iterable[Row], way: Way, strategy: Strategy, dry: Mapping[str, DryClient]) -> None:
    """Count what these rows take; dry: the client that stands in for each teacher's own, by its name."""
    for row in rows:
        for wanted in strategy.asks(row):
            await way.ask(replace(wanted.teacher, client=dry[wanted.teacher.name]), row, wanted.sample)


def dry_clients(teachers: Sequence[Teacher], models: Sequence[ResolvedModel]) -> dict[str, DryClient]:
    """One for each opened teacher, which knows its journal."""
    return {
        teacher.name: DryClient(
            TokenCounter(tokenizer_of(model)), local=teacher.client.local, json_schema=teacher.client.json_schema,
            held=teacher.client.held,
        )
        for teacher, model in zip(teachers, models, strict=True)
    }
