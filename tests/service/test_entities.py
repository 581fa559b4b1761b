"""`DistillationJob`: our short fields, Azure's and their mixture become one job; what is wrong is named by its field."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from potstill.entities import (
    ApiKeyConfiguration,
    AssetTypes,
    DataGenerationTaskType,
    DistillationJob,
    EndpointRequestSettings,
    Input,
    Output,
    PromptSettings,
    ServerlessConnection,
    TeacherModelSettings,
    WorkspaceConnection,
    distillation,
)
from potstill.errors import InputError
from potstill.service.azure_fields import translate
from potstill.service.entities import make_name
from potstill.spec import JobSpec, parse_job
from service.azure_jobs import KEY, KEY_VARIABLE

SHORT: dict[str, Any] = {
    "teacher_model": "deepseek-v3", "student_model": "phi-4-mini", "training_data": "./train.jsonl",
    "task_type": "conversation",
}


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """A connection's key goes into the environment."""
    with patch.dict(os.environ):
        os.environ.pop(KEY_VARIABLE, None)
        yield


def ours(folder: Path, **sections: Any) -> JobSpec:
    given = {
        "task": "conversation", "teacher": "deepseek-v3", "student": "phi-4-mini", "data": {"train": "./train.jsonl"},
        **sections,
    }
    return parse_job(given, source="test", folder=folder, default_name="support")


def serverless(**values: Any) -> ServerlessConnection:
    return ServerlessConnection(name="llama-405b", endpoint="https://example.invalid/v1", **values)


def test_short_fields_make_the_job_that_a_job_file_makes(tmp_path: Path) -> None:
    job = DistillationJob(
        **SHORT, validation_data=Path("v.jsonl"), test_data="org/set", name="support",
        hyperparameters={"learning_rate": 3e-5, "batch_size": 4, "num_epochs": 2, "temperature": 0.4},
    )
    data = {"train": "./train.jsonl", "validation": "v.jsonl", "test": "org/set"}
    training = {"learning_rate": 3e-5, "batch_size": 4, "num_epochs": 2}
    assert job.to_job_spec(tmp_path) == ours(tmp_path, data=data, training=training, generation={"temperature": 0.4})


def test_hyperparameters_may_be_texts_under_either_name(tmp_path: Path) -> None:
    texts = {"learning_rate": "0.00003", "per_device_train_batch_size": "4", "num_train_epochs": "2", "temperature": "0.4"}
    numbers = {"learning_rate": 3e-5, "batch_size": 4, "num_epochs": 2, "temperature": 0.4}
    jobs = [DistillationJob(**SHORT, name="a", hyperparameters=given).to_job_spec(tmp_path) for given in (texts, numbers)]
    assert jobs[0] == jobs[1]


def test_sections_are_those_of_a_job_file(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "generation": {"max_tokens": 64}, "curation": {"verify": "none"}, "training": {"seed": 3},
        "evaluation": {"models": ["distilled"]}, "export": ["gguf:f16"],
    }
    student = {"model": "phi-4-mini", "adapter": {"type": "lora", "r": 8}}
    job = DistillationJob(**{**SHORT, "student_model": student}, name="support", **sections)
    assert job.to_job_spec(tmp_path) == ours(tmp_path, student=student, **sections)
    assert sections["training"] == {"seed": 3}  # the caller's mapping is not changed


def test_a_section_and_a_hyperparameter_must_not_contradict(tmp_path: Path) -> None:
    job = DistillationJob(**SHORT, training={"batch_size": 4}, hyperparameters={"batch_size": "4"})
    assert job.to_job_spec(tmp_path).training.batch_size == 4
    job.set_finetuning_settings({"batch_size": "5"})
    with pytest.raises(InputError, match=r"'training.batch_size' and 'hyperparameters.batch_size' contradict each other"):
        job.to_job_spec(tmp_path)


