"""Commands that take a job file take a description of Azure's too; this is where the two part."""

from __future__ import annotations

from pathlib import Path

from potstill.errors import PotstillError
from potstill.pipeline.check import Finding, check_file, check_job, locate
from potstill.service.azure_description import is_azure_job, read_azure_job
from potstill.spec import JobSpec, load_job


def load_any_job(path: Path) -> tuple[JobSpec, tuple[str, ...]]:
    """A job file of ours, or a description of Azure's with the notes on it.

    Raises:
        InputError: the file is missing, or a key or value is wrong.
    """
    if not is_azure_job(path):
        return load_job(path), ()
    azure = read_azure_job(path)
    return azure.spec, azure.notes


def locate_any_job(job: Path, runs: Path) -> tuple[JobSpec, Path, tuple[str, ...]]:
    """A job file, a run folder or a description of Azure's: the job, the folder it runs in, and the notes on it.

    Raises:
        InputError: the file is missing, or a key or value is wrong.
    """
    if job.is_dir() or not is_azure_job(job):
        return *locate(job, runs), ()
    azure = read_azure_job(job)
    return azure.spec, runs / azure.spec.name, azure.notes


def check_any_job(job: Path, *, ask_endpoint: bool) -> tuple[list[Finding], tuple[str, ...]]:
    """What `check_file` finds in a job file of either kind, and the notes on it."""
    if not is_azure_job(job):
        return check_file(job, ask_endpoint=ask_endpoint), ()
    try:
        azure = read_azure_job(job)
    except PotstillError as error:
        return [Finding("job", str(error), error)], ()
    return check_job(azure.spec, ask_endpoint=ask_endpoint), azure.notes
