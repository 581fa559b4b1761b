"""Models, data, addresses and keys as Azure names them, in our names and back."""

from __future__ import annotations

import pytest

from potstill.errors import InputError, ModelNotFoundError
from potstill.service.azure_models import (
    base_url,
    chat_url,
    key_variable,
    local_path,
    model_name,
    named_variable,
    placeholder,
    registry_id,
)
from potstill.spec import StudentSpec

META = "azureml://registries/azureml-meta/models"
PHI = "azureml://registries/azureml/models/Phi-4-mini-instruct"


@pytest.fixture(autouse=True)
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POTSTILL_CATALOG", raising=False)


@pytest.mark.parametrize(
    ("azures", "ours", "lost"),
    [
        (f"{META}/Meta-Llama-3.1-8B-Instruct/versions/2", "llama-3.1-8b", "version 2"),
        (f"{META}/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", None),
        (f"{PHI}/labels/latest", "phi-4-mini", None),
        ("azureml://registries/elsewhere/models/phi-3.5-mini-instruct", "phi-3.5-mini", None),
        ("azureml:phi-4-mini:3", "phi-4-mini", "azureml:phi-4-mini:3"),
        ("azureml:./student.gguf", "./student.gguf", None),
        ("azureml:student.gguf", "student.gguf", None),
        ("file:///models/phi", "/models/phi", None),
        ("microsoft/Phi-4-mini-instruct", "microsoft/Phi-4-mini-instruct", None),
    ],
)
def test_a_model_gets_our_name_and_a_note_where_something_is_lost(azures: str, ours: str, lost: str | None) -> None:
    name, note = model_name(azures, "student_model")
    assert name == ours
    assert (note is None) if lost is None else (lost in str(note) and str(note).startswith("student_model: "))


def test_a_registrys_model_that_the_catalogue_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(ModelNotFoundError, match="'student_model'") as error:
        model_name(f"{META}/Llama-9/versions/1", "student_model")
    known = str(error.value.expected)
    assert "Meta-Llama-3.1-8B-Instruct" in known
    assert "405B" not in known  # known by an endpoint alone, so no student


def test_a_model_of_a_workspace_cannot_be_reached() -> None:
    with pytest.raises(InputError, match="Azure workspace, which cannot be reached"):
        model_name("azureml:my-own-model:1", "student_model")


def test_models_have_their_ids_back() -> None:
    for name in ("llama-3.1-8b", "Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"):
        assert registry_id(StudentSpec(model=name)) == f"{META}/Meta-Llama-3.1-8B-Instruct/labels/latest"
    assert registry_id(StudentSpec(model="qwen3-0.6b")) is None
    assert registry_id(StudentSpec(path="/models/phi")) is None


@pytest.mark.parametrize(
    ("azures", "ours"),
    [
        ("./rows.jsonl", "./rows.jsonl"), ("azureml:./rows.jsonl", "./rows.jsonl"), ("azureml:rows.jsonl", "rows.jsonl"),
        ("azureml:/data/rows.jsonl", "/data/rows.jsonl"), ("file:./rows.jsonl", "./rows.jsonl"), ("org/set", "org/set"),
    ],
)
def test_a_file_of_this_machine_has_a_path(azures: str, ours: str) -> None:
    assert local_path(azures, "training_data") == ours


@pytest.mark.parametrize(
    "elsewhere",
    [
        "azureml:rows:1", "azureml:rows.v2:1", "azureml:rows@latest", "azureml:rows", "https://host.invalid/rows.jsonl",
        "azureml://datastores/store/paths/rows.jsonl", "wasbs://c@a.blob.core.windows.net/rows.jsonl",
    ],
)
def test_data_elsewhere_cannot_be_reached(elsewhere: str) -> None:
    with pytest.raises(InputError, match="'training_data' lies where it cannot be reached from here") as error:
        local_path(elsewhere, "training_data")
    assert error.value.found == elsewhere


@pytest.mark.parametrize(
    ("azures", "ours", "written"),
    [
        ("https://h.invalid/chat/completions", "https://h.invalid", "https://h.invalid/chat/completions"),
        ("https://h.invalid/v1/chat/completions", "https://h.invalid/v1", "https://h.invalid/v1/chat/completions"),
        ("https://h.invalid", "https://h.invalid/v1", "https://h.invalid/v1/chat/completions"),
        ("https://h.invalid/v1/", "https://h.invalid/v1", "https://h.invalid/v1/chat/completions"),
        ("https://h.invalid/m?v=1", "https://h.invalid/m?v=1", "https://h.invalid/m/chat/completions?v=1"),
    ],
)
def test_our_addresses_end_before_the_path_that_azure_writes(azures: str, ours: str, written: str) -> None:
    assert base_url(azures) == ours
    assert chat_url(ours) == written
    assert base_url(written) == ours


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("llama-405b", "LLAMA_405B_API_KEY"), ("405b", "TEACHER_405B_API_KEY"), ("a.b  c", "A_B_C_API_KEY"),
        ("---", "TEACHER_API_KEY"),
    ],
)
def test_a_connections_name_gives_a_variable_that_a_placeholder_names(name: str, variable: str) -> None:
    assert key_variable(name) == variable
    assert named_variable(placeholder(variable)) == variable


@pytest.mark.parametrize("key", ["sk-1234", "$KEY", "${}", "${A} ${B}", "${1A}"])
def test_a_key_is_no_placeholder(key: str) -> None:
    assert named_variable(key) is None
