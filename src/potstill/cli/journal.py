"""`potstill journal`: every attempt at a model that a run has made, as it came back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="The journals of a run: every attempt at a model, as it came back.", no_args_is_help=True, rich_markup_mode=None
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(run: Run, as_json: AsJson = False) -> None:
    """Read every record and compare its checksum; the first damaged one is named."""
    from potstill.cli.console import print_json
    from potstill.pipeline.journals import report_journals

    reports = report_journals(run)
    if as_json:
        names = ("segments", "bytes", "torn_bytes", "records")
        print_json({name: {key: report.as_dict()[key] for key in names} for name, report in reports.items()})
        return
    for name, report in reports.items():
        torn = f"; {report.torn_bytes} bytes of a torn end, which the next run cuts off" if report.torn_bytes else ""
        segments = f"{report.segments} segment" + "s" * (report.segments != 1)
        print(f"{name}: whole, {report.stored} records in {segments}, {report.bytes} bytes{torn}")


@app.command()
def stats(run: Run, as_json: AsJson = False) -> None:
    """Count requests, attempts, outcomes, failures, tokens and bytes."""
    from potstill.cli.console import print_json
    from potstill.pipeline.journals import report_journals

    reports = {name: report.as_dict() for name, report in report_journals(run).items()}
    if as_json:
        print_json(reports)
        return
    for name, report in reports.items():
        print(f"{name}:")
        for key, text in _lines(report):
            print(f"  {key + ':':<16}{text}")


@app.command()
def compact(run: Run, as_json: AsJson = False) -> None:
    """Write the journals anew with what matters: good replies, what was spent, counts. Nothing is asked again for it."""
    from dataclasses import asdict

    from potstill.cli.console import print_json
    from potstill.pipeline.journals import compact_journals

    done = compact_journals(run)
    if as_json:
        print_json({name: asdict(compaction) for name, compaction in done.items()})
        return
    for name, compaction in done.items():
        print(
            f"{name}: {compaction.bytes_before} bytes to {compaction.bytes_after}, "
            f"{compaction.records_before} records to {compaction.records_after}"
        )


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    from datetime import datetime

    def times(counts: dict[str, int]) -> str:
        return ", ".join(f"{key}: {count}" for key, count in sorted(counts.items(), key=lambda item: -item[1]))

    span = [datetime.fromtimestamp(report[key]).astimezone() for key in ("first_at", "last_at") if report[key] is not None]
    uncounted = f"; {report['uncounted']} replies tell none" if report["uncounted"] else ""
    lines = [
        ("requests", f"{report['requests']}, of which {report['answered']} have a reply"),
        ("attempts", f"{report['attempts']}, of which {report['unresolved']} without a known end"),
        ("outcomes", times({f"status {status}": count for status, count in report["statuses"].items()})),
        ("failures", times(report["reasons"])),
        ("tokens", f"{report['input_tokens']} read, {report['output_tokens']} written{uncounted}"),
        ("spent", f"{report['spent_tokens']} tokens, ${report['spent_usd']:.6g}" if report["spent_tokens"] else ""),
        ("time", " to ".join(f"{time:%Y-%m-%d %H:%M:%S}" for time in span)),
        ("size", f"{report['bytes']} bytes, {report['records']} records"),
    ]
    return [(key, text) for key, text in lines if text]