@pytest.mark.parametrize(
    ("method", "expected"), [(None, None), ("sft", None), ("kd", 0.7), ("on_policy", 0.7)],
)
def test_the_temperature_softens_distributions_where_they_are_compared(method: str | None, expected: float | None) -> None:
    """Asked of the translation itself, because the job file knows no such method yet."""
    training = {"method": method} if method else {}
    translated = translate({"training": training, "hyperparameters": {"temperature": 0.7}}, source="test", ours=True)
    assert translated.job["training"].get("temperature") == expected
    assert translated.job["generation"]["temperature"] == 0.7


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ({"task_type": "NLU_QA"}, "qa"), ({"task_type": "qa"}, "qa"), ({"task_type": "Summarization"}, "summarization"),
        ({"task_type": "CLASSIFICATION"}, "classification"), ({"data_generation_task_type": "nli"}, "nli"),
        ({"data_generation_task_type": DataGenerationTaskType.MATH, "task_type": "math"}, "math"),
    ],
)
def test_a_task_has_our_name_or_azures_in_any_case(tmp_path: Path, given: dict[str, str], task: str) -> None:
    assert DistillationJob(**{**SHORT, "task_type": None, **given}).to_job_spec(tmp_path).task == task


class TestNames:
    def test_a_job_without_one_gets_one_and_keeps_it(self, tmp_path: Path) -> None:
        job = DistillationJob(**SHORT)
        first = job.to_job_spec(tmp_path).name
        assert re.fullmatch(r"phi-4-mini-conversation-[0-9a-f]{6}", first)
        assert job.name == job.to_job_spec(tmp_path).name == first
        assert DistillationJob(**SHORT).to_job_spec(tmp_path).name != first

    @pytest.mark.parametrize(
        "student", ["phi-4-mini", "org/Model_1.5B (new)", "../my student/", "/", "", "x" * 300, r"C:\models\small", "ö"]
    )
    def test_are_valid_for_every_student(self, tmp_path: Path, student: str) -> None:
        name = make_name(student, "qa")
        assert ours(tmp_path, name=name).name == name

    def test_labels_are_kept_on_the_entity_and_do_not_change_the_job(self, tmp_path: Path) -> None:
        labels = {"display_name": "A", "description": "B", "tags": {"c": "d"}, "experiment_name": "E"}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            labelled = DistillationJob(**SHORT, name="support", **labels)
            assert labelled.to_job_spec(tmp_path) == ours(tmp_path)
        assert labelled.labels == labels
        assert DistillationJob(**SHORT, display_name="A").labels == {"display_name": "A"}


class TestAzuresFields:
    def test_a_connection_is_the_teacher_and_its_key_goes_to_the_environment(self, tmp_path: Path) -> None:
        job = DistillationJob(**{**SHORT, "teacher_model": None}, teacher_model_endpoint_connection=serverless(api_key=KEY))
        with pytest.warns(UserWarning, match="the model is asked for as 'llama-405b'"):
            spec = job.to_job_spec(tmp_path)
        assert (spec.teacher.endpoint, spec.teacher.api_key_env) == ("https://example.invalid/v1", KEY_VARIABLE)
        assert os.environ[KEY_VARIABLE] == KEY
        assert KEY not in repr(job) + repr(spec)

    def test_a_plain_connection_holds_its_key_in_credentials(self, tmp_path: Path) -> None:
        connection = WorkspaceConnection(
            type="custom", name="llama-405b", target="https://example.invalid/v1", metadata={"model": "m"},
            credentials=ApiKeyConfiguration(key=KEY),
        )
        job = DistillationJob(**{**SHORT, "teacher_model": None}, teacher_model_endpoint_connection=connection)
        assert job.to_job_spec(tmp_path).teacher.model == "m"
        assert os.environ[KEY_VARIABLE] == KEY
        assert KEY not in repr(job)

    def test_settings_are_set_as_in_the_sdk(self, tmp_path: Path) -> None:
        job = DistillationJob(**SHORT)
        job.set_teacher_model_settings({"temperature": 0.2, "max_tokens": 9}, EndpointRequestSettings(request_batch_size=7))
        job.set_prompt_settings(PromptSettings(max_len_summary=60))
        job.set_prompt_settings(None)
        job.set_finetuning_settings({"num_train_epochs": "5"})
        job.set_finetuning_settings(None)
        with pytest.warns(UserWarning, match=r"prompt_settings\.max_len_summary: not used"):
            spec = job.to_job_spec(tmp_path)
        assert (spec.generation.temperature, spec.generation.max_tokens, spec.training.num_epochs) == (0.2, 9, 5)
        assert (spec.teacher.model, spec.teacher.concurrency) == ("deepseek-v3", 7)
        job.set_teacher_model_settings()
        assert job.teacher_model_settings == TeacherModelSettings()

    def test_a_registrys_model_is_the_catalogues_for_student_and_teacher(self, tmp_path: Path) -> None:
        student = Input(type=AssetTypes.MLFLOW_MODEL, path="azureml://registries/azureml/models/Phi-4-mini-instruct/labels/latest")
        teacher = "azureml://registries/azureml-meta/models/Meta-Llama-3.1-405B-Instruct"
        spec = DistillationJob(**{**SHORT, "student_model": student, "teacher_model": teacher}).to_job_spec(tmp_path)
        assert (spec.student.model, spec.teacher.model) == ("phi-4-mini", "llama-3.1-405b")

    def test_the_builder_makes_the_same_job(self, tmp_path: Path) -> None:
        fields: dict[str, Any] = {
            "experiment_name": "e", "data_generation_type": "label_generation", "data_generation_task_type": "NLI",
            "teacher_model_endpoint_connection": serverless(api_key=KEY, metadata={"model": "m"}),
            "student_model": "phi-4-mini", "training_data": "t.jsonl", "validation_data": "v.jsonl", "name": "nli",
        }
        assert distillation(**fields) == DistillationJob(**fields)
        assert distillation(**fields).to_job_spec(tmp_path).data.validation == str(tmp_path / "v.jsonl")

    def test_what_has_no_counterpart_is_told(self, tmp_path: Path) -> None:
        job = DistillationJob(**SHORT, outputs={"registered_model": Output(type="mlflow_model", name="x")})
        with pytest.warns(UserWarning, match="outputs: not used"):
            job.to_job_spec(tmp_path)


