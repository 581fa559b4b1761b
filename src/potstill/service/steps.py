"""Distil step by step, looking between the steps: four functions for a notebook or a program.

    training_data = load_dataset("training_data.jsonl")
    teacher_model = load_model("deepseek-v3")
    synthetic_training_data = generate_teacher_responses(teacher_model, training_data)
    student = fine_tune_student(load_model("phi-4-mini"), synthetic_training_data, synthetic_validation_data)

Each does what the stage of a job does, with the same code. Nothing is lost by a kill: replies go through a journal, a training
goes on from its last checkpoint, when the same step is called again with the same things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ValidationError

from potstill.catalog import ResolvedModel, resolve
from potstill.curation import MIN_KEPT_ROWS
from potstill.curation.curate import Rejection, curate
from potstill.errors import InputError
from potstill.generation import RejectedRow
from potstill.inference import model_identity
from potstill.pipeline.asking import answers_in_order
from potstill.pipeline.progress import Progress
from potstill.rows import Row, content_hash
from potstill.service.notebook import NotebookProgress, outside_loop
from potstill.spec import CurationSpec, GenerationSpec, StudentSpec, TrainingSpec
from potstill.spec_ways import Rationale, check_way
from potstill.tasks import Task, get_task
from potstill.tasks.guess import guess_task
from potstill.tasks.reading import read_rows_of
from potstill.validation import explain

Keys = TypeVar("Keys", bound=BaseModel)
FOLDER = Path("runs") / "steps"  # where journals and students go, seen from the current folder


@dataclass(frozen=True)
class Dataset(Sequence[Row]):
    """Rows of one task. rejected: what is not among them, with the rule and the reason; empty before a teacher answered.

    rationale: what a student is to learn of the reasoning that the rows came with, as in a job file's `generation`.
    """

    task: Task
    rows: tuple[Row, ...] = field(repr=False)
    source: str = ""
    rejected: tuple[Rejection, ...] = field(default=(), repr=False)
    rationale: Rationale = "discard"

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        told = f", {len(self.rejected)} rejected" if self.rejected else ""
        return f"Dataset({self.task.name}, {len(self.rows)} rows{told}, from {self.source})"


@dataclass(frozen=True)
class Model:
    """A model that a name leads to; nothing of it is loaded before it is used."""

    spec: StudentSpec
    resolved: ResolvedModel

    def __repr__(self) -> str:
        return f"Model({self.resolved.name!r}, {self.resolved.kind})"


@dataclass(frozen=True)
class TrainedStudent:
    """A student that has learnt. folder: weights and tokenizer in the hub's own layout; `load_model(student.folder)` opens it.

    training: losses by step and epoch, the best epoch, whether it overfitted, and how many tokens it saw.
    """

    folder: Path
    training: Any = field(repr=False)

    @property
    def validation_loss(self) -> float:
        """The best epoch's, in nats a token; its weights are those that were kept."""
        return float(self.training.best_validation_loss)


def load_dataset(path: str | Path, *, task: str | None = None) -> Dataset:
    """The rows of a jsonl, json, csv or parquet file, or of a data set of the hub.

    Args:
        path: The file.
        task: nli, conversation, qa, math, summarization, classification or text; by the fields of the first row without it.

    Raises:
        InputError: the file is missing, or cannot be read as rows of the task; a bad row is named by its line.
    """
    name = task or guess_task(path)
    try:
        kind = get_task(name)
    except KeyError:
        expected = "nli, conversation, qa, math, summarization, classification or text"
        raise InputError("unknown task", where="load_dataset(task=...)", found=name, expected=expected) from None
    rows = read_rows_of(Path(path).expanduser(), kind, on_bad_row="fail").rows
    kind = kind.with_rows(rows)
    return Dataset(kind, tuple(map(kind.settled, rows)), Path(path).name)


def load_model(name: str | Path | Mapping[str, Any]) -> Model:
    """The model of a catalogue name, hub id, folder, .gguf file, or of a mapping as in a job file.

    Raises:
        InputError: the name leads nowhere, or the mapping is wrong.
    """
    if isinstance(name, Path):
        name = {"path": str(name.expanduser().resolve())}
    spec = _checked(StudentSpec, {"model": name} if isinstance(name, str) else name, "load_model")
    return Model(spec, resolve(spec))


