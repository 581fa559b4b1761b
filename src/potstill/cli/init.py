"""`potstill init`: a commented job file and a few sample rows for a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    task: Annotated[str, typer.Argument(help="nli, conversation, qa, math, summarization, classification or text.")],
    folder: Annotated[Path, typer.Option("--to", help="Where to write.")] = Path(),
) -> None:
    """Write JOB.yaml and sample rows for a task; existing files are never overwritten."""
    from potstill.pipeline.samples import write_samples

    job, rows = write_samples(task, folder)
    print(f"wrote {job} and {rows}")
    print(f"next: put your rows into {rows.name}, choose teacher and student in {job.name}, then: potstill check {job}")
