"""The job file: defaults, shorthands, paths, and what is written back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from potstill.errors import InputError
from potstill.spec import JobSpec, dump_job, load_job, parse_job

SMALLEST = "task: qa\nteacher: deepseek-v3\nstudent: phi-4-mini\ndata: {train: rows.jsonl}\n"


def load(folder: Path, text: str, name: str = "support.yaml") -> JobSpec:
    (folder / name).write_text(text)
    return load_job(folder / name)


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    job = load(tmp_path, SMALLEST)
    assert job.name == "support"
    assert (job.teacher.model, job.student.model, job.data.on_bad_row) == ("deepseek-v3", "phi-4-mini", "fail")
    generation, curation, training = job.generation, job.curation, job.training
    assert (generation.temperature, generation.max_tokens, generation.samples) == (0.7, 512, 1)
    assert (curation.deduplicate, curation.decontaminate, curation.verify) == ("near", True, "auto")
    assert (training.method, training.learning_rate, training.batch_size, training.num_epochs) == ("sft", 2e-5, 2, 3)
    assert job.evaluation.models == ["teacher", "baseline", "distilled"]
    assert (job.export.formats, job.export.max_quality_loss) == (["gguf:q8_0"], 0.02)


def test_a_list_of_formats_is_an_export_section(tmp_path: Path) -> None:
    assert load(tmp_path, SMALLEST + "export: [gguf:f16]\n") == load(tmp_path, SMALLEST + "export: {formats: [gguf:f16]}\n")


def test_paths_start_at_the_job_file_and_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    text = SMALLEST.replace("deepseek-v3", "models/mine").replace("phi-4-mini", "~/small.gguf")
    job = load(tmp_path, text.replace("{train: rows.jsonl}", "{train: rows.jsonl, validation: org/set, test: ../t.csv}"))
    assert (job.teacher.path, job.teacher.model) == (str(tmp_path / "models" / "mine"), None)
    assert job.student.path == str(tmp_path / "home" / "small.gguf")
    assert job.data.train == str(tmp_path / "rows.jsonl")
    assert (job.data.validation, job.data.test) == ("org/set", str(tmp_path.parent / "t.csv"))
    # A name of the hub is no path, even where a file of that name could be.
    assert load(tmp_path, SMALLEST.replace("phi-4-mini", "org/model")).student.model == "org/model"


def test_what_is_written_back_reads_as_the_same_job(tmp_path: Path) -> None:
    student = "{model: phi-4-mini, shrink: {layers: 8}, adapter: {type: lora, r: 8}}"
    job = load(tmp_path, SMALLEST.replace("phi-4-mini", student) + "evaluation: {metrics: [accuracy]}\n")
    elsewhere = tmp_path / "run"
    elsewhere.mkdir()
    assert load(elsewhere, dump_job(job), "job.yaml") == job
    assert yaml.safe_load(dump_job(job))["training"]["warmup_ratio"] == 0.05


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("{}", "either 'model' or 'path'"),
        ("{model: a, path: b}", "either 'model' or 'path'"),
        ("{path: a, endpoint: 'http://host/v1'}", "an endpoint needs 'model'"),
        ("{model: a, endpoint: host/v1}", "http:// or https://"),
        ("{model: a, endpoint: 'https://me:secret@host/v1'}", "no password"),
    ],
)
def test_a_model_is_named_in_one_way(tmp_path: Path, model: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, SMALLEST.replace("deepseek-v3", model))
    assert error.value.what.startswith("'teacher': ")
    assert says in error.value.what
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("models", ["[]", "[teacher, teacher]"])
def test_each_model_is_measured_once(tmp_path: Path, models: str) -> None:
    with pytest.raises(InputError, match=r"evaluation\.models"):
        load(tmp_path, SMALLEST + f"evaluation: {{models: {models}}}\n")


def test_a_judge_is_named_as_any_model_is(tmp_path: Path) -> None:
    judge = load(tmp_path, SMALLEST + "evaluation: {judge: deepseek-r1}\n").evaluation.judge
    assert judge is not None
    assert (judge.model, judge.rubric, judge.scale) == ("deepseek-r1", None, "1-5")
    assert (judge.pairwise, judge.allow_self) == (True, False)
    job = load(tmp_path, SMALLEST + "evaluation: {judge: {model: ./judge.gguf, pairwise: false}}\n")
    assert job.evaluation.judge is not None
    assert job.evaluation.judge.path == str(tmp_path / "judge.gguf")
    assert load(tmp_path, dump_job(job)) == job


def test_a_job_given_as_a_mapping_names_its_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'student' is missing") as error:
        parse_job({"task": "qa", "teacher": "t"}, source="the caller", folder=tmp_path, default_name="job")
    assert (error.value.where, error.value.hint) == ("the caller", "wrong too: data")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("teacher: {model: a/b, server_args: [--x]}", "a server that is started"),
        ("teacher: {model: m, endpoint: 'http://h/v1', engine: vllm, server_args: [--x]}", "a server that is started"),
        ("teacher: {path: ./m, engine: anthropic}", "behind an endpoint"),
        ("teacher: {model: a/b, engine: vllm, batch: true}", "a vendor's endpoint"),
        ("student: {model: a/b, engine: vllm}", "not for the student"),
        ("student: {model: a/b, batch: true}", "not for the student"),
    ],
)
def test_keys_of_a_model_fit_together(tmp_path: Path, keys: str, says: str) -> None:
    section = keys.partition(":")[0]
    others = "".join(line + "\n" for line in SMALLEST.splitlines() if not line.startswith(section))
    with pytest.raises(InputError, match=says):
        load(tmp_path, others + keys + "\n")