def generate_teacher_responses(
    teacher_model: Model | str, training_data: Dataset, *, curation: Mapping[str, Any] | None = None,
    folder: str | Path = FOLDER, progress: Progress | None = None, **generation: Any,
) -> Dataset:
    """The rows with the teacher's answers; what is not worth learning from is left out, with the rule and the reason.

    Args:
        teacher_model: What `load_model` gives, or a name for it.
        training_data: What `load_dataset` gives.
        curation: Keys of a job file's `curation`.
        folder: Every reply is kept in a journal in here, and none that was received is asked for again.
        progress: Where to report; tqdm's bars without it.
        generation: Keys of a job file's `generation`, such as temperature and max_tokens.

    Raises:
        InputError: a setting is wrong, or the model cannot be opened.
        EndpointError: the endpoint refuses or does not answer; what was received is kept.
    """
    model = teacher_model if isinstance(teacher_model, Model) else load_model(teacher_model)
    spec = _checked(GenerationSpec, generation, "generate_teacher_responses")
    rules = _checked(CurationSpec, curation or {}, "generate_teacher_responses(curation=...)")
    if rules.semantic is not None:
        raise InputError("rows that mean the same are looked for in jobs only", found="semantic",
                         where="generate_teacher_responses(curation=...)", expected="curation without 'semantic'")
    report, rows, task = progress or NotebookProgress(), list(training_data.rows), training_data.task
    _check_way(spec, task)
    journal = Path(folder) / "journal" / content_hash(dict(model_identity(model.resolved)))[:16]
    report.begin(f"{model.resolved.name} answers", len(rows))
    try:
        outcomes = outside_loop(lambda: answers_in_order(model.resolved, task, rows, spec, journal, report.update))
    finally:
        report.end()
    lost = [
        Rejection(entry.row, "train", "no_reply", entry.reason) for entry in outcomes if isinstance(entry, RejectedRow)
    ]
    answered = [row for entry in outcomes if not isinstance(entry, RejectedRow) for row in entry]
    result = curate(answered, split="train", spec=rules, task=task, held_out=[])
    rejected = (*lost, *result.rejected)
    report.say(f"{len(result.kept)} of {len(rows)} answers kept" + _told(rejected))
    source = f"{model.resolved.name} on {training_data.source}"
    return Dataset(task, tuple(result.kept), source, rejected, spec.rationale)


def fine_tune_student(
    student_model: Model | str, synthetic_training_data: Dataset, synthetic_validation_data: Dataset, *,
    folder: str | Path = FOLDER, progress: Progress | None = None, shrink: Mapping[str, Any] | None = None,
    adapter: Mapping[str, Any] | None = None, **training: Any,
) -> TrainedStudent:
    """Train a student on a teacher's answers; the epoch with the best validation loss is kept.

    Args:
        student_model: What `load_model` gives, or a name for it.
        synthetic_training_data: What `generate_teacher_responses` gives.
        synthetic_validation_data: The same for rows that are not trained on.
        folder: Gets a folder for this student, these rows and these settings; the same call goes on in it.
        progress: Where to report; tqdm's bars without it.
        shrink: Make the student smaller first, such as {"layers": 8}.
        adapter: Train a low-rank adapter, such as {"r": 16}, which is merged into the weights at the end.
        training: Keys of a job file's `training`, such as learning_rate, batch_size and num_epochs.

    Raises:
        InputError: a setting is wrong, too few rows are left, or the model cannot be opened.
        PotstillError: the training failed; what was done is kept.
    """
    from potstill.pipeline import together
    from potstill.pipeline.lessons import Lessons
    from potstill.training.launching import launch_of
    from potstill.training.rationales import answer_rows, rationale_rows

    model = student_model if isinstance(student_model, Model) else load_model(student_model)
    own = {key: value for key, value in (("shrink", shrink), ("adapter", adapter)) if value is not None}
    spec = _checked(StudentSpec, {**model.spec.model_dump(mode="json"), **own}, "fine_tune_student")
    settings = _checked(TrainingSpec, training, "fine_tune_student")
    _check_rows(synthetic_training_data, synthetic_validation_data)
    report = progress or NotebookProgress()
    out = Path(folder) / _student_folder(model, spec, settings, synthetic_training_data, synthetic_validation_data)
    out.mkdir(parents=True, exist_ok=True)
    start = _initial_student(model, spec, out, synthetic_training_data, report)
    train, validation, task = synthetic_training_data, synthetic_validation_data, synthetic_training_data.task
    lessons = Lessons(
        answer_rows(train.rows, train.rationale, task), answer_rows(validation.rows, train.rationale, task),
        rationale_rows(train.rows, train.rationale, task), all_turns=task.name == "conversation",
    )
    work = together.Assignment(start, out, lessons, settings, spec.adapter)
    report.begin("training", None)
    try:
        result = together.train(work, launch_of(settings), on_event=partial(_relay, report))
    finally:
        report.end()
    report.say(f"trained: best validation loss {result.best_validation_loss:.3f} after epoch {result.best_epoch:g}; {out}")
    return TrainedStudent(out, result)


