"""Azure's descriptions as jobs of ours and back, the key that goes nowhere, and a note on everything that is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from potstill.errors import InputError, ModelNotFoundError
from potstill.service.any_job import load_any_job
from potstill.service.azure_description import AzureJob, left_out, read_azure_job, write_azure_job
from potstill.service.azure_fields import translate
from potstill.spec import JobSpec, load_job, parse_job
from service.azure_jobs import KEY, KEY_VARIABLE, description, write_description

CONNECTION = "teacher_model_endpoint_connection"
INFERENCE = "teacher_model_settings.inference_parameters"


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Reading a description sets variables."""
    with patch.dict(os.environ):
        os.environ.pop(KEY_VARIABLE, None)
        yield


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """Reads a description with changes."""

    def call(**changes: Any) -> AzureJob:
        return read_azure_job(write_description(tmp_path / "azure.yml", **changes))

    return call


def connection(**values: Any) -> dict[str, Any]:
    return {"type": "serverless", "name": "llama-405b", "endpoint": "https://example.invalid/v1", **values}


def job(folder: Path, **sections: Any) -> JobSpec:
    """A job of ours that Azure can express."""
    given = {
        "task": "qa", "teacher": "deepseek-v3", "student": "phi-4-mini",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"}, **sections,
    }
    return parse_job(given, source="test", folder=folder, default_name="support")


def test_every_field_with_a_counterpart_is_read(read: Any, tmp_path: Path) -> None:
    spec = read().spec
    assert (spec.name, spec.task, spec.student.model) == ("support-distill", "conversation", "llama-3.1-8b")
    assert (spec.teacher.model, spec.teacher.endpoint) == ("llama-405b", "https://example.invalid/v1")
    assert (spec.teacher.api_key_env, spec.teacher.concurrency) == (KEY_VARIABLE, 10)
    assert (spec.data.train, spec.data.validation) == (str(tmp_path / "train.jsonl"), str(tmp_path / "validation.jsonl"))
    generation, training = spec.generation, spec.training
    assert (generation.temperature, generation.max_tokens, generation.top_p) == (0.6, 256, 0.9)
    assert (training.learning_rate, training.batch_size, training.num_epochs) == (3e-5, 4, 2)


@pytest.mark.parametrize(
    ("task", "field", "key"),
    [("NLI", "enable_chain_of_thought", "chain_of_thought"), ("SUMMARIZATION", "enable_chain_of_density", "chain_of_density")],
)
def test_the_ways_to_ask_are_those_of_azure(read: Any, task: str, field: str, key: str) -> None:
    spec = read(data_generation_task_type=task, prompt_settings={field: True}).spec
    assert getattr(spec.generation, key) is True
    assert yaml.safe_load(write_azure_job(spec))["prompt_settings"][field] is True
    assert not any(note.startswith("generation.chain") for note in left_out(spec))
    other = "SUMMARIZATION" if task == "NLI" else "NLI"
    with pytest.raises(InputError, match=rf"'prompt_settings\.{field}' is for"):
        read(data_generation_task_type=other, prompt_settings={field: True})


def test_what_is_lost_is_told_field_by_field(read: Any) -> None:
    lost = {"inference_parameters": {"stop": ["END"], "presence_penalty": 0.5, "frequency_penalty": 0}}
    notes = read(
        teacher_model_settings={**lost, "endpoint_request_settings": {"min_endpoint_success_ratio": 0.7}},
        prompt_settings={"max_len_summary": 60}, tags={"team": "support"}, compute="azureml:cluster",
        hyperparameters={"learning_rate_multiplier": "0.2", "n_epochs": "5"}, properties={"a": "b"},
        **{CONNECTION: connection(api_key="${SOME_KEY}")},
    ).notes
    assert sorted(note.partition(": ")[0] for note in notes) == sorted([
        "compute", "experiment_name", "hyperparameters.learning_rate_multiplier", "outputs", "prompt_settings.max_len_summary",
        "properties", "resources", "student_model", "tags", CONNECTION, f"{INFERENCE}.stop", f"{INFERENCE}.presence_penalty",
        "teacher_model_settings.endpoint_request_settings.min_endpoint_success_ratio",
    ])
    assert all("\n" not in note for note in notes)


