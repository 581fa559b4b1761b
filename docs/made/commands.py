"""The reference of the commands, from what `--help` says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from made.blocks import code, fence, table
from potstill.cli import app


def command_reference() -> str:
    """A section a command, groups opened up; hidden commands and options are left out."""
    root = typer.main.get_command(app)
    return "\n\n".join(_section(name, command) for name, command in _commands("potstill", root))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something itself, in the order of `--help`."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for key, each in inner.items():
        if not each.hidden:
            yield from _commands(f"{name} {key}", each)


def _section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = [parameter.get_help_record(context) for parameter in command.params if parameter.name != "help"]
    rows = [[code(spelling), text] for spelling, text in filter(None, records)]
    parts = [f"## {name}", (command.help or "").strip(), fence("text", usage)]
    return "\n\n".join([*parts, table(["Argument or option", "Meaning"], rows)] if rows else parts)
