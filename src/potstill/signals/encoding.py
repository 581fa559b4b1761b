"""The forms in which signals can be kept, and how a store's header names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.signals.counts import CountsEncoding
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.top_k import TopKEncoding

Encoding = TopKEncoding | CountsEncoding | HiddenEncoding


def encoding_of(settings: Mapping[str, Any]) -> Encoding:
    """The encoding that these settings are of.

    Raises:
        KeyError, TypeError: no encoding has such settings.
    """
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    name: str = values.pop("name")
    kinds: dict[str, type[Encoding]] = {kind.name: kind for kind in (TopKEncoding, CountsEncoding, HiddenEncoding)}
    return kinds[name](**values)
