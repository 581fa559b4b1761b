"""Before a job starts: where it runs, and what would go wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import InputError, MachineError, PotstillError
from potstill.job_draft import JobDraft, draft_job
from potstill.pipeline.checks.choosing import look_at_choosing
from potstill.pipeline.checks.curation import look_at_balance, look_at_embeddings, look_at_embeddings_endpoint
from potstill.pipeline.checks.data import look_at_data, look_at_lengths
from potstill.pipeline.checks.judge import look_at_judge, look_at_judges_endpoint, look_at_judges_price
from potstill.pipeline.checks.memory import look_at_correction, look_at_memory
from potstill.pipeline.checks.models import (
    look_at_export,
    look_at_extras,
    look_at_hub,
    look_at_student,
    look_at_teacher,
)
from potstill.pipeline.checks.price import look_at_budget, look_at_gold, look_at_price
from potstill.pipeline.checks.prompts import look_at_prompts, look_at_terms
from potstill.pipeline.checks.rationale import look_at_rationale, look_at_reasoning
from potstill.pipeline.checks.seen import Seen, Told, at_key
from potstill.pipeline.checks.signals import look_at_signals
from potstill.pipeline.checks.teacher import look_at_endpoint
from potstill.pipeline.folder import RunFolder
from potstill.spec import JobSpec, load_job
from potstill.tasks import get_task


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `error` is what is wrong with it, None where it is in order."""

    subject: str
    text: str
    error: PotstillError | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "ok": self.error is None,
            "text": self.text,
            "error": None if self.error is None else self.error.as_json(),
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """A subject, and how it is looked at.

    reads: the sections of the job file it is about. after: the subjects it builds on; where one of them is wrong, this look
    would only say so again. asks: it asks an endpoint or the hub. exact: it is of use only where the whole job can be read.
    """

    subject: str
    look: Callable[[Seen], Iterator[Told]]
    reads: frozenset[str]
    after: frozenset[str] = frozenset()
    asks: bool = False
    exact: bool = False


def locate(job: Path, runs: Path) -> tuple[JobSpec, Path]:
    """A job file and the folder it runs in; a run folder, or the job file inside one, stands for itself.

    Raises:
        InputError: the job file is missing or wrong.
    """
    file = job_file(job)
    spec = load_job(file)
    inside = file.name == "job.yaml" and RunFolder(file.parent).events.is_file()
    return spec, file.resolve().parent if inside else runs / spec.name


def job_file(job: Path) -> Path:
    """The job file that an argument means: a run folder stands for the one inside it."""
    return job / "job.yaml" if job.is_dir() else job


def preflight(job: JobSpec, root: Path, until: str | None = None) -> None:
    """What `potstill run` looks at before it makes a run folder: all that costs nothing.

    Only models of the hub that are not on this machine yet need the network.

    Raises:
        PotstillError: the first thing that is wrong.
    """
    if until is not None:
        from potstill.pipeline.run import stages_of  # looks at a job alone need none of what the stages do

        stages_of(job, until)
    _check_place(root)
    started = RunFolder(root).events.is_file()
    seen = Seen(job, until)
    for look in _LOOKS:
        if (started and "data" in look.reads) or (look.asks and look.subject != "hub"):
            continue
        for told in look.look(seen):
            if isinstance(told, PotstillError):
                raise told


def check_file(job: Path, *, ask_endpoint: bool) -> list[Finding]:
    """Look at a job file and all that it names, and go on after what is wrong; a run folder stands for its job file."""
    try:
        draft = draft_job(job_file(job))
    except PotstillError as error:
        return [_finding("job", error)]
    problems = [_finding("job", problem) for problem in draft.problems]
    return problems + _check(draft, ask_endpoint=ask_endpoint)


def check_job(job: JobSpec, *, ask_endpoint: bool) -> list[Finding]:
    """Look at everything, and go on after what is wrong."""
    return _check(JobDraft(job), ask_endpoint=ask_endpoint)


def _check(draft: JobDraft, *, ask_endpoint: bool) -> list[Finding]:
    findings: list[Finding] = []
    seen, wrong = Seen(draft.job), set[str]()
    for look in _LOOKS:
        unread = look.reads & (draft.touched if look.exact else draft.unread)
        if unread or look.after & wrong or (look.asks and not ask_endpoint):
            wrong |= {look.subject} if unread else set()
            continue
        for finding in _findings(look, seen):
            findings.append(finding)
            wrong |= set() if finding.error is None else {look.subject}
    return findings