class TestTheKey:
    def test_is_taken_out_with_a_warning_and_is_there_for_the_run(self, read: Any, tmp_path: Path) -> None:
        azure = read()
        assert os.environ[KEY_VARIABLE] == KEY
        assert azure.api_key_variable == KEY_VARIABLE
        assert KEY not in repr(azure)
        assert azure.notes[0].startswith(f"{tmp_path / 'azure.yml'} holds an API key in clear text: move it")
        assert KEY_VARIABLE in azure.notes[0]

    def test_stands_by_itself_while_a_description_is_translated(self) -> None:
        translated = translate(description(), source="test")
        assert translated.api_key is not None
        assert (translated.api_key.variable, translated.api_key.value) == (KEY_VARIABLE, KEY)
        assert KEY not in repr(translated)

    def test_of_the_environment_comes_first(self, read: Any) -> None:
        os.environ[KEY_VARIABLE] = "another"
        azure = read()
        assert os.environ[KEY_VARIABLE] == "another"
        assert azure.notes[-1] == f"{KEY_VARIABLE} of the environment is used, not the key of the description"

    @pytest.mark.parametrize("shape", ["api_key", "credentials", "both"])
    def test_is_found_where_the_sdk_puts_it(self, read: Any, shape: str) -> None:
        parts: dict[str, Any] = {"api_key": KEY, "credentials": {"type": "api_key", "key": KEY}}
        kept = parts if shape == "both" else {shape: parts[shape]}
        read(**{CONNECTION: connection(**kept)})
        assert os.environ[KEY_VARIABLE] == KEY

    def test_that_the_service_copied_into_the_properties_is_not_read(self, read: Any) -> None:
        azure = read(properties={"azureml.connection_information": f'{{"api_key": "{KEY}"}}'})
        assert KEY not in repr(azure)

    def test_by_its_variable_needs_no_warning(self, read: Any) -> None:
        azure = read(**{CONNECTION: connection(api_key="${MY_TEACHER_KEY}")})
        assert azure.spec.teacher.api_key_env == azure.api_key_variable == "MY_TEACHER_KEY"
        assert "MY_TEACHER_KEY" not in os.environ
        assert not any("clear text" in note for note in azure.notes)

    def test_may_be_missing(self, read: Any) -> None:
        assert read(**{CONNECTION: connection()}).spec.teacher.api_key_env == KEY_VARIABLE
        keyless = {"type": "custom", "name": "mine", "target": "http://127.0.0.1:9/v1", "credentials": {"type": "none"}}
        assert read(**{CONNECTION: keyless}).spec.teacher.api_key_env is None

    @pytest.mark.parametrize(
        "wrong",
        [
            {"hyperparameters": {"learning_rate": "much"}},
            {CONNECTION: connection(api_key=KEY, endpoint=f"{KEY}.invalid")},
            {CONNECTION: connection(apikey=KEY)},
            {CONNECTION: KEY},
            {CONNECTION: connection(credentials={"type": "sas", "key": KEY})},
            {CONNECTION: connection(api_key=KEY, metadata={"model": 5})},
        ],
    )
    def test_is_in_no_error(self, read: Any, wrong: dict[str, Any]) -> None:
        with pytest.raises(InputError) as error:
            read(**wrong)
        assert KEY not in str(error.value) + str(error.value.as_json())


def test_the_model_of_an_endpoint_is_the_connections_name_or_its_metadata(read: Any) -> None:
    assert read().spec.teacher.model == "llama-405b"
    named = read(**{CONNECTION: connection(metadata={"model": "Llama-3.1"})})
    assert named.spec.teacher.model == "Llama-3.1"
    assert not any(note.startswith(CONNECTION) for note in named.notes)


