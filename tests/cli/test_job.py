"""`potstill job convert`, and Azure's descriptions where a job file is expected."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from cli.conftest import Cli
from loopback import Messages, serve_in_thread
from potstill.service.azure_description import read_azure_job
from potstill.spec import load_job
from service.azure_jobs import KEY, KEY_VARIABLE, description, write_description

OURS = "task: qa\nteacher: gpt-4o\nstudent: phi-4-mini\ndata: {train: t.jsonl, validation: v.jsonl}\n"
WORDS = ("bell", "chain", "frame", "glove", "helmet", "lamp", "pedal", "pump")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Reading a description sets variables."""
    with patch.dict(os.environ):
        os.environ.pop(KEY_VARIABLE, None)
        yield


@pytest.fixture
def azure(work: Path) -> Path:
    return write_description(work / "azure.yml")


@pytest.fixture
def ours(work: Path) -> Path:
    (work / "ours.yaml").write_text(OURS)
    return work / "ours.yaml"


def files_with(text: str, folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


class TestConvert:
    def test_makes_a_job_file_of_a_description(self, cli: Cli, azure: Path, work: Path) -> None:
        done = cli("job", "convert", "azure.yml", "--out", "job.yaml")
        assert (done.code, done.out) == (0, "wrote job.yaml\n")
        assert load_job(work / "job.yaml") == read_azure_job(azure).spec
        written = yaml.safe_load((work / "job.yaml").read_text())
        assert (written["student"], written["data"]["train"]) == ("llama-3.1-8b", "./train.jsonl")
        assert "curation" not in written  # nothing but its defaults
        notes = done.err.splitlines()
        assert notes[0].startswith("note: azure.yml holds an API key in clear text")
        assert all(note.startswith("note: ") for note in notes)

    def test_makes_a_description_of_a_job_file(self, cli: Cli, ours: Path, work: Path) -> None:
        done = cli("job", "convert", "ours.yaml", "--out", "azure.yml")
        assert (done.code, done.out) == (0, "wrote azure.yml\n")
        spec, back = load_job(ours), read_azure_job(work / "azure.yml").spec
        assert (back.name, back.task, back.student, back.data) == (spec.name, spec.task, spec.student, spec.data)
        assert (back.generation, back.training) == (spec.generation, spec.training)
        assert "note: the key is not written" in done.err

    def test_without_a_file_prints_what_it_would_write(self, cli: Cli, ours: Path, work: Path) -> None:
        done = cli("job", "convert", "ours.yaml")
        assert yaml.safe_load(done.out)["type"] == "distillation"
        assert sorted(path.name for path in work.iterdir()) == ["ours.yaml"]

    def test_to_its_own_kind_tidies(self, cli: Cli, azure: Path, ours: Path) -> None:
        assert yaml.safe_load(cli("job", "convert", "azure.yml", "--to", "azure").out)["type"] == "distillation"
        assert yaml.safe_load(cli("job", "convert", "ours.yaml", "--to", "potstill").out)["task"] == "qa"

    @pytest.mark.usefixtures("azure")
    def test_never_overwrites(self, cli: Cli, work: Path) -> None:
        (work / "job.yaml").write_text("mine")
        done = cli("job", "convert", "azure.yml", "--out", "job.yaml")
        assert (done.code, done.out) == (2, "")
        assert "exists already" in done.err
        assert (work / "job.yaml").read_text() == "mine"

    @pytest.mark.usefixtures("azure")
    def test_the_key_is_nowhere_but_where_it_was(self, cli: Cli, work: Path) -> None:
        for arguments in (["--out", "job.yaml"], ["--to", "azure", "--out", "again.yml"], ["--json"], []):
            done = cli("job", "convert", "azure.yml", *arguments)
            assert done.code == 0, done.err
            assert KEY not in done.out + done.err
        assert files_with(KEY, work) == ["azure.yml"]

    @pytest.mark.usefixtures("azure")
    def test_as_json_tells_the_file_and_the_notes(self, cli: Cli, work: Path) -> None:
        done = cli("job", "convert", "azure.yml", "--out", "job.yaml", "--json")
        assert done.err == ""
        told = json.loads(done.out)
        assert set(told) == {"file", "notes"}
        assert told["file"] == "job.yaml"
        assert told["notes"] == [line.removeprefix("note: ") for line in cli("job", "convert", "azure.yml").err.splitlines()]
        printed = json.loads(cli("job", "convert", "azure.yml", "--json").out)
        assert printed["file"] is None
        assert yaml.safe_load(printed["text"])["task"] == "conversation"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["absent.yaml"], "the job file does not exist"),
            (["ours.yaml", "--to", "sagemaker"], "azure, potstill"),
            (["ours.yaml", "--out", "no/such/folder.yml"], "the folder does not exist"),
            (["wrong.yml"], "'hyperparameters.learning_rate'"),
            (["text.yaml"], "Azure has no such task"),
        ],
    )
    @pytest.mark.usefixtures("ours")
    def test_wrong_input_is_named(self, cli: Cli, work: Path, arguments: list[str], says: str) -> None:
        write_description(work / "wrong.yml", hyperparameters={"learning_rate": "much"})
        (work / "text.yaml").write_text(OURS.replace("task: qa", "task: text"))
        before = sorted(work.rglob("*"))
        done = cli("job", "convert", *arguments)
        assert (done.code, done.out) == (2, "")
        assert says in done.err
        assert len(done.err.splitlines()) <= 6
        assert sorted(work.rglob("*")) == before


