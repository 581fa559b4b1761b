"""Potstill distils large language models into small ones."""

from __future__ import annotations

__version__ = "0.1.0"