def _findings(look: _Look, seen: Seen) -> Iterator[Finding]:
    try:
        for told in look.look(seen):
            yield _finding(look.subject, told)
    except PotstillError as error:
        yield _finding(look.subject, error)


def _finding(subject: str, told: Told) -> Finding:
    return Finding(subject, str(told), told if isinstance(told, PotstillError) else None)


def _check_place(root: Path) -> None:
    """The nearest part of the run folder's path that exists is a folder that can be written.

    Raises:
        InputError: it is a file.
        MachineError: it cannot be written.
    """
    nearest = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InputError("this is a file, where a run folder has to be", where=str(nearest), expected="--runs DIR")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise MachineError("the run folder cannot be written", where=str(nearest), found="a folder without permission to write")


def _look_at_metrics(seen: Seen) -> Iterator[Told]:
    task, wanted = get_task(seen.job.task), seen.job.evaluation.metrics
    if wanted == "auto":
        yield f"{', '.join(task.metrics)}; the main one is {task.main_metric}"
        return
    judged = ("judge_score",) if seen.job.evaluation.judge is not None else ()
    unknown = [name for name in wanted if name not in (*task.metrics, *judged, "bleu_score", "inference_time")]
    if unknown:
        raise InputError(
            "unknown metric", where="evaluation.metrics", found=", ".join(unknown), expected=", ".join(task.metrics)
        )
    yield ", ".join(wanted)


def _at(key: str, look: Callable[[Seen], Iterator[Told]]) -> Callable[[Seen], Iterator[Told]]:
    return lambda seen: at_key(key, look(seen))


def _look(
    subject: str, look: Callable[[Seen], Iterator[Told]], reads: str, *,
    after: str = "", asks: bool = False, exact: bool = False,
) -> _Look:
    return _Look(subject, look, frozenset(reads.split()), frozenset(after.split()), asks, exact)


_LOOKS = (
    _look("data", _at("data", look_at_data), "task data"),
    _look("teacher", _at("teacher", look_at_teacher), "teacher"),
    _look("terms", look_at_terms, "teacher", after="teacher"),
    _look("prompts", look_at_prompts, "task data generation", after="data"),
    _look("student", _at("student", look_at_student), "student"),
    _look("correction", _at("teacher.correct", look_at_correction), "task data teacher generation",
          after="data teacher", exact=True),
    _look("judge", _at("evaluation.judge", look_at_judge), "teacher student evaluation", after="teacher student"),
    _look("installed", look_at_extras, "teacher student export", after="teacher judge"),
    _look("memory", look_at_memory, "teacher student training", after="teacher student"),
    _look("export", look_at_export, "student export", after="student"),
    _look("lengths", _at("student", look_at_lengths), "task data student training", after="data student", exact=True),
    _look("answers", look_at_choosing, "task data teacher generation evaluation", after="data teacher", exact=True),
    _look("rationale", look_at_rationale, "teacher generation", after="teacher"),
    _look("signals", look_at_signals, "teacher student training", after="teacher student", exact=True),
    _look("balance", look_at_balance, "task data curation", after="data", exact=True),
    _look("embeddings", _at("curation.semantic", look_at_embeddings), "curation"),
    _look("metrics", _look_at_metrics, "task evaluation"),
    _look("budget", look_at_budget, "teacher generation evaluation", after="teacher judge"),
    _look("teacher score", look_at_gold, "task data generation", after="data"),
    _look("hub", look_at_hub, "teacher student", after="teacher student judge", asks=True),
    _look("endpoint", look_at_endpoint, "teacher", after="teacher", asks=True),
    _look("reasoning", look_at_reasoning, "teacher generation", after="endpoint rationale", asks=True),
    _look("embeddings' endpoint", look_at_embeddings_endpoint, "curation", after="embeddings", asks=True),
    _look("judge's endpoint", look_at_judges_endpoint, "evaluation", after="judge", asks=True),
    _look("price", look_at_price, "task teacher data generation evaluation", after="data teacher prompts", asks=True,
          exact=True),
    _look("judge's price", look_at_judges_price, "task data generation evaluation", after="data judge", asks=True, exact=True),
)
