"""The job file: one pydantic model a section. Defaults and bounds stand here and nowhere else.

`load_job` reads a YAML file, checks it and makes every path absolute; `dump_job` writes the job as resolved. A wrong key or
value is an `InputError` that names the file, the key, what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from potstill.validation import NOT_BUILT, explain
from potstill.yaml_files import read_mapping

TaskName = Literal["nli", "conversation", "qa", "math", "summarization", "classification", "text"]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]

# What is expected at keys where a rule is no help, or that have to be there.
_EXAMPLES = {
    "name": "letters, digits, '.', '_' and '-', such as name: support; without it the file's own name is taken",
    "task": "one of nli, conversation, qa, math, summarization, classification, text",
    "teacher": "a name or a mapping, such as teacher: deepseek-v3",
    "student": "a name or a mapping, such as student: phi-4-mini",
    "data": "a mapping, such as data: {train: rows.jsonl}",
    "data.train": "a file, such as train: rows.jsonl",
    "training.temperature": f"1.0; {NOT_BUILT}",
    "evaluation.metrics": "auto, or a list of names",
    "export": "a list such as [gguf:q8_0], or a mapping with formats",
}


class Section(BaseModel):
    """A section of the job file: unknown keys are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(Section):
    """How the user names a model: exactly one of a name (catalogue, hub id, folder, file) and a path, or an endpoint."""

    model: str | None = None
    path: str | None = None
    endpoint: str | None = None
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None
    context_window: Annotated[int, Field(ge=256)] | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _names_one_model(self) -> ModelSpec:
        if (self.model is None) == (self.path is None):
            raise ValueError("give either 'model' or 'path'")
        if self.endpoint is not None and self.model is None:
            raise ValueError("an endpoint needs 'model', the name it serves the model under")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("an endpoint starts with http:// or https://")
        if self.endpoint is not None and urlsplit(self.endpoint).password is not None:
            raise ValueError("an endpoint here holds no password: name the key's variable in api_key_env, or put the endpoint "
                             "into a catalogue of your own (POTSTILL_CATALOG)")
        return self


class ShrinkSpec(Section):
    """How the student is made smaller before it learns."""

    layers: Positive


class AdapterSpec(Section):
    """Train a low-rank adapter instead of all weights; it is merged before export."""

    type: Literal["lora"] = "lora"
    r: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class StudentSpec(ModelSpec):
    """The student: a model, and what is done to it before training."""

    shrink: ShrinkSpec | None = None
    adapter: AdapterSpec | None = None


class DataSpec(Section):
    """Where rows come from. `validation` and `test` are cut from `train` where they are not given."""

    train: str
    validation: str | None = None
    test: str | None = None
    on_bad_row: Literal["fail", "drop"] = "fail"


class GenerationSpec(Section):
    """How the teacher is asked. Values that a later version will widen accept only what is built."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    samples: Literal[1] = 1
    chain_of_thought: Literal[False] = False
    rationale: Literal["discard"] = "discard"
    select: Literal["all"] = "all"
    mode: Literal["answers"] = "answers"
    strategy: Literal["mix"] = "mix"
    budget_usd: None = None
    budget_tokens: None = None
    min_teacher_score: None = None


class CurationSpec(Section):
    """Which answers are kept. `verify: auto` drops answers that contradict the gold, `none` keeps them."""

    deduplicate: Literal["near", "exact", "none"] = "near"
    balance: None = None
    decontaminate: bool = True
    verify: Literal["auto", "none"] = "auto"


class TrainingSpec(Section):
    """How the student learns. `early_stopping_patience` counts epochs without a better validation loss; 0 turns it off."""

    method: Literal["sft"] = "sft"
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 2.0e-5
    batch_size: Positive = 2
    gradient_accumulation_steps: Positive = 1
    num_epochs: Annotated[float, Field(gt=0, le=1000)] = 3
    temperature: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    loss: dict[Literal["ce"], Annotated[float, Field(gt=0)]] = {"ce": 1.0}
    warmup_ratio: Unit = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_length: Annotated[int, Field(ge=16)] | None = None
    early_stopping_patience: Annotated[int, Field(ge=0)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class EvaluationSpec(Section):
    """What is measured, and on which models."""

    metrics: Literal["auto"] | list[str] = "auto"
    models: list[Literal["teacher", "baseline", "distilled", "weights"]] = ["teacher", "baseline", "distilled"]
    judge: None = None
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: list[str]) -> list[str]:
        if not models or len(set(models)) != len(models):
            raise ValueError("name each model once, and at least one")
        return models


class ExportSpec(Section):
    """What the student is written as. `max_quality_loss`: the mean nats a token that the exported file's greedy choices may
    lose under the unquantised weights."""

    formats: list[Literal["gguf:q8_0", "gguf:f16"]] = ["gguf:q8_0"]
    max_quality_loss: Annotated[float, Field(ge=0)] = 0.02


class JobSpec(Section):
    """A whole job. Only task, teacher, student and data.train are required."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    task: TaskName
    teacher: ModelSpec
    student: StudentSpec
    data: DataSpec
    generation: GenerationSpec = GenerationSpec()
    curation: CurationSpec = CurationSpec()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()

    @field_validator("teacher", "student", mode="before")
    @classmethod
    def _a_name_is_a_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("export", mode="before")
    @classmethod
    def _a_list_is_formats(cls, value: Any) -> Any:
        return {"formats": value} if isinstance(value, list) else value


def load_job(path: Path) -> JobSpec:
    """Read a job file; its relative paths are taken from the folder it lies in.

    Raises:
        InputError: the file is missing, is no YAML mapping, or a key or value is wrong.
    """
    data = read_mapping(
        path, what="the job file", expected="keys such as task, teacher, student, data", hint="potstill init TASK writes one"
    )
    return parse_job(data, source=str(path), folder=path.resolve().parent, default_name=path.stem)


def parse_job(data: Mapping[str, Any], *, source: str, folder: Path, default_name: str) -> JobSpec:
    """Check a job given as a mapping; `source` names it in errors, `folder` is where its relative paths start.

    Raises:
        InputError: a key or value is wrong.
    """
    try:
        job = JobSpec.model_validate({"name": default_name, **data})
    except ValidationError as error:
        raise explain(error, JobSpec, source=source, examples=_EXAMPLES) from None
    return job.model_copy(
        update={
            "data": job.data.model_copy(
                update={key: _absolute(getattr(job.data, key), folder) for key in ("train", "validation", "test")}
            ),
            "teacher": _with_absolute_path(job.teacher, folder),
            "student": _with_absolute_path(job.student, folder),
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


def _with_absolute_path(spec: ModelSpec, folder: Path) -> ModelSpec:
    if spec.path is not None:
        return spec.model_copy(update={"path": str((folder / Path(spec.path).expanduser()).resolve())})
    if spec.endpoint is None and spec.model is not None:
        path = (folder / Path(spec.model).expanduser()).resolve()
        if spec.model.startswith((".", "/", "~")) or spec.model.endswith(".gguf") or (path.is_dir() and "/" in spec.model):
            return spec.model_copy(update={"model": None, "path": str(path)})
    return spec