def test_a_registrys_student_is_the_catalogues_and_a_path_stays_a_path(read: Any, tmp_path: Path) -> None:
    azures = {"type": "mlflow_model", "path": "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"}
    assert read(student_model=azures).spec.student.model == "phi-4-mini"
    for path in ("./phi", "azureml:./phi", "file:./phi", "phi"):
        spec = read(student_model={"type": "custom_model", "path": path}).spec
        assert (spec.student.path, spec.student.model) == (str(tmp_path / "phi"), None)


def test_a_student_that_leads_nowhere_is_named_with_its_file(read: Any) -> None:
    with pytest.raises(ModelNotFoundError, match="'student_model' names a model that the catalogue does not know") as error:
        read(student_model="azureml://registries/azureml-meta/models/Llama-9/versions/1")
    assert str(error.value.where).endswith("azure.yml")


@pytest.mark.parametrize(
    ("changes", "what", "expected"),
    [
        ({"prompt_settings": {"enable_chain_of_thought": "maybe"}}, "settings.enable_chain_of_thought'", "true or false"),
        ({"data_generation_type": "data_generation"}, "'data_generation_type'", "label_generation; nothing else is built yet"),
        ({"data_generation_task_type": "POETRY"}, "'data_generation_task_type'", "one of nli"),
        ({"hyperparameters": {"learning_rate": "-1"}}, "'hyperparameters.learning_rate'", "greater than 0"),
        ({"hyperparameters": {"lora_r": "8"}}, "'hyperparameters.lora_r'", "one of learning_rate, batch_size"),
        ({"hyperparameters": ["x"]}, "'hyperparameters'", "a mapping"),
        ({"teacher_model_settings": {"inference_parameters": {"temperature": 9}}}, f"'{INFERENCE}.temperature'", "2"),
        ({"teacher_model_settings": {"inference_parameters": {"top_k": 9}}}, f"'{INFERENCE}.top_k'", "max_tokens"),
        ({"teacher_model_settings": {"endpoint_request_settings": {"request_batch_size": 0}}}, "request_batch_size'", "1"),
        ({"training_data": None}, "required key 'training_data'", "a file"),
        ({"student_model": None}, "required key 'student_model'", "a name"),
        ({CONNECTION: None}, f"required key '{CONNECTION}'", "a name"),
        ({"name": "a/b"}, "'name'", "letters"),
        ({"trainig_data": "x"}, "unknown field 'trainig_data'", "training_data"),
    ],
)
def test_a_wrong_field_is_named_as_azure_names_it(read: Any, changes: dict[str, Any], what: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        read(**changes)
    assert what in error.value.what
    assert expected in str(error.value.expected)
    assert "azure.yml" in str(error.value.where)
    assert len(error.value.lines()) <= 6


def test_a_wrong_value_is_found_on_its_line(tmp_path: Path) -> None:
    path = write_description(tmp_path / "azure.yml", hyperparameters={"batch_size": "2", "learning_rate": "much"})
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "learning_rate" in text)
    with pytest.raises(InputError) as error:
        read_azure_job(path)
    assert error.value.where == f"{path}, line {line}"


def test_two_fields_may_agree_but_not_contradict(read: Any) -> None:
    agree = {"batch_size": "2", "per_device_train_batch_size": 2}
    assert read(hyperparameters=agree).spec.training.batch_size == 2
    with pytest.raises(InputError, match="contradict each other") as error:
        read(hyperparameters={**agree, "per_device_train_batch_size": 3})
    assert "'hyperparameters.batch_size' and 'hyperparameters.per_device_train_batch_size'" in error.value.what


def test_a_job_file_of_either_kind_is_loaded(tmp_path: Path) -> None:
    azure = write_description(tmp_path / "azure.yml")
    spec, notes = load_any_job(azure)
    assert (spec, notes) == (read_azure_job(azure).spec, read_azure_job(azure).notes)
    ours = tmp_path / "ours.yaml"
    ours.write_text("task: qa\nteacher: deepseek-v3\nstudent: phi-4-mini\ndata: {train: rows.jsonl}\n")
    assert load_any_job(ours) == (load_job(ours), ())
    with pytest.raises(InputError, match="the job file does not exist"):
        load_any_job(tmp_path / "absent.yml")


