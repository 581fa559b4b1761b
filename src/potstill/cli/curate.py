"""`potstill curate`: the stage alone, or why it kept or rejected a row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def curate(
    job: Annotated[Path, typer.Argument(help="The job file, or the folder of a run.")],
    explain: Annotated[str | None, typer.Option(metavar="ID", help="Say why the row with this id was kept or rejected; "
                                                "the beginning of the id is enough.")] = None,
    runs: Annotated[Path, typer.Option(help="The folder that holds the run folders.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Curate the answers of a run whose earlier stages are done; or explain what became of one of its rows."""
    from potstill.cli.job import print_notes
    from potstill.service.any_job import locate_any_job

    spec, root, notes = locate_any_job(job, runs)
    print_notes(notes)
    if explain is not None:
        show_row(spec, root, explain, as_json=as_json)
        return
    from potstill.cli.run import execute
    from potstill.pipeline.run import require_done_before

    require_done_before(spec, root, "curate")
    execute(spec, root, until="curate", as_json=as_json)


def show_row(spec: object, root: Path, wanted: str, *, as_json: bool) -> None:
    """What became of a row, what each rule says, and its text."""
    from potstill.cli.console import print_json, print_table
    from potstill.pipeline.explain import explain_row
    from potstill.pipeline.folder import RunFolder
    from potstill.spec import JobSpec

    assert isinstance(spec, JobSpec)
    told = explain_row(spec, RunFolder(root), wanted)
    if as_json:
        print_json(told.as_dict())
        return
    became = "kept" if told.verdict is None else f"rejected by {told.verdict.rule}: {told.verdict.reason}"
    print(f"{told.row.id} ({told.split}): {became}\n")
    if told.said:
        print_table(("rule", "says"), [(each.rule, each.reason or "keeps it") for each in told.said])
        print()
    for message in told.row.messages:
        print(f"{message.role}: {message.content}")
    for gold in told.row.references:
        print(f"gold: {gold}")
