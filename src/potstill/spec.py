"""The job file: one pydantic model a section. Defaults and bounds stand here and nowhere else.

`load_job` reads a YAML file, checks it and makes every path absolute; `dump_job` writes the job as resolved. A wrong key or
value is an `InputError` that names the file, the key, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from potstill.spec_correction import CorrectSpec, SoleTeacherSpec, check_alone, check_ways
from potstill.spec_curation import BalanceSpec, CurationSpec, SemanticSpec
from potstill.spec_models import (
    AdapterSpec,
    JudgeSpec,
    ModelSpec,
    Positive,
    Section,
    ShrinkSpec,
    StudentSpec,
    TeacherSpec,
    check_address,
    with_absolute_path,
)
from potstill.spec_panel import check_panel, check_strategy
from potstill.spec_prompts import PromptsSpec
from potstill.spec_training import SignalSpec, TrainingSpec
from potstill.spec_ways import Rationale, check_rationale_weight, check_way
from potstill.validation import ONE, SEVERAL, Lines, explain
from potstill.yaml_files import line_of, read_mapping

__all__ = [
    "EXAMPLES", "AdapterSpec", "BalanceSpec", "CorrectSpec", "CurationSpec", "DataSpec", "EvaluationSpec", "ExportSpec",
    "GenerationSpec", "JobSpec", "JudgeSpec", "ModelSpec", "PromptsSpec", "Section", "SemanticSpec", "ShrinkSpec",
    "SignalSpec", "StudentSpec", "TaskName", "TeacherSpec", "TrainingSpec", "check_address", "dump_job", "load_job",
    "parse_job", "read_job_mapping", "with_absolute_paths",
]

TaskName = Literal["nli", "conversation", "qa", "math", "summarization", "classification", "text"]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]

# What is expected at keys where a rule is no help, or that have to be there.
EXAMPLES = {
    "name": "letters, digits, '.', '_' and '-', such as name: support; without it the file's own name is taken",
    "task": "one of nli, conversation, qa, math, summarization, classification, text",
    "teacher": "a name, a mapping or a list of them, such as teacher: deepseek-v3",
    "teacher.correct": "true, or a mapping such as {num_epochs: 2}",
    "student": "a name or a mapping, such as student: phi-4-mini",
    "data": "a mapping, such as data: {train: rows.jsonl}",
    "data.train": "a file, such as train: rows.jsonl",
    "evaluation.metrics": "auto, or a list of names",
    "export": "a list such as [gguf:q8_0], or a mapping with formats",
}


class DataSpec(Section):
    """Where rows come from."""

    train: str
    """The rows to learn from: a .jsonl, .json, .csv or .parquet file, or a data set of the hub (org/name)."""
    validation: str | None = None
    """The rows that choose the best epoch; without it a tenth of train, at least 8 rows."""
    test: str | None = None
    """The rows that the report is about; without it a further tenth of train, at least 8 rows."""
    on_bad_row: Literal["fail", "drop"] = "fail"
    """What a row that cannot be read does: fail the job, or be left out."""


class GenerationSpec(Section):
    """How the teacher is asked. Values that a later version will widen accept only what is built."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    """How freely the teacher chooses its words; 0 takes the likeliest."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The teacher chooses among the likeliest tokens that make up this share of the probability."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    """The longest answer of the teacher, and later of the student, in tokens."""
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Answers of a teacher to a row."""
    chain_of_thought: bool = False
    """Whether the teacher is asked to reason before it answers: nli, qa, math and classification."""
    rationale: Rationale = "discard"
    """What becomes of the teacher's reasoning. discard: the student learns the answer alone; train: it learns to write the
    reasoning and then the answer; multitask: it learns to answer, and apart from that to write the reasoning when asked."""
    chain_of_density: bool = False
    """Whether a summary is asked for in four rounds, each denser than the one before at the same length."""
    select: Literal["all", "best", "vote"] = "all"
    """Which of several answers to a row are kept: all that differ; the best, by the gold answer; what most agree on."""
    mode: Literal["answers", "prompts"] = "answers"
    """What the teacher writes: answers to your rows; or also new prompts after the model of your training rows, and answers to
    them."""
    prompts: PromptsSpec = PromptsSpec()
    """How new prompts are written, where mode is prompts."""
    strategy: Literal["mix", "route", "best", "vote"] = "mix"
    """Whom of several teachers a row goes to: mix, one by weight; route, one by a field of the row; best and vote, all of them,
    and the best answer or the one that most agree on is kept."""
    route_by: Annotated[str, Field(pattern=r"^meta(\.[^.]+)+$")] | None = None
    """The field of a row that strategy: route goes by, such as meta.topic."""
    budget_usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The most that the run may spend on models, in dollars; the teacher's price has to be known."""
    budget_tokens: Positive | None = None
    """The most tokens that the teacher may read and write in the run."""
    min_teacher_score: Unit | None = None
    """The run stops before the rest is asked where the teacher's first answers score less on the task's main metric."""

    @model_validator(mode="after")
    def _several_answers_can_be_chosen_from(self) -> GenerationSpec:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 all samples are the same answer: raise temperature, or leave samples out")
        if self.strategy in ("best", "vote") and self.select not in ("all", self.strategy):
            raise ValueError(f"strategy: {self.strategy} chooses among all answers of all teachers: leave select out")
        if self.samples == 1 and self.select != "all" and self.strategy not in ("best", "vote"):
            raise ValueError(f"select: {self.select} needs samples: 2 or more to choose from")
        if (self.strategy == "route") != (self.route_by is not None):
            raise ValueError("strategy: route and route_by, the field of a row that it goes by, need each other")
        return self


