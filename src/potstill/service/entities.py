"""A distillation job as Python code describes it, under the names of the Azure ML SDK.

Code written for Azure's distillation jobs moves over by changing the import. The classes hold what they are given; what it
means for a job of ours stands in `azure_fields.py`, and whether it may stand there in `spec.py`, both asked by `to_job_spec`.
As in the SDK the classes can be changed after they are made, so none of them is frozen.
"""

from __future__ import annotations

import os
import re
import secrets
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from potstill.service.azure_fields import translate
from potstill.spec import JobSpec

_LABELS = ("display_name", "description", "tags", "experiment_name")  # kept on the entity, so nothing of them is lost


class DataGenerationType:
    """What a job generates; Azure's service, too, serves the first alone."""

    LABEL_GENERATION = "label_generation"
    DATA_GENERATION = "data_generation"


class DataGenerationTaskType:
    """The tasks that Azure knows."""

    NLI = "NLI"
    NLU_QA = "NLU_QA"
    CONVERSATION = "CONVERSATION"
    MATH = "MATH"
    SUMMARIZATION = "SUMMARIZATION"


class AssetTypes:
    """The kinds of an Input or Output. Potstill looks at the path alone."""

    URI_FILE = "uri_file"
    URI_FOLDER = "uri_folder"
    MLTABLE = "mltable"
    MLFLOW_MODEL = "mlflow_model"
    TRITON_MODEL = "triton_model"
    CUSTOM_MODEL = "custom_model"


@dataclass(kw_only=True)
class Input:
    """A file or a model that a job reads."""

    type: str = AssetTypes.URI_FOLDER
    path: str | os.PathLike[str] | None = None
    mode: str | None = None
    description: str | None = None
    datastore: str | None = None


@dataclass(kw_only=True)
class Output:
    """What a job would write in Azure. Here results go to the run folder."""

    type: str = AssetTypes.URI_FOLDER
    path: str | os.PathLike[str] | None = None
    mode: str | None = None
    description: str | None = None
    name: str | None = None
    version: str | None = None


@dataclass(kw_only=True)
class ResourceConfiguration:
    """The machine a job would get in Azure. Here it runs on this one."""

    instance_count: int | None = None
    instance_type: str | None = None
    properties: Mapping[str, Any] | None = None


@dataclass(kw_only=True)
class ApiKeyConfiguration:
    """A key by itself; `repr` does not show it."""

    key: str | None = field(repr=False)
    type: str = "api_key"


@dataclass(kw_only=True)
class NoneCredentialConfiguration:
    """No key."""

    type: str = "none"


@dataclass(kw_only=True)
class WorkspaceConnection:
    """An endpoint by its address (`endpoint` or `target`) and a name. `metadata["model"]` is what it calls its model; without
    it the model is asked for by the connection's name."""

    type: str
    name: str | None = None
    endpoint: str | None = None
    target: str | None = None
    credentials: ApiKeyConfiguration | NoneCredentialConfiguration | None = None
    metadata: Mapping[str, Any] | None = None
    is_shared: bool = True


@dataclass(kw_only=True)
class ServerlessConnection(WorkspaceConnection):
    """An endpoint with a key; `repr` does not show it. Without a key the environment has it: LLAMA_405B_API_KEY for the
    connection llama-405b."""

    type: str = "serverless"
    api_key: str | None = field(default=None, repr=False)


@dataclass(kw_only=True)
class EndpointRequestSettings:
    """How the teacher's endpoint is asked."""

    request_batch_size: int | None = None
    min_endpoint_success_ratio: float | None = None

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values."""
        return iter(vars(self).items())


@dataclass(kw_only=True)
class TeacherModelSettings:
    """How the teacher answers. Of `inference_parameters` max_tokens, temperature and top_p are sent."""

    inference_parameters: Mapping[str, Any] | None = None
    endpoint_request_settings: EndpointRequestSettings | None = None

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values."""
        return iter(vars(self).items())


