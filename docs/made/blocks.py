"""Markdown from values."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar or a line break within a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"[ \n]+", " ", text.replace("|", "\\|")).strip(" ")


def code(text: str) -> str:
    """A text as code within a line; nothing stays nothing."""
    return f"`{text}`" if text else ""


def fence(language: str, text: str, title: str = "") -> str:
    return f"```{language}" + (f' title="{title}"' if title else "") + f"\n{text.rstrip()}\n```"
