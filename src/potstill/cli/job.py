"""`potstill job`: job files and Azure's descriptions of distillation jobs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Convert job files from and to Azure ML's descriptions.")


@app.callback()
def job() -> None:
    """What the commands share."""


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A job file, or a description of Azure ML's (type: distillation).")],
    to: Annotated[str | None, typer.Option("--to", help="azure or potstill; without it the other kind.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new file to write; without it stdout.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file and the notes as JSON, and nothing else.")] = False,
) -> None:
    """Convert a job file to Azure ML's description or back; no key is ever written, and notes tell what was lost."""
    import json

    from potstill.service.convert import convert_job

    converted = convert_job(file, to=to, out=out)
    if as_json:
        text = {} if out is not None else {"text": converted.text}
        print(json.dumps({"file": None if out is None else str(out), "notes": converted.notes, **text}))
        return
    print_notes(converted.notes)
    print(converted.text if out is None else f"wrote {out}", end="" if out is None else "\n")


def print_notes(notes: Iterable[str]) -> None:
    """What a description of Azure's says that has no counterpart here, on stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
