"""Run a job: the stages in order, each skipped when its fingerprint and its outputs are as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from potstill.errors import InputError, JobCanceledError, JobFailedError, MachineError, PotstillError
from potstill.pipeline.capture import Capture
from potstill.pipeline.correct import Correct
from potstill.pipeline.curate import Curate
from potstill.pipeline.evaluate import Evaluate
from potstill.pipeline.events import EventLog
from potstill.pipeline.export import Export
from potstill.pipeline.fingerprint import digests, fingerprint, unchanged
from potstill.pipeline.folder import RunFolder, write_text
from potstill.pipeline.generate import Generate
from potstill.pipeline.prepare import Prepare, planned_splits, read_job_rows
from potstill.pipeline.progress import Progress, Recorded, Silent
from potstill.pipeline.report import Report
from potstill.pipeline.stage import Context, Stage, never
from potstill.pipeline.train import Train
from potstill.spec import JobSpec, dump_job

STAGES: tuple[Stage, ...] = (
    Prepare(), Correct(), Generate(), Curate(), Capture(), Train(), Export(), Evaluate(), Report(),
)


def run_job(
    job: JobSpec, root: Path, progress: Progress, *, until: str | None = None, canceled: Callable[[], bool] = never
) -> RunFolder:
    """Run a job in the folder `root`, or go on with it where it stopped.

    Args:
        until: The name of the last stage to run; all without it.
        canceled: Asked again and again whether to stop; what was done then is kept, a checkpoint of the training included.

    Raises:
        InputError: the job cannot start as it is, or has no stage `until`; no run folder is left behind.
        JobCanceledError: `canceled` said so.
        PotstillError: a stage failed; what was done is kept, and the same call goes on from there.
    """
    folder, stages = RunFolder(root), stages_of(job, until)
    known = folder.events.is_file()
    if not known:
        planned_splits(read_job_rows(job))
    with folder.locked():
        events = EventLog(folder.events)
        with _disk_errors(folder):
            events.append("job", name=job.name, until=until)
            write_text(folder.job, dump_job(job))
        context = Context(job, folder, events, Recorded(progress, events), canceled)
        try:
            for stage in stages:
                context.check_canceled()
                run_stage(stage, context)
        except (JobCanceledError, KeyboardInterrupt):
            _note(events, "canceled")
            raise
        except PotstillError:
            raise
        except Exception as error:
            bug = JobFailedError("Potstill itself failed; please report this with the traceback", found=repr(error))
            _note(events, "failed", **bug.as_json())
            raise
        with _disk_errors(folder):
            events.append("completed", until=until)
    return folder


def require_done_before(job: JobSpec, root: Path, stage: str) -> None:
    """The stages before this one are done, as the job says now.

    Raises:
        InputError: one is not.
    """
    folder = RunFolder(root)
    context = Context(job, folder, EventLog(folder.events), Silent())
    for earlier in stages_of(job, stage)[:-1]:
        done = context.events.last_finished(earlier.name)
        if done is None or not _still_holds(done, _fingerprint(earlier, context), folder):
            raise InputError(
                f"{earlier.name} has to be done before {stage}", where=str(root),
                found="it was never done here" if done is None else "its settings or its files are others than they were",
                hint=f"potstill run JOB.yaml --until {stage} does both",
            )


def _fingerprint(stage: Stage, context: Context) -> str:
    return fingerprint(stage.name, stage.version, stage.inputs(context))


def run_stage(stage: Stage, context: Context) -> None:
    """Run one stage unless it is done already.

    Raises:
        JobCanceledError: the user cancelled the job.
        PotstillError: it failed; a `failed` event says why.
    """
    events, folder = context.events, context.folder
    try:
        inputs = stage.inputs(context)
        wanted = fingerprint(stage.name, stage.version, inputs)
        done = events.last_finished(stage.name)
        if done is not None and _still_holds(done, wanted, folder):
            context.progress.say(f"{stage.name}: done before")
            return
        events.append("started", stage=stage.name, fingerprint=wanted)
        summary = stage.run(context, wanted)
        events.append(
            "finished",
            stage=stage.name,
            fingerprint=wanted,
            inputs=inputs,
            outputs=digests(folder, stage.outputs(context)),
            summary=summary,
        )
    except JobCanceledError:
        raise
    except PotstillError as error:
        _note(events, "failed", stage=stage.name, **error.as_json())
        raise
    except OSError as error:
        problem = MachineError(
            f"{stage.name} could not write or read a file", where=error.filename or str(folder.root), found=error.strerror
        )
        _note(events, "failed", stage=stage.name, **problem.as_json())
        raise problem from error


def _still_holds(done: Mapping[str, Any], wanted: str, folder: RunFolder) -> bool:
    """Whether what a stage finished is what is wanted now; an event that somebody changed proves nothing."""
    outputs = done.get("outputs")
    return done.get("fingerprint") == wanted and isinstance(outputs, dict) and unchanged(folder, outputs)


def _note(events: EventLog, kind: str, **values: Any) -> None:
    """Write how a run ended; where the disk is full, what is raised says more than that it cannot be written."""
    with suppress(OSError):
        events.append(kind, **values)


@contextmanager
def _disk_errors(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError("the run folder cannot be written", where=str(folder.root), found=error.strerror) from error


def stages_of(job: JobSpec, until: str | None = None) -> Sequence[Stage]:
    """The stages of a job in their order, up to and with `until`.

    Raises:
        InputError: the job has no such stage.
    """
    absent = set() if job.correction is not None else {"correct"}
    absent |= set() if job.training.captures_signals else {"capture"}
    stages = [stage for stage in STAGES if stage.name not in absent]
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        raise InputError("the job has no such stage", where="--until", found=until, expected=", ".join(names))
    return stages if until is None else stages[: names.index(until) + 1]
