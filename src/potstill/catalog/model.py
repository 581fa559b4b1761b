"""What a model reference of a job file leads to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from potstill.spec_models import EngineName

Kind = Literal["endpoint", "gguf", "folder", "hub"]


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and the day they were looked up (ISO date). batch: the share of it that a batch costs."""

    input: float
    output: float
    date: str | None = None
    batch: float = 0.5

    def in_batches(self) -> Price:
        """What is paid for the same tokens in a batch."""
        return replace(self, input=self.input * self.batch, output=self.output * self.batch, batch=1.0)


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that can be opened.

    kind says where it is: an endpoint (`endpoint`, `model`, `api_key_env`), a GGUF file or a folder in the hub's layout
    (`path`), or a hub id (`model`). `name` is what the user called it, for reports. `context_window` is in tokens. `engine`,
    `server_args` and `batch` are those of a job file.
    """

    name: str
    kind: Kind
    model: str | None = None
    endpoint: str | None = None
    api_key_env: str | None = None
    concurrency: int | None = None
    path: Path | None = None
    context_window: int | None = None
    price: Price | None = None
    license: str | None = None
    trust_remote_code: bool = False
    engine: EngineName | None = None
    server_args: tuple[str, ...] = ()
    batch: bool = False

    @property
    def price_paid(self) -> Price | None:
        """What its tokens cost as they are asked for, in batches or one by one."""
        return self.price.in_batches() if self.price is not None and self.batch else self.price

    @property
    def served(self) -> bool:
        """Whether it answers from another process, at an endpoint or from a server that is started for it."""
        return self.kind == "endpoint" or self.engine is not None