def test_a_description_without_a_name_has_that_of_its_file(read: Any) -> None:
    assert read(name=None).spec.name == "azure"


class TestWriting:
    def test_what_is_written_is_read_as_the_same_job(self, tmp_path: Path) -> None:
        spec = job(
            tmp_path, teacher={"model": "m/1", "endpoint": "https://h.invalid/v1", "api_key_env": "K", "concurrency": 64},
            generation={"temperature": 0.3, "top_p": 0.8, "max_tokens": 99},
            training={"learning_rate": 1.5e-6, "batch_size": 3, "num_epochs": 1.5},
        )
        path = tmp_path / "azure.yml"
        path.write_text(write_azure_job(spec, folder=tmp_path))
        assert read_azure_job(path).spec == spec

    def test_a_teacher_of_the_catalogue_is_written_as_its_endpoint(self, tmp_path: Path) -> None:
        written = yaml.safe_load(write_azure_job(job(tmp_path)))[CONNECTION]
        assert (written["endpoint"], written["metadata"]) == (
            "https://api.deepseek.com/v1/chat/completions", {"model": "deepseek-chat"},
        )

    def test_never_writes_a_key(self, tmp_path: Path) -> None:
        os.environ["DEEPSEEK_API_KEY"] = KEY
        text = write_azure_job(job(tmp_path))
        assert KEY not in text
        assert yaml.safe_load(text)[CONNECTION]["api_key"] == "${DEEPSEEK_API_KEY}"

    def test_an_endpoint_without_a_key_stays_without(self, tmp_path: Path) -> None:
        spec = job(tmp_path, teacher={"model": "m", "endpoint": "http://127.0.0.1:9/v1"})
        path = tmp_path / "azure.yml"
        path.write_text(write_azure_job(spec))
        assert read_azure_job(path).spec.teacher == spec.teacher

    def test_paths_are_relative_to_the_file_where_they_can(self, tmp_path: Path) -> None:
        spec = job(tmp_path / "sub", student={"path": "student"})
        written = yaml.safe_load(write_azure_job(spec, folder=tmp_path))
        assert written["training_data"]["path"] == "./sub/train.jsonl"
        assert written["student_model"] == {"type": "custom_model", "path": "./sub/student"}
        elsewhere = yaml.safe_load(write_azure_job(spec, folder=tmp_path / "other"))
        assert elsewhere["training_data"]["path"] == str(tmp_path / "sub" / "train.jsonl")

    @pytest.mark.parametrize(
        ("sections", "what"),
        [
            ({"task": "classification"}, "Azure has no such task"),
            ({"data": {"train": "t.jsonl"}}, "Azure has no job without validation data"),
            ({"student": "qwen3-0.6b"}, "Azure has no such student"),
            ({"teacher": "llama-3.1-70b"}, "Azure has no teachers but endpoints"),
            ({"teacher": ["llama-3.1-70b", "llama-3.1-8b"]}, "Azure has no job with several teachers"),
        ],
    )
    def test_what_azure_cannot_express_is_refused(self, tmp_path: Path, sections: dict[str, Any], what: str) -> None:
        with pytest.raises(InputError, match=what):
            write_azure_job(job(tmp_path, **sections))

    def test_what_azure_has_no_field_for_is_told(self, tmp_path: Path) -> None:
        spec = job(
            tmp_path, curation={"verify": "none"}, training={"seed": 7}, export=["gguf:f16"],
            student={"model": "phi-4-mini", "adapter": {"r": 8}},
            data={"train": "t.csv", "validation": "v.jsonl", "test": "x.jsonl"}, generation={"temperature": 1.5},
        )
        notes = [note.partition(": ")[0] for note in left_out(spec)]
        assert set(notes) == {
            "curation.verify", "training.seed", "export.formats", "student.adapter", "data.test", "generation.temperature",
            str(tmp_path / "t.csv"), "the key is not written",
        }