@pytest.mark.parametrize(
    ("changes", "what", "says"),
    [
        ({"task_type": None}, "'task_type' is missing", "one of nli"),
        ({"task_type": "poetry"}, "'task_type'", "one of nli"),
        ({"teacher_model": None}, "'teacher_model' is missing", "a name"),
        ({"student_model": None}, "'student_model' is missing", "a name"),
        ({"training_data": None}, "'training_data' is missing", "a file"),
        ({"training_data": 5}, "'training_data'", "a file"),
        ({"hyperparameters": {"lr": 1}}, "unknown field 'hyperparameters.lr'", "learning_rate, batch_size"),
        ({"hyperparameters": {"batch_size": "many"}}, "'hyperparameters.batch_size'", "a whole number"),
        ({"hyperparameters": {"num_train_epochs": 0}}, "'hyperparameters.num_train_epochs'", "greater than 0"),
        ({"hyperparameters": {"temperature": "hot"}}, "'hyperparameters.temperature'", "a number"),
        ({"training": {"learning_rte": 1}}, "unknown key 'training.learning_rte'", "learning_rate"),
        ({"training": "fast"}, "'training'", "a mapping"),
        ({"student_model": {"model": "m", "shrink": {"layers": 0}}}, "'student_model.shrink.layers'", "1"),
        ({"prompt_settings": PromptSettings(enable_chain_of_thought=5)}, "settings.enable_chain_of_thought'", "true or false"),
        ({"name": "a/b"}, "'name'", "letters"),
        ({"teacher_model_endpoint_connection": serverless(api_key=KEY)}, "both name a teacher", "one of the two"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(tmp_path: Path, changes: dict[str, Any], what: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        DistillationJob(**{**SHORT, **changes}).to_job_spec(tmp_path)
    assert what in error.value.what
    assert says in str(error.value.expected)
    assert error.value.where == "the DistillationJob"
    assert KEY not in str(error.value.as_json())


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    job = DistillationJob(**{**SHORT, "student_model": 5}, hyperparameters={"learning_rate": 0, "num_epochs": 0})
    with pytest.raises(InputError) as error:
        job.to_job_spec(tmp_path)
    assert "wrong too: hyperparameters.learning_rate, hyperparameters.num_epochs" in str(error.value.hint)
