"""What the README and pyproject.toml say already is taken from there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from made.blocks import fence

ROOT = Path(__file__).resolve().parents[2]


def quickstart_result() -> str:
    """The table of the quickstart's result: the first table whose columns are the three models.

    Raises:
        StopIteration: the README has none.
    """
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.replace(" ", "") == "||teacher|baseline|distilled|")
    end = next(number for number in range(start, len(lines) + 1) if number == len(lines) or not lines[number].startswith("|"))
    return "\n".join(lines[start:end])


def layers() -> str:
    """The order of imports that the import check holds, the top first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    return fence("text", "\n".join(layer.replace("potstill.", "").replace(" |", "") for layer in contract["layers"]))
