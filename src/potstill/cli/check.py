"""`potstill check`: everything that can go wrong, before money is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    job: Annotated[Path, typer.Argument(help="The job file, or the folder of a run.")],
    offline: Annotated[bool, typer.Option("--offline", help="Ask neither the endpoint nor the hub.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find all that would go wrong: files, rows, roles, keys, endpoint, templates, memory; and tell the price."""
    import json

    from potstill.cli.job import print_notes
    from potstill.service.any_job import check_any_job

    findings, notes = check_any_job(job, ask_endpoint=not offline)
    print_notes(notes)
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.error is None else 'FAIL'} {finding.subject}: {finding.text}")
    codes = [finding.error.exit_code for finding in findings if finding.error is not None]
    if codes:
        raise typer.Exit(max(codes))
