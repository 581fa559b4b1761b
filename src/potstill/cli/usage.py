"""Arguments that make no command: in typer's own words, or for a program as the JSON object that every error is."""

from __future__ import annotations

import sys
from typing import Any

import typer

from potstill.errors import InputError

_UsageError: Any = typer.BadParameter.__mro__[1]  # what all errors in arguments are; typer exports no name for it


def call(app: typer.Typer, *, as_json: bool) -> None:
    """Run the command that the arguments make, and exit.

    Raises:
        InputError: with `as_json`, where they make none.
        PotstillError: what the command raises.
    """
    if not as_json:
        app()
        return
    try:
        code = app(prog_name="potstill", standalone_mode=False)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "potstill"
        raise InputError(error.format_message(), where=command, hint=f"{command} --help tells its arguments") from error
    except typer.Abort:
        sys.exit(1)
    sys.exit(code or 0)
