"""Azure's own description of a distillation job (YAML, `type: distillation`): read as a job of ours, and written from one.

A description that the Azure ML SDK can load is read here, and what is written here the SDK can load. Azure wants the key of the
teacher's endpoint in clear text; here it is taken out when it is read, and in its place a variable of the environment is
written: `api_key: ${LLAMA_405B_API_KEY}`, which is read again as that variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import InputError
from potstill.service.azure_fields import TASKS, translate
from potstill.service.azure_models import chat_url, placeholder, registry_id
from potstill.spec import JobSpec
from potstill.yaml_files import line_of, read_mapping

_LARGEST_BATCH = 100  # requests at once that Azure's service allows
# The keys of a job that have a field in Azure; all others are left out.
_WRITTEN = {
    "generation": ("temperature", "top_p", "max_tokens", "chain_of_thought", "chain_of_density"),
    "training": ("learning_rate", "batch_size", "num_epochs"),
    "data": ("train", "validation"),
    "teacher": ("model", "path", "endpoint", "api_key_env", "concurrency"),
    "student": ("model", "path"),
}


@dataclass(frozen=True, slots=True)
class AzureJob:
    """A description as a job of ours.

    notes: one line on each field without a counterpart, and what happens instead. api_key_variable: where the teacher's key is
    looked for; None where the endpoint needs none.
    """

    spec: JobSpec
    notes: tuple[str, ...]
    api_key_variable: str | None


def is_azure_job(path: Path) -> bool:
    """Whether a file is a description of Azure's; a file that cannot be read is none."""
    try:
        kind = read_mapping(path, what="the job file", expected="").get("type")
    except InputError:
        return False
    return isinstance(kind, str) and kind.casefold() == "distillation"


def read_azure_job(path: Path) -> AzureJob:
    """Read a description; its relative paths are taken from the folder it lies in.

    A key that stands in it goes into the environment of this process, unless its variable is set there, and nowhere else.

    Raises:
        InputError: the file is missing or no YAML, or a field is unknown or wrong.
    """
    data = read_mapping(path, what="the description", expected="Azure's fields, such as type: distillation")
    translated = translate(data, source=str(path))
    spec = translated.to_spec(
        source=str(path), folder=path.resolve().parent, default_name=path.stem, line_of=partial(line_of, path)
    )
    notes = list(translated.notes)
    if translated.api_key is not None:
        variable = translated.api_key.variable
        notes.insert(0, f"{path} holds an API key in clear text: move it to the environment variable {variable} "
                        f"and write api_key: {placeholder(variable)}")
    other_key = translated.provide_key()
    return AzureJob(spec, tuple(notes + ([other_key] if other_key else [])), spec.teachers[0].api_key_env)


def write_azure_job(spec: JobSpec, *, folder: Path | None = None) -> str:
    """A job as a description of Azure's, in YAML. It never holds a key. What has no field in Azure is told by `left_out`.

    Args:
        folder: Where the description will lie; files in it are named relative to it. Without it all paths are absolute.

    Raises:
        InputError: Azure has no such task, the teacher is no endpoint, no registry of Azure has the student, or there is no
            validation file.
    """
    tasks = {name: task for task, name in TASKS.items()}
    if spec.task not in tasks:
        raise _impossible("no such task", "task", spec.task, f"one of {', '.join(tasks)}")
    if len(spec.teachers) > 1:
        found = ", ".join(teacher.called for teacher in spec.teachers)
        raise _impossible("no job with several teachers", "teacher", found, "one teacher")
    if spec.data.validation is None:
        raise _impossible("no job without validation data", "data.validation", "none", "a .jsonl file")
    description = {
        "type": "distillation",
        "name": spec.name,
        "experiment_name": spec.name,
        "data_generation_type": "label_generation",
        "data_generation_task_type": tasks[spec.task],
        "teacher_model_endpoint_connection": _connection(resolve(spec.teachers[0])),
        "student_model": _student(spec, folder),
        "training_data": {"type": "uri_file", "path": shown_path(spec.data.train, folder)},
        "validation_data": {"type": "uri_file", "path": shown_path(spec.data.validation, folder)},
        "teacher_model_settings": _teacher_settings(spec),
        "prompt_settings": {
            "enable_chain_of_thought": spec.generation.chain_of_thought,
            "enable_chain_of_density": spec.generation.chain_of_density,
        },
        "hyperparameters": {
            "learning_rate": _number(spec.training.learning_rate),
            "per_device_train_batch_size": str(spec.training.batch_size),
            "num_train_epochs": _number(spec.training.num_epochs),
        },
    }
    return yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=100)


