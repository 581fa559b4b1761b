"""`potstill check`: everything that can go wrong, before money is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    job: Annotated[Path, typer.Argument(help="The job file.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not send the endpoint a request.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find what would go wrong: files, rows, roles, keys, endpoint, templates, memory; and tell the price."""
    import json

    from potstill.cli.job import print_notes
    from potstill.pipeline.check import check_job
    from potstill.service.azure_description import load_any_job

    spec, notes = load_any_job(job)
    print_notes(notes)
    findings = check_job(spec, ask_endpoint=not offline)
    failed = [finding for finding in findings if finding.error is not None]
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "ok  " if finding.error is None else "FAIL"
            print(f"{mark} {finding.subject}: {finding.text}")
    if failed:
        raise typer.Exit(max(finding.error.exit_code for finding in failed if finding.error is not None))
