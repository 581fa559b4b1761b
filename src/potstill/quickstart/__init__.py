"""The quickstart: a job on the embedded model, with prompts of its own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from potstill.spec import JobSpec


def quickstart_job() -> JobSpec:
    """The job file beside this module, ready to run."""
    from potstill.spec import load_job

    return load_job(Path(str(files("potstill.quickstart") / "job.yaml")))
