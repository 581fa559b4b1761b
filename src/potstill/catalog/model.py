"""What a model reference of a job file leads to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["endpoint", "gguf", "folder", "hub"]


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and the day they were looked up (ISO date)."""

    input: float
    output: float
    date: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that can be opened.

    kind says where it is: an endpoint (`endpoint`, `model`, `api_key_env`), a GGUF file or a folder in the hub's layout
    (`path`), or a hub id (`model`). `name` is what the user called it, for reports. `context_window` is in tokens.
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
