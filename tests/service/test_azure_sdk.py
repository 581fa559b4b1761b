"""The Azure ML SDK itself, in an environment of its own, on what we write and what it writes; `make test` builds it."""

from __future__ import annotations

import inspect
import json
import os
import runpy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from potstill import entities
from potstill.service.azure_description import read_azure_job, write_azure_job
from potstill.spec import parse_job
from service.azure_jobs import KEY, KEY_VARIABLE, write_description

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(__file__).with_name("ask_azure_sdk.py")
# Of an Input of Azure's these are for numbers and the like, which a distillation job does not read.
NOT_OURS = {"Input": {"default", "optional", "min", "max", "enum", "path_on_compute"}}
PHI = "azureml://registries/azureml/models/Phi-4-mini-instruct/versions/1"

# As Azure's own notebooks have it; their student is a text, which the SDK cannot dump again.
NOTEBOOK = f"""
job = distillation(
    name="nli-distill",
    experiment_name="llama-nli-distillation",
    data_generation_type=DataGenerationType.LABEL_GENERATION,
    data_generation_task_type=DataGenerationTaskType.NLI,
    teacher_model_endpoint_connection=ServerlessConnection(
        name="llama-405b", endpoint="https://llama-405b.invalid/chat/completions", api_key="{KEY}",
    ),
    student_model=Input(type=AssetTypes.MLFLOW_MODEL, path="{PHI}"),
    training_data=Input(type=AssetTypes.URI_FILE, path="train.jsonl"),
    validation_data=Input(type=AssetTypes.URI_FILE, path="validation.jsonl"),
    resources=ResourceConfiguration(instance_type="Standard_D2_v2"),
    outputs={{"registered_model": Output(type="mlflow_model", name="nli-distilled")}},
)
job.set_teacher_model_settings(
    inference_parameters={{"temperature": 0.8, "top_p": 0.9}},
    endpoint_request_settings=EndpointRequestSettings(min_endpoint_success_ratio=0.7, request_batch_size=10),
)
job.set_prompt_settings(prompt_settings=PromptSettings(enable_chain_of_thought=False))
job.set_finetuning_settings(
    hyperparameters={{"learning_rate": "0.00002", "per_device_train_batch_size": "1", "num_train_epochs": "3"}}
)
"""


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Reading a description sets variables."""
    with patch.dict(os.environ):
        os.environ.pop(KEY_VARIABLE, None)
        yield


@pytest.fixture(scope="session")
def sdk() -> Callable[..., str]:
    """Asks the SDK; the test is skipped where it is absent."""
    folder = ROOT / os.environ.get("AZURE_VENV", ".venv-azure")
    python = next((path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists()), None)
    if python is None:
        pytest.skip(f"the Azure ML SDK is not here ({folder}): make .venv-azure/.ready")

    def ask(*arguments: str | Path) -> str:
        done = subprocess.run([python, SCRIPT, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


def test_what_we_write_comes_back_from_the_sdk_as_the_same_job(sdk: Callable[..., str], tmp_path: Path) -> None:
    jobs: dict[str, dict[str, Any]] = {
        "catalogue": {"task": "nli", "student": "llama-3.1-8b"},
        "endpoint": {
            "task": "qa", "student": "phi-4-mini",
            "teacher": {"model": "vendor/m", "endpoint": "https://h.invalid/v1", "api_key_env": "A_KEY", "concurrency": 64},
            "generation": {"temperature": 0.3, "top_p": 0.8, "max_tokens": 99},
            "training": {"learning_rate": 1.5e-6, "batch_size": 3, "num_epochs": 1.5},
        },
        "folder": {"task": "math", "student": {"path": "student"}},
        "keyless": {"task": "summarization", "student": "phi-4", "teacher": {"model": "m", "endpoint": "http://127.0.0.1:9/v1"}},
        "dialogue": {"task": "conversation", "student": "phi-3.5-mini"},
    }
    expected = {}
    arguments: list[str | Path] = []
    for name, sections in jobs.items():
        given = {"teacher": "gpt-4o", "data": {"train": "t.jsonl", "validation": "v.jsonl"}, **sections}
        spec = parse_job(given, source="test", folder=tmp_path, default_name=name)
        (tmp_path / f"{name}.yml").write_text(write_azure_job(spec, folder=tmp_path))
        if isinstance(given["teacher"], str):  # a name of the catalogue is written, and read, as its endpoint
            spec = read_azure_job(tmp_path / f"{name}.yml").spec
            assert spec.teacher.model == "gpt-4o"
        expected[name] = spec
        arguments += [tmp_path / f"{name}.yml", tmp_path / f"{name}-dumped.yml"]
    sdk("reload", *arguments)
    assert {name: read_azure_job(tmp_path / f"{name}-dumped.yml").spec for name in jobs} == expected


def test_what_the_sdk_dumps_reads_as_what_it_loaded(sdk: Callable[..., str], tmp_path: Path) -> None:
    source = write_description(tmp_path / "azure.yml", student_model={"type": "mlflow_model", "path": PHI})
    sdk("reload", source, tmp_path / "dumped.yml")
    dumped = read_azure_job(tmp_path / "dumped.yml")
    assert dumped.spec == read_azure_job(source).spec
    assert KEY in (tmp_path / "dumped.yml").read_text()  # as the SDK does it
    assert KEY not in repr(dumped)
    assert os.environ[KEY_VARIABLE] == KEY


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_for_the_sdk_makes_the_same_job_here(sdk: Callable[..., str], tmp_path: Path) -> None:
    code = tmp_path / "notebook.py"
    code.write_text(NOTEBOOK)
    sdk("code", code, tmp_path / "dumped.yml")
    names = {name: getattr(entities, name) for name in entities.__all__}
    job = runpy.run_path(str(code), init_globals=names)["job"]
    assert job.to_job_spec(tmp_path) == read_azure_job(tmp_path / "dumped.yml").spec
    assert yaml.safe_load((tmp_path / "dumped.yml").read_text())["type"] == "distillation"


def test_classes_take_what_those_of_the_sdk_take(sdk: Callable[..., str]) -> None:
    told = json.loads(sdk("signatures"))
    for name, parameters in told["parameters"].items():
        holder, _, method = name.partition(".")
        ours = getattr(entities, holder)
        taken = set(inspect.signature(getattr(ours, method) if method else ours).parameters)
        assert set(parameters) - NOT_OURS.get(name, set()) <= taken, name
    for name, members in told["members"].items():
        assert {member: getattr(getattr(entities, name), member) for member in members} == members