def _check_way(spec: GenerationSpec, task: Task) -> None:
    try:
        check_way(
            task.name, chain_of_thought=spec.chain_of_thought, chain_of_density=spec.chain_of_density, rationale=spec.rationale
        )
    except ValueError as error:
        raise InputError(str(error), where="generate_teacher_responses") from None


def _check_rows(train: Dataset, validation: Dataset) -> None:
    if len(train) < MIN_KEPT_ROWS:
        raise InputError("too few rows to train on", where="synthetic_training_data",
                         found=f"{len(train)}{_told(train.rejected)}", expected=f"at least {MIN_KEPT_ROWS}")
    if not len(validation):
        raise InputError("there are no rows to validate on", where="synthetic_validation_data",
                         found=f"0{_told(validation.rejected)}", expected="at least one, better a tenth of the training rows")


def _student_folder(
    model: Model, spec: StudentSpec, settings: TrainingSpec, train: Dataset, validation: Dataset
) -> str:
    """A name for what is trained: another one for another student, other rows or other settings."""
    digest = content_hash({
        "model": dict(model_identity(model.resolved)), "shrink": spec.shrink.model_dump() if spec.shrink else None,
        "adapter": spec.adapter.model_dump() if spec.adapter else None, "training": settings.model_dump(mode="json"),
        "rationale": train.rationale, "train": [row.as_dict() for row in train],
        "validation": [row.as_dict() for row in validation],
    })
    return f"{model.resolved.name.rpartition('/')[2]}-{digest[:8]}"


def _initial_student(model: Model, spec: StudentSpec, out: Path, train: Dataset, report: Progress) -> Path:
    """The untrained student in the hub's layout; built where it is not there yet."""
    from potstill.pipeline.untouched import build_initial_student

    if model.resolved.kind == "folder" and spec.shrink is None and model.resolved.path is not None:
        return model.resolved.path
    target = out / "initial"
    if not (target / "config.json").is_file():
        report.say("building the student")
        build_initial_student(model.resolved, target, spec.shrink, train.rows)
    return target


def _relay(progress: Progress, kind: str, values: Mapping[str, Any]) -> None:
    if kind == "progress":
        detail = f"loss {values['loss']:.3f}" if values.get("loss") is not None else ""
        progress.update(int(values["step"]), int(values["total_steps"]), detail)
    elif "validation_loss" in values:
        progress.say(f"epoch {values['epoch']:g}: validation loss {values['validation_loss']:.3f}")


def _told(rejected: Sequence[Rejection]) -> str:
    """How many were rejected by which rule."""
    rules = [entry.rule for entry in rejected]
    return "".join(f"; {rules.count(rule)} {rule}" for rule in dict.fromkeys(rules))


def _checked(kind: type[Keys], values: Mapping[str, Any], function: str) -> Keys:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, kind, source=function) from None
