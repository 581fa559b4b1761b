"""`potstill jobs`: what runs, ran and waits on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from potstill.service.jobs import Job

app = typer.Typer(help="Jobs: those of MLClient and those of potstill run.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The job's name, as potstill jobs list shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_jobs(
    archived: Annotated[bool, typer.Option("--archived", help="Show archived jobs too.")] = False, as_json: AsJson = False
) -> None:
    """All jobs, oldest first, as they stand now."""
    from potstill.cli.console import print_json, print_table
    from potstill.service.client import MLClient

    jobs = MLClient.from_config().jobs.list(archived=archived)
    if as_json:
        print_json([job.as_dict() for job in jobs])
    elif not jobs:
        print("no jobs yet; runs that are not listed: potstill jobs import DIR")
    else:
        header = ("name", "status", "task", "teacher", "student", "created", "time", "at")
        print_table(header, [
            (job.name, job.status, job.task, job.teacher, job.student, f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
             _duration(job), _place(job)) for job in jobs
        ])


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One job: how it stands, how far it is, why it failed, where its folder lies."""
    from potstill.cli.console import print_json
    from potstill.service.client import MLClient

    job = MLClient.from_config().jobs.get(name)
    if as_json:
        print_json(job.as_dict())
        return
    lines = {
        "name": job.name, "status": job.status, "at": _place(job), "task": job.task, "teacher": job.teacher,
        "student": job.student, "time": _duration(job), "run folder": job.run_folder, "machine": job.host, **job.labels,
    }
    for key, value in lines.items():
        if value not in (None, "", {}):
            print(f"{key + ':':<16}{value}")
    if job.error:
        from potstill.service.log import format_error

        print(f"{'error:':<16}{format_error(job.error)}")


@app.command()
def logs(
    name: Name, follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False
) -> None:
    """The log of a job's run, from its (last) start on."""
    from potstill.service.client import MLClient

    jobs = MLClient.from_config().jobs
    if follow:
        jobs.stream(name)
        return
    for line in jobs.log(name):
        print(line)


@app.command()
def cancel(name: Name, as_json: AsJson = False) -> None:
    """Stop a job; what was done is kept, a checkpoint of the training included, and potstill run goes on from there."""
    from potstill.cli.console import print_json
    from potstill.service.client import MLClient

    job = MLClient.from_config().jobs.cancel(name)
    if as_json:
        print_json(job.as_dict())
    else:
        print(f"{job.name}: {job.status}; on with it: potstill run {job.run_folder}")


@app.command("import")
def import_runs(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a folder of run folders.")], as_json: AsJson = False
) -> None:
    """Record run folders that were moved here, or that the database does not know (any more)."""
    from potstill.cli.console import print_json
    from potstill.service.client import MLClient

    jobs = MLClient.from_config().jobs.import_runs(folder)
    if as_json:
        print_json([job.as_dict() for job in jobs])
        return
    for job in jobs:
        print(f"{job.name}: {job.status}, {job.run_folder}")


def _duration(job: Job) -> str:
    from potstill.pipeline.lines import format_seconds

    return "" if job.duration_s is None else format_seconds(job.duration_s)


def _place(job: Job) -> str:
    """Where a job is: its place in the queue, or the stage and step at work."""
    if job.place is not None:
        return f"{job.place} before it" if job.place else "next"
    if job.progress is not None:
        total = f"/{job.progress['total']}" if job.progress.get("total") else ""
        return f"{job.stage}: {job.progress['step']} {job.progress['done']}{total}"
    return job.stage or ""
