"""`potstill schema`: the JSON Schema of the job file, by which editors complete and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; without it the schema is printed.")] = None,
) -> None:
    """Print the JSON Schema of the job file, for editors.

    Write it once with --out job.schema.json. In an editor with the YAML language server (VS Code, Neovim, JetBrains and others)
    the first line of a job file then names it: # yaml-language-server: $schema=job.schema.json
    """
    import json

    from potstill.job_schema import job_schema, write_schema

    if out is None:
        print(json.dumps(job_schema(), indent=2))
    else:
        write_schema(out)
        print(f"wrote {out}; first line of a job file beside it: # yaml-language-server: $schema={out.name}")