def write_dialogues(path: Path, sizes: range) -> None:
    asked = [f"Where is my {word} of size {size}?" for word in WORDS for size in sizes]
    rows = ({"messages": [{"role": "system", "content": "Help."}, {"role": "user", "content": text}]} for text in asked)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def runnable(work: Path, tiny_student: Path) -> Any:
    """Writes a description that runs here, at an endpoint."""
    write_dialogues(work / "train.jsonl", range(4))
    write_dialogues(work / "validation.jsonl", range(4, 6))

    def write(endpoint: str) -> Path:
        connection = {**description()["teacher_model_endpoint_connection"], "endpoint": endpoint}
        return write_description(
            work / "azure.yml", teacher_model_endpoint_connection=connection,
            student_model={"type": "custom_model", "path": str(tiny_student)},
        )

    return write


def answer(messages: Messages) -> str:
    return f"This is about: {messages[-1]['content'].rstrip('?')}."


def test_a_description_runs_as_it_stands_and_its_key_reaches_the_endpoint_alone(cli: Cli, work: Path, runnable: Any) -> None:
    with serve_in_thread(answer) as server:
        runnable(server.base_url)
        done = cli("run", "azure.yml", "--until", "generate")
    assert done.code == 0, done.err
    assert "note: azure.yml holds an API key in clear text" in done.err
    run = work / "runs" / "support-distill"
    assert load_job(run / "job.yaml") == read_azure_job(work / "azure.yml").spec
    assert len((run / "generated" / "train.jsonl").read_text().splitlines()) > 16
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in done.out + done.err
    assert files_with(KEY, work) == ["azure.yml"]


def test_check_looks_at_a_description_too(cli: Cli, runnable: Any) -> None:
    runnable("http://127.0.0.1:9/v1")
    done = cli("check", "azure.yml", "--offline")
    assert done.code == 0, done.out + done.err
    assert "note: outputs: not used" in done.err
    assert "llama-405b at http://127.0.0.1:9/v1" in done.out
    assert KEY not in done.out + done.err


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_field_is_named_as_azure_names_it(cli: Cli, work: Path, command: str) -> None:
    write_description(work / "azure.yml", prompt_settings={"enable_chain_of_density": True})
    done = cli(command, "azure.yml")
    assert done.code == 2
    assert "'prompt_settings.enable_chain_of_density' is for summarization" in done.err + done.out
    assert not (work / "runs").exists()
