"""A distillation job in Azure's names becomes one in ours: the one place that knows which field becomes which key.

What goes in: a description as plain mappings, from a YAML file of Azure's or from the entity `DistillationJob`. What comes out:
the mapping that a job file of ours would hold, the field each of its keys came from, a note on each field that has no
counterpart, and the API key by itself, which stands in none of the others. Values are not checked here: their bounds stand in
`spec.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.errors import InputError
from potstill.service.azure_draft import ApiKey, Draft, Translated
from potstill.service.azure_models import base_url, key_variable, local_path, model_name, named_variable
from potstill.validation import NOT_BUILT

TASKS = {"NLI": "nli", "NLU_QA": "qa", "CONVERSATION": "conversation", "MATH": "math", "SUMMARIZATION": "summarization"}
HYPERPARAMETERS = {
    "learning_rate": "training.learning_rate",
    "batch_size": "training.batch_size",
    "per_device_train_batch_size": "training.batch_size",
    "num_epochs": "training.num_epochs",
    "num_train_epochs": "training.num_epochs",
    "n_epochs": "training.num_epochs",
    "temperature": "generation.temperature",
}
INFERENCE_PARAMETERS = {
    "max_tokens": "generation.max_tokens",
    "temperature": "generation.temperature",
    "top_p": "generation.top_p",
}
SECTIONS = ("generation", "curation", "training", "evaluation", "export")
# Training methods in which the student is compared with the teacher's distribution, softened by training.temperature.
_COMPARES_DISTRIBUTIONS = ("kd", "on_policy")
_NOT_SENT = "not sent to the teacher; generation has temperature, top_p and max_tokens"
_UNUSED_INFERENCE = {"frequency_penalty": _NOT_SENT, "presence_penalty": _NOT_SENT, "stop": _NOT_SENT}
_CONNECTION = (
    "type", "name", "endpoint", "target", "api_base", "url", "azure_endpoint", "api_key", "credentials", "metadata", "tags",
    "is_shared", "description", "properties", "id", "creation_context",
)
_ADDRESSES = ("endpoint", "target", "api_base", "url", "azure_endpoint")
_INPUT = ("type", "mode", "datastore", "path_on_compute", "description")
_HERE = "not used: the job runs on this machine"
_LABEL = "not kept: a job here has a name and no other labels"
_UNUSED = {
    "resources": _HERE, "compute": _HERE, "identity": _HERE, "services": _HERE,
    "outputs": "not used: the student, its exports and the report lie in the run folder",
    "experiment_name": _LABEL, "display_name": _LABEL, "description": _LABEL, "tags": _LABEL,
    "properties": "not used",
}
_SILENT = ("$schema", "type", "id", "status", "creation_context", "log_files")
_FIELDS = (
    "name", "data_generation_type", "data_generation_task_type", "teacher_model_endpoint_connection", "student_model",
    "training_data", "validation_data", "teacher_model_settings", "prompt_settings", "hyperparameters",
)
_REQUIRED = {
    "task": "data_generation_task_type", "teacher": "teacher_model_endpoint_connection", "student": "student_model",
    "data.train": "training_data",
}
_OUR_REQUIRED = {**_REQUIRED, "task": "task_type", "teacher": "teacher_model"}
_OUR_FIELDS = ("task_type", "teacher_model", "test_data", *SECTIONS)


def translate(description: Mapping[str, Any], *, source: str, ours: bool = False) -> Translated:
    """A description in Azure's names as a job of ours.

    Args:
        description: Plain mappings, texts and numbers; None stands for a field that is not given.
        source: Names it in errors.
        ours: Whether our own fields (task_type, teacher_model, test_data and the sections of a job file) may stand in it too.

    Raises:
        InputError: a field is unknown, of the wrong kind, contradicts another, or asks for what is not built.
    """
    draft = Draft(source)
    known = (*_FIELDS, *_UNUSED, *_SILENT, *(_OUR_FIELDS if ours else ()))
    try:
        _fill(draft, draft.mapping(description, "", known))
    except InputError as error:
        error.where = error.where or source
        raise
    return draft.done(_OUR_REQUIRED if ours else _REQUIRED)


def _fill(draft: Draft, given: Mapping[str, Any]) -> None:
    for section in SECTIONS:
        value = given.get(section)
        draft.put(section, dict(value) if isinstance(value, Mapping) else value, section)
    draft.put("name", given.get("name"), "name")
    _task(draft, given)
    _teacher(draft, given)
    draft.put("student", _model(draft, given.get("student_model"), "student_model"), "student_model")
    draft.job["data"] = {}
    for key, name in (("data.train", "training_data"), ("data.validation", "validation_data"), ("data.test", "test_data")):
        draft.put(key, _data(draft, given.get(name), name), name)
    _teacher_settings(draft, given.get("teacher_model_settings"))
    _prompt_settings(draft, given.get("prompt_settings"))
    _hyperparameters(draft, given.get("hyperparameters"))
    for name, why in _UNUSED.items():
        if given.get(name):
            draft.note(name, why)


def _task(draft: Draft, given: Mapping[str, Any]) -> None:
    kind = given.get("data_generation_type")
    if kind is not None and str(kind).casefold() != "label_generation":
        draft.refuse("data_generation_type", kind, f"label_generation; {NOT_BUILT}")
    for name in ("data_generation_task_type", "task_type"):
        task = given.get(name)
        draft.put("task", TASKS.get(task.upper(), task.lower()) if isinstance(task, str) else task, name)


def _teacher(draft: Draft, given: Mapping[str, Any]) -> None:
    draft.put("teacher", _model(draft, given.get("teacher_model"), "teacher_model"), "teacher_model")
    if given.get("teacher_model_endpoint_connection") is None:
        return
    if "teacher" in draft.job:
        raise InputError(
            "'teacher_model' and 'teacher_model_endpoint_connection' both name a teacher", where=draft.source,
            expected="one of the two",
        )
    teacher = _connection(draft, given["teacher_model_endpoint_connection"], "teacher_model_endpoint_connection")
    draft.put("teacher", teacher, "teacher_model_endpoint_connection")
    draft.fields["teacher.endpoint"] = "teacher_model_endpoint_connection.endpoint"


def _connection(draft: Draft, value: Any, field: str) -> dict[str, Any]:
    """The teacher behind a connection. Its key goes nowhere but into `draft.api_key`."""
    connection = draft.mapping(value, field, _CONNECTION)
    address = next((connection[name] for name in _ADDRESSES if connection.get(name) is not None), None)
    if not isinstance(address, str) or not address.startswith(("http://", "https://")):
        raise InputError(f"'{field}' has no endpoint that can be asked", where=draft.source, expected="endpoint: https://host/v1")
    name = str(connection.get("name") or "teacher")
    metadata = connection.get("metadata")
    model = metadata.get("model") if isinstance(metadata, Mapping) else None
    if model is None:
        draft.note(field, f"the model is asked for as '{name}', the connection's name: no metadata.model")
    teacher: dict[str, Any] = {"model": model or name, "endpoint": base_url(address)}
    text = _key_of(draft, connection, field)
    if text is None:
        if str(connection.get("type")).casefold() != "serverless":
            return teacher
        return {**teacher, "api_key_env": key_variable(name)}
    variable = named_variable(text)
    if variable is None:
        variable = key_variable(name)
        draft.api_key = ApiKey(variable, text)
    return {**teacher, "api_key_env": variable}


def _key_of(draft: Draft, connection: Mapping[str, Any], field: str) -> str | None:
    credentials = connection.get("credentials")
    kind = credentials.get("type") if isinstance(credentials, Mapping) else None
    if kind not in (None, "api_key", "none"):
        draft.refuse(f"{field}.credentials.type", kind, f"api_key or none; {NOT_BUILT}")
    inner = credentials.get("key") if isinstance(credentials, Mapping) else None
    text = connection.get("api_key") or inner
    return str(text) if text else None


def _model(draft: Draft, value: Any, field: str) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):  # an Input of Azure's, or a mapping of ours
        path = value["path"]
        if not path.startswith("azureml:"):
            return {name: local_path(path, field) if name == "path" else value[name] for name in value if name not in _INPUT}
        value = path
    if not isinstance(value, str):
        return value
    name, note = model_name(value, field)
    draft.notes += [note] if note else []
    return name


def _data(draft: Draft, value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        value = draft.mapping(value, field, ("path", *_INPUT)).get("path")
    return local_path(value, field) if isinstance(value, str) else value


def _teacher_settings(draft: Draft, value: Any) -> None:
    name = "teacher_model_settings"
    settings = draft.mapping(value, name, ("inference_parameters", "endpoint_request_settings"))
    field = f"{name}.inference_parameters"
    given = draft.mapping(settings.get("inference_parameters"), field, (*INFERENCE_PARAMETERS, *_UNUSED_INFERENCE))
    for parameter, key in INFERENCE_PARAMETERS.items():
        draft.put(key, given.get(parameter), f"{field}.{parameter}")
    for parameter, why in _UNUSED_INFERENCE.items():
        if given.get(parameter):
            draft.note(f"{field}.{parameter}", why)
    field = f"{name}.endpoint_request_settings"
    requests = draft.mapping(
        settings.get("endpoint_request_settings"), field, ("request_batch_size", "min_endpoint_success_ratio")
    )
    teacher = draft.job.get("teacher")
    if teacher is not None and requests.get("request_batch_size") is not None:
        draft.job["teacher"] = {"model": teacher} if isinstance(teacher, str) else teacher
        draft.put("teacher.concurrency", requests["request_batch_size"], f"{field}.request_batch_size")
    if requests.get("min_endpoint_success_ratio") is not None:
        draft.note(f"{field}.min_endpoint_success_ratio", "not used: the job fails where fewer than 16 training rows are kept")


def _prompt_settings(draft: Draft, value: Any) -> None:
    name = "prompt_settings"
    names = ("enable_chain_of_thought", "enable_chain_of_density", "max_len_summary")
    settings = draft.mapping(value, name, names)
    for ours, theirs in zip(("chain_of_thought", "chain_of_density"), names, strict=False):
        draft.put(f"generation.{ours}", settings.get(theirs) or None, f"{name}.{theirs}")
    if settings.get(names[2]) is not None:
        told = "not used: the gold summaries set a summary's length, without them 80 words; a row's max_words its own"
        draft.note(f"{name}.{names[2]}", told)


def _hyperparameters(draft: Draft, value: Any) -> None:
    name = "hyperparameters"
    given = draft.mapping(value, name, (*HYPERPARAMETERS, "learning_rate_multiplier"))
    for parameter, key in HYPERPARAMETERS.items():
        draft.put(key, given.get(parameter), f"{name}.{parameter}")
    if given.get("learning_rate_multiplier") is not None:
        draft.note(f"{name}.learning_rate_multiplier", "not used: the learning rate itself is hyperparameters.learning_rate")
    training = draft.job.get("training")
    if isinstance(training, Mapping) and training.get("method") in _COMPARES_DISTRIBUTIONS:
        draft.put("training.temperature", given.get("temperature"), f"{name}.temperature")