class EvaluationSpec(Section):
    """What is measured, and on which models."""

    metrics: Literal["auto"] | list[str] = "auto"
    """auto: the task's own; or a list of their names."""
    models: list[Literal["teacher", "baseline", "distilled", "weights"]] = ["teacher", "baseline", "distilled"]
    """Which models are measured; weights: the distilled student before it was exported."""
    judge: JudgeSpec | None = None
    """A model that judges the answers, which costs requests of its own: a name, or a mapping."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """The number of requests at once at which the throughput is measured."""

    @field_validator("judge", mode="before")
    @classmethod
    def _a_name_is_a_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: list[str]) -> list[str]:
        if not models or len(set(models)) != len(models):
            raise ValueError("name each model once, and at least one")
        return models


class ExportSpec(Section):
    """What the student is written as."""

    formats: list[Literal["gguf:q8_0", "gguf:f16"]] = ["gguf:q8_0"]
    """The files that are written; the report's distilled model is the first one."""
    max_quality_loss: Annotated[float, Field(ge=0)] = 0.02
    """Mean nats a token that the exported file's greedy choices may lose under the weights; past it the job fails."""


def _one_or_several(teacher: Any) -> str:
    return SEVERAL if isinstance(teacher, list) else ONE


class JobSpec(Section):
    """A whole job. Only task, teacher, student and data.train are required."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Names the run folder runs/NAME; without it the job file's own name."""
    task: TaskName
    """What the rows are about: decides prompts, how answers are read and verified, and the main metric."""
    teacher: Annotated[
        Annotated[SoleTeacherSpec, Tag(ONE)] | Annotated[list[TeacherSpec], Tag(SEVERAL), Field(min_length=1)],
        Discriminator(_one_or_several),
    ]
    """Who answers the rows: a name, or a mapping with model, path or endpoint; or a list of them (generation.strategy)."""
    student: StudentSpec
    """Who learns: a name, or a mapping with model or path, shrink, adapter."""
    data: DataSpec
    """Where the rows come from."""
    generation: Annotated[GenerationSpec, Field(validate_default=True)] = GenerationSpec()
    """How the teacher is asked."""
    curation: CurationSpec = CurationSpec()
    """Which answers are kept."""
    training: TrainingSpec = TrainingSpec()
    """How the student learns."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What is measured, and on which models."""
    export: ExportSpec = ExportSpec()
    """What the student is written as: a list of formats, or a mapping."""

    @property
    def teachers(self) -> tuple[TeacherSpec, ...]:
        """All teachers, in the order of the file; the first is the one that the student is compared with."""
        given = self.teacher if isinstance(self.teacher, list) else [self.teacher]
        return tuple(TeacherSpec.model_validate(one.model_dump(exclude={"correct"})) for one in given)

    @property
    def correction(self) -> CorrectSpec | None:
        """How the teacher is tuned before it teaches, where it is."""
        return self.teacher.correct if isinstance(self.teacher, SoleTeacherSpec) else None

    @field_validator("teacher", "student", mode="before")
    @classmethod
    def _a_name_is_a_model(cls, value: Any) -> Any:
        if isinstance(value, list):
            check_alone(value)
            return [{"model": one} if isinstance(one, str) else one for one in value]
        return {"model": value} if isinstance(value, str) else value

    @field_validator("teacher")
    @classmethod
    def _each_teacher_once(cls, teacher: SoleTeacherSpec | list[TeacherSpec]) -> SoleTeacherSpec | list[TeacherSpec]:
        if isinstance(teacher, list):
            check_panel(teacher)
        return teacher

    @field_validator("generation")
    @classmethod
    def _fits_the_teachers(cls, generation: GenerationSpec, info: ValidationInfo) -> GenerationSpec:
        teacher = info.data.get("teacher")
        if teacher is not None:
            check_strategy(generation.strategy, teacher if isinstance(teacher, list) else [])
            correct = None if isinstance(teacher, list) else teacher.correct
            check_ways(correct, chain_of_density=generation.chain_of_density)
        return generation

    @field_validator("generation")
    @classmethod
    def _fits_the_task(cls, generation: GenerationSpec, info: ValidationInfo) -> GenerationSpec:
        if "task" in info.data:
            check_way(
                info.data["task"], chain_of_thought=generation.chain_of_thought,
                chain_of_density=generation.chain_of_density, rationale=generation.rationale,
            )
        return generation

    @field_validator("training")
    @classmethod
    def _weighs_what_is_there(cls, training: TrainingSpec, info: ValidationInfo) -> TrainingSpec:
        if "generation" in info.data:
            check_rationale_weight(training.rationale_weight, info.data["generation"].rationale)
        return training

    @field_validator("export", mode="before")
    @classmethod
    def _a_list_is_formats(cls, value: Any) -> Any:
        return {"formats": value} if isinstance(value, list) else value


