"""The command line. Each command imports what it needs when it runs, so that `potstill --help` answers at once."""

from __future__ import annotations

import sys

import typer

from potstill.cli import check, curate, init, job, jobs, journal, models, quickstart, run, schema, usage
from potstill.errors import PotstillError

INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="potstill",
    help="Distil a large language model into a small one: one job file in, a small model and the proof of its quality out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("run")(run.run)
app.command("check")(check.check)
app.command("curate")(curate.curate)
app.command("init")(init.init)
app.command("schema")(schema.schema)
app.command("quickstart")(quickstart.quickstart)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(job.app, name="job")
app.add_typer(journal.app, name="journal")


def version(show: bool) -> None:
    """Print the version and stop."""
    if show:
        from potstill import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
) -> None:
    """What all commands share."""


def main() -> None:
    """The `potstill` command: exit code 0 done, 1 the job failed, 2 the user's input is wrong, 130 stopped by Ctrl-C."""
    as_json = "--json" in sys.argv
    try:
        usage.call(app, as_json=as_json)
    except PotstillError as error:
        print_error(error, as_json=as_json)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; what was done is kept, and the same command goes on from there", file=sys.stderr)
        raise


def print_error(error: PotstillError, *, as_json: bool) -> None:
    """The error as a person or a program reads it."""
    if as_json:
        import json

        print(json.dumps(error.as_json()))
    else:
        print("error: " + str(error), file=sys.stderr)
