"""A stage: a function from typed inputs to files in the run folder, and what it needs to be skipped when nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import JobCanceledError
from potstill.pipeline.corrected import teachers_of, weights_of
from potstill.pipeline.events import EventLog
from potstill.pipeline.fingerprint import digests
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Progress
from potstill.rows import Row, read_rows
from potstill.spec import JobSpec
from potstill.tasks import Task, get_task

SPLITS = ("train", "validation", "test")


def never() -> bool:
    """Whether a job that nobody can cancel was cancelled."""
    return False


@dataclass(frozen=True)
class Context:
    """What every stage gets: the job, its folder, and where to report."""

    job: JobSpec
    folder: RunFolder
    events: EventLog
    progress: Progress
    canceled: Callable[[], bool] = never

    def advance(self, done: int, total: int | None = None, detail: str = "") -> None:
        """`done` units of the current step are ready; ends the stage where the user cancelled the job.

        Raises:
            JobCanceledError: the user did.
        """
        self.progress.update(done, total, detail)
        self.check_canceled()

    def check_canceled(self) -> None:
        """Call where a stage can be left at no loss.

        Raises:
            JobCanceledError: the user cancelled the job.
        """
        if self.canceled():
            raise JobCanceledError(
                "the job was cancelled", where=str(self.folder.root),
                hint="what was done is kept; potstill run on this folder goes on from there",
            )

    @property
    def teachers(self) -> tuple[ResolvedModel, ...]:
        """Those that answer: where the job corrects its teacher, the corrected one."""
        return teachers_of(self.job, self.folder)

    @property
    def teacher(self) -> ResolvedModel:
        """The first of them: the student is compared with it, and it answers where a reference is missing."""
        return self.teachers[0]

    @property
    def teacher_weights(self) -> ResolvedModel:
        """The same to be opened as weights, where it has any here."""
        return weights_of(self.job, self.folder) or self.teacher

    @property
    def student(self) -> ResolvedModel:
        return resolve(self.job.student)

    def rows(self, split: str) -> list[Row]:
        """The prepared rows of a split."""
        return list(self.stream(split))

    def stream(self, split: str) -> Iterator[Row]:
        """The prepared rows of a split, one after the other."""
        return read_rows(self.folder.rows / f"{split}.jsonl")

    def task(self) -> Task:
        """The job's task, knowing the label set and lengths of its rows."""
        return get_task(self.job.task).with_rows(row for split in SPLITS for row in self.stream(split))

    def digests(self, *folders_and_files: Path) -> dict[str, str]:
        """Digests of files, and of the files directly inside folders."""
        files: list[Path] = []
        for path in folders_and_files:
            files.extend(path.iterdir() if path.is_dir() else [path])
        return digests(self.folder, files)


class Stage(Protocol):
    """One arrow of the way of the data. `version` rises when the stage's code changes what it writes."""

    name: str
    version: int

    def inputs(self, context: Context) -> Mapping[str, Any]:
        """All that the result depends on, by content."""
        ...

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        """Do the work; returns figures for the `finished` event."""
        ...

    def outputs(self, context: Context) -> Iterable[Path]:
        """The files that later stages read."""
        ...
