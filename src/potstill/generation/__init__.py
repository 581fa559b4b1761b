"""From rows to teacher answers."""

from __future__ import annotations

from potstill.generation.answers import RejectedRow, generate_answers

__all__ = ["RejectedRow", "generate_answers"]