def load_job(path: Path) -> JobSpec:
    """Read a job file; its relative paths are taken from the folder it lies in.

    Raises:
        InputError: the file is missing, is no YAML mapping, or a key or value is wrong.
    """
    data = read_job_mapping(path)
    return parse_job(
        data, source=str(path), folder=path.resolve().parent, default_name=path.stem, line_of=partial(line_of, path)
    )


def read_job_mapping(path: Path) -> dict[Any, Any]:
    """What a job file holds, unchecked.

    Raises:
        InputError: the file is missing, or is no YAML mapping.
    """
    return read_mapping(
        path, what="the job file", expected="keys such as task, teacher, student, data", hint="potstill init TASK writes one"
    )


def parse_job(
    data: Mapping[str, Any], *, source: str, folder: Path, default_name: str, line_of: Lines | None = None
) -> JobSpec:
    """Check a job given as a mapping.

    Args:
        source: Names it in errors.
        folder: Where its relative paths start.
        default_name: Its name, where it gives none itself.
        line_of: The line of its source where a value stands, given the keys that lead to it.

    Raises:
        InputError: a key or value is wrong.
    """
    try:
        job = JobSpec.model_validate({"name": default_name, **data})
    except ValidationError as error:
        raise explain(error, JobSpec, source=source, examples=EXAMPLES, line_of=line_of) from None
    return with_absolute_paths(job, folder)


def with_absolute_paths(job: JobSpec, folder: Path) -> JobSpec:
    """The same job; its relative paths are taken from `folder`."""
    return job.model_copy(
        update={
            "data": job.data.model_copy(
                update={key: _absolute(getattr(job.data, key), folder) for key in ("train", "validation", "test")}
            ),
            "teacher": (
                [with_absolute_path(teacher, folder) for teacher in job.teacher]
                if isinstance(job.teacher, list) else with_absolute_path(job.teacher, folder)
            ),
            "student": with_absolute_path(job.student, folder),
            "training": job.training.model_copy(update={"launch": _absolute(job.training.launch, folder)}),
            "evaluation": job.evaluation.model_copy(
                update={"judge": job.evaluation.judge and with_absolute_path(job.evaluation.judge, folder)}
            ),
            "curation": job.curation.model_copy(
                update={"semantic": job.curation.semantic and with_absolute_path(job.curation.semantic, folder)}
            ),
        }
    )


def dump_job(job: JobSpec) -> str:
    """The job as resolved, as YAML; it holds no secret because a job file has none."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _absolute(name: str | None, folder: Path) -> str | None:
    """A path seen from `folder`; a name that is no file there is kept (it may be a data set or a model of the hub)."""
    if name is None:
        return None
    path = (folder / Path(name).expanduser()).resolve()
    looks_like_path = Path(name).suffix != "" or name.startswith((".", "/", "~"))
    return str(path) if path.exists() or looks_like_path else name
