"""`potstill quickstart`: the main job on the embedded model, without an account or a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    runs: Annotated[Path, typer.Option(help="The folder that holds the run folders.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Distil for real on this machine: SmolLM2 answers 390 support questions, a smaller student learns from it."""
    from potstill.cli.run import execute
    from potstill.quickstart import quickstart_job

    execute(quickstart_job(), runs / "quickstart", until=None, as_json=as_json)