@dataclass(kw_only=True)
class PromptSettings:
    """How the teacher is prompted."""

    enable_chain_of_thought: bool = False
    enable_chain_of_density: bool = False
    max_len_summary: int | None = None

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values."""
        return iter(vars(self).items())


@dataclass(kw_only=True)
class DistillationJob:
    """A distillation job: short fields of ours, the sections of a job file, and Azure's fields, in any mixture.

    Two fields that mean the same (task_type and data_generation_task_type, batch_size and per_device_train_batch_size) must not
    contradict each other. `hyperparameters["temperature"]` is the teacher's sampling temperature.
    """

    teacher_model: str | Mapping[str, Any] | None = None
    student_model: str | Mapping[str, Any] | Input | None = None
    training_data: str | os.PathLike[str] | Input | None = None
    validation_data: str | os.PathLike[str] | Input | None = None
    test_data: str | os.PathLike[str] | Input | None = None
    task_type: str | None = None
    hyperparameters: Mapping[str, Any] | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    tags: Mapping[str, Any] | None = None
    experiment_name: str | None = None
    generation: Mapping[str, Any] | None = None
    curation: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    export: Mapping[str, Any] | list[str] | None = None
    data_generation_type: str | None = None
    data_generation_task_type: str | None = None
    teacher_model_endpoint_connection: WorkspaceConnection | None = None
    teacher_model_settings: TeacherModelSettings | None = None
    prompt_settings: PromptSettings | None = None
    resources: ResourceConfiguration | None = None
    compute: str | None = None
    identity: Any = None
    services: Mapping[str, Any] | None = None
    outputs: Mapping[str, Output] | None = None
    properties: Mapping[str, Any] | None = None

    def set_teacher_model_settings(
        self,
        inference_parameters: Mapping[str, Any] | None = None,
        endpoint_request_settings: EndpointRequestSettings | None = None,
    ) -> None:
        """Replace the settings of the teacher."""
        self.teacher_model_settings = TeacherModelSettings(
            inference_parameters=inference_parameters, endpoint_request_settings=endpoint_request_settings
        )

    def set_prompt_settings(self, prompt_settings: PromptSettings | None) -> None:
        """Replace the prompt settings; None keeps those that are there."""
        self.prompt_settings = prompt_settings if prompt_settings is not None else self.prompt_settings

    def set_finetuning_settings(self, hyperparameters: Mapping[str, Any] | None) -> None:
        """Replace the hyperparameters; None keeps those that are there."""
        self.hyperparameters = hyperparameters if hyperparameters is not None else self.hyperparameters

    @property
    def labels(self) -> dict[str, Any]:
        """What the job is called beside its name, where it was given: display_name, description, tags, experiment_name."""
        return {name: value for name in _LABELS if (value := getattr(self, name)) is not None}

    def to_job_spec(self, folder: Path) -> JobSpec:
        """The job as all of Potstill knows it.

        A job without a name gets one, and keeps it. The key of a connection goes into the environment of this process, under
        the variable that the job names, unless that variable is set. What has no counterpart here is told by a `UserWarning`.

        Args:
            folder: Where relative paths start.

        Raises:
            InputError: a field is unknown or wrong; the error names it.
        """
        given = {name: value for name, value in _plain(self).items() if name not in _LABELS}
        translated = translate(given, source="the DistillationJob", ours=True)
        default = self.name or make_name(_shown(translated.job.get("student")), _shown(translated.job.get("task")))
        spec = translated.to_spec(source="the DistillationJob", folder=folder, default_name=default)
        for note in (*translated.notes, translated.provide_key()):
            if note is not None:
                warnings.warn(note, UserWarning, stacklevel=2)
        self.name = spec.name
        return spec


def distillation(
    *,
    experiment_name: str,
    data_generation_type: str,
    data_generation_task_type: str,
    teacher_model_endpoint_connection: WorkspaceConnection,
    student_model: Input | str,
    training_data: Input | str | None = None,
    validation_data: Input | str | None = None,
    teacher_model_settings: TeacherModelSettings | None = None,
    prompt_settings: PromptSettings | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    resources: ResourceConfiguration | None = None,
    **kwargs: Any,
) -> DistillationJob:
    """A distillation job from Azure's fields; `kwargs` are further fields of `DistillationJob`, such as name and outputs."""
    return DistillationJob(
        experiment_name=experiment_name,
        data_generation_type=data_generation_type,
        data_generation_task_type=data_generation_task_type,
        teacher_model_endpoint_connection=teacher_model_endpoint_connection,
        student_model=student_model,
        training_data=training_data,
        validation_data=validation_data,
        teacher_model_settings=teacher_model_settings,
        prompt_settings=prompt_settings,
        hyperparameters=hyperparameters,
        resources=resources,
        **kwargs,
    )


def make_name(student: str, task: str) -> str:
    """A name for a job that has none: of its student and task, and six random hexadecimal digits; valid as `JobSpec.name`."""
    parts = [re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:40] for text in (re.split(r"[/\\]", student)[-1], task)]
    return "-".join([part for part in parts if part] + [secrets.token_hex(3)])


def _shown(value: Any) -> str:
    """The name in a model reference; empty where there is none."""
    if isinstance(value, Mapping):
        value = value.get("model") or value.get("path")
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    """Entities as mappings of what is given in them, paths as texts."""
    if is_dataclass(value) and not isinstance(value, type):
        entries = {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
        return {name: entry for name, entry in entries.items() if entry is not None}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return os.fspath(value) if isinstance(value, os.PathLike) else value