def left_out(spec: JobSpec) -> list[str]:
    """One line on each key of a job that `write_azure_job` does not write, and on what else Azure will make of it."""
    notes = []
    for section, values in spec.model_dump(mode="json", exclude_defaults=True).items():
        if isinstance(values, Mapping):
            unknown = [f"{section}.{name}" for name in values if name not in _WRITTEN.get(section, ())]
            notes += [f"{key}: Azure has no field for it" for key in unknown]
    teacher = resolve(spec.teachers[0])
    if teacher.api_key_env is not None:
        shown = placeholder(teacher.api_key_env)
        notes.append(f"the key is not written: put it in place of {shown} for Azure; Potstill reads {shown} as it stands")
    else:
        notes.append("the endpoint has no key, and Azure's service may insist on one")
    concurrency = spec.teachers[0].concurrency
    if concurrency is not None and concurrency > _LARGEST_BATCH:
        notes.append(f"teacher.concurrency: Azure allows {_LARGEST_BATCH} requests at once")
    if spec.generation.temperature > 1:
        notes.append("generation.temperature: Azure allows 0 to 1")
    files = [name for name in (spec.data.train, spec.data.validation) if name is not None and Path(name).suffix != ".jsonl"]
    return notes + [f"{name}: Azure reads .jsonl files alone" for name in files]


def _impossible(what: str, key: str, found: object, expected: str) -> InputError:
    return InputError(f"Azure has {what}", where=f"key '{key}' of the job", found=str(found), expected=expected)


def _connection(teacher: ResolvedModel) -> dict[str, Any]:
    if teacher.kind != "endpoint" or teacher.endpoint is None or teacher.model is None:
        found = f"{teacher.name}, a model of kind {teacher.kind}"
        raise _impossible("no teachers but endpoints", "teacher", found, "an endpoint")
    shared = {"name": re.sub(r"[^A-Za-z0-9_-]+", "-", teacher.model).strip("-"), "metadata": {"model": teacher.model}}
    if teacher.api_key_env is None:
        return {"type": "custom", **shared, "target": chat_url(teacher.endpoint)}
    return {
        "type": "serverless", **shared, "endpoint": chat_url(teacher.endpoint), "api_key": placeholder(teacher.api_key_env)
    }


def _student(spec: JobSpec, folder: Path | None) -> dict[str, str]:
    if spec.student.path is not None:
        return {"type": "custom_model", "path": shown_path(spec.student.path, folder)}
    identifier = registry_id(spec.student)
    if identifier is None:
        expected = "a model that a registry of Azure has, such as phi-4-mini, or a folder"
        raise _impossible("no such student", "student", spec.student.model, expected)
    return {"type": "mlflow_model", "path": identifier}


def _teacher_settings(spec: JobSpec) -> dict[str, Any]:
    generation, concurrency = spec.generation, spec.teachers[0].concurrency
    settings: dict[str, Any] = {
        "inference_parameters": {
            "temperature": generation.temperature, "top_p": generation.top_p, "max_tokens": generation.max_tokens,
        }
    }
    if concurrency is not None:
        settings["endpoint_request_settings"] = {"request_batch_size": min(concurrency, _LARGEST_BATCH)}
    return settings


def shown_path(path: str, folder: Path | None) -> str:
    """A path as a file in `folder` names it: relative where it leads into the folder."""
    if folder is not None and Path(path).is_relative_to(folder.resolve()):
        return f"./{Path(path).relative_to(folder.resolve()).as_posix()}"
    return path


def _number(value: float) -> str:
    """A number as Azure's descriptions have it: a text without an exponent."""
    return format(Decimal(repr(value)).normalize(), "f")
