"""`potstill run`: a whole job, or on with it where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STAGES = ("prepare", "correct", "generate", "curate", "capture", "train", "export", "evaluate", "report")


def run(
    job: Annotated[Path, typer.Argument(help="The job file, or the folder of an earlier run.")],
    until: Annotated[str | None, typer.Option(help=f"Stop after a stage: {', '.join(STAGES)}.")] = None,
    runs: Annotated[Path, typer.Option(help="The folder that holds the run folders.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Run a job; run it again after a crash and it goes on where it stopped."""
    from potstill.errors import InputError

    if until is not None and until not in STAGES:
        raise InputError("unknown stage", where="--until", found=until, expected=", ".join(STAGES))
    from potstill.cli.job import print_notes
    from potstill.service.any_job import locate_any_job

    spec, root, notes = locate_any_job(job, runs)
    print_notes(notes)
    execute(spec, root, until=until, as_json=as_json)


def execute(spec: object, root: Path, *, until: str | None, as_json: bool) -> None:
    """Run a job in a folder and show what came of it."""
    import json

    from potstill.cli.console import console_progress
    from potstill.pipeline.check import preflight
    from potstill.service.recorded import run_recorded
    from potstill.service.settings import load_settings
    from potstill.spec import JobSpec

    assert isinstance(spec, JobSpec)
    preflight(spec, root, until)
    folder = run_recorded(load_settings(), spec, root, console_progress(quiet=as_json), until=until)
    reported = until in (None, "report")
    if as_json:
        print(folder.report_json.read_text() if reported else json.dumps({"run": str(folder.root), "until": until}))
    elif reported:
        show_report(folder.report_json, folder.report_html)
    else:
        print(f"stopped after {until}; potstill run goes on from there")


def show_report(report_json: Path, report_html: Path) -> None:
    """The table and the headline on the terminal, and where the page lies."""
    import orjson
    from rich.console import Console
    from rich.table import Table

    from potstill.reporting import headline, result_table

    report = orjson.loads(report_json.read_bytes())
    header, *rows = result_table(report)
    table = Table(*header, title=f"{report['name']} ({report['task']}, {report['test_rows']} test rows)")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(headline(report), markup=False)
    console.print(f"report: {report_html}", markup=False, soft_wrap=True)
