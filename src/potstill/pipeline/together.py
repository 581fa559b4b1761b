"""A training in this process, or in several that train one student together: the same call, and the same result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from potstill.pipeline.lessons import Lessons
from potstill.rows import read_rows, write_rows
from potstill.spec import AdapterSpec, JobSpec, TrainingSpec
from potstill.training import TrainingResult, train_student
from potstill.training.launching import Launch, run_together
from potstill.training.result import result_of

if TYPE_CHECKING:
    from potstill.training.teaching import Teaching

OnEvent = Callable[[str, dict[str, Any]], None]
_ROWS = ("train", "validation", "rationale")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is trained, as `train_student` has it. taught: the job and the run's folder, for its teacher's signals."""

    student: Path
    out: Path
    lessons: Lessons
    spec: TrainingSpec
    adapter: AdapterSpec | None
    taught: tuple[JobSpec, Path] | None = None

    def write(self, folder: Path) -> Path:
        """As files, for other processes; the path of the one that names all else."""
        for name in _ROWS:
            write_rows(folder / f"{name}.jsonl", getattr(self.lessons, name))
        path = folder / "request.json"
        path.write_bytes(orjson.dumps({
            "student": str(self.student.resolve()), "out": str(self.out.resolve()), "all_turns": self.lessons.all_turns,
            "spec": self.spec.model_dump(mode="json"), "adapter": self.adapter and self.adapter.model_dump(mode="json"),
            "taught": self.taught and [self.taught[0].model_dump(mode="json"), str(self.taught[1].resolve())],
        }))
        return path

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """What `write` wrote."""
        given = orjson.loads(path.read_bytes())
        rows = {name: list(read_rows(path.parent / f"{name}.jsonl")) for name in _ROWS}
        return cls(
            Path(given["student"]), Path(given["out"]), Lessons(**rows, all_turns=given["all_turns"]),
            TrainingSpec.model_validate(given["spec"]),
            given["adapter"] and AdapterSpec.model_validate(given["adapter"]),
            given["taught"] and (JobSpec.model_validate(given["taught"][0]), Path(given["taught"][1])),
        )


def train(
    work: Assignment, launch: Launch | None, *, on_event: OnEvent, should_stop: Callable[[], bool] = lambda: False,
    teaching: Teaching | None = None,
) -> TrainingResult:
    """Train a student here, or in the processes of `launch`.

    Args:
        teaching: The teacher's signals, where it is trained here; other processes open them by `work.taught`.
        on_event, should_stop: As in `train_student`.

    Raises:
        PotstillError: as `train_student` does.
    """
    if launch is None:
        return train_student(
            work.student, work.lessons.train, work.lessons.validation, work.out, work.spec,
            rationale_rows=work.lessons.rationale, adapter=work.adapter, all_turns=work.lessons.all_turns, teaching=teaching,
            on_event=on_event, should_stop=should_stop,
        )
    log = work.out / "checkpoints" / "processes.log"
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        request = work.write(Path(folder))
        return result_of(run_together("potstill.pipeline.trainer_process", request, launch, log, on_event, should_stop))
