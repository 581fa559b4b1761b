"""`potstill schema`: what it says about a job file is what reading one says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from cli.conftest import Cli
from potstill.errors import InputError
from potstill.job_schema import job_schema
from potstill.pipeline.samples import write_samples
from potstill.spec import TaskName, dump_job, load_job, parse_job

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))
SMALLEST: dict[str, Any] = {"task": "qa", "teacher": "t", "student": "s", "data": {"train": "rows.jsonl"}}
GOOD: list[dict[str, Any]] = [
    {},
    {"teacher": {"model": "m", "endpoint": "https://host/v1", "api_key_env": "KEY", "concurrency": 8}},
    {"teacher": ["a", {"model": "b", "endpoint": "https://host/v1", "weight": 2.5, "name": "second"}]},
    {"teacher": [{"model": "a", "routes": ["x", 7]}, "b"], "generation": {"strategy": "route", "route_by": "meta.topic"}},
    {"teacher": ["a", "b"], "generation": {"strategy": "vote", "samples": 3}},
    {"generation": {"samples": 4, "select": "best"}},
    {"student": {"path": "model", "shrink": {"layers": 3}, "adapter": {"type": "lora", "r": 4}}},
    {"export": ["gguf:f16"]},
    {"export": []},
    {"export": {"formats": ["gguf:q8_0", "gguf:f16"], "max_quality_loss": 0.1}},
    {"evaluation": {"metrics": ["accuracy"], "models": ["distilled"], "judge": None}},
    {"evaluation": {"judge": "deepseek-v3"}},
    {"evaluation": {"judge": {"path": "a.gguf", "rubric": "Rhymes.", "scale": "0-1", "pairwise": False, "allow_self": True}}},
    {"generation": {"budget_usd": 0.5, "budget_tokens": 9, "min_teacher_score": 0.5}},
    {"generation": {"temperature": 0, "budget_usd": None}, "training": {"loss": {"ce": 2}, "num_epochs": 0.5}},
]
WRONG: list[dict[str, Any]] = [
    {"colour": "red"},
    {"task": "poetry"},
    {"name": "a/b"},
    {"teacher": []},
    {"teacher": ["a", {"wight": 2}]},
    {"teacher": ["a", {"model": "b", "weight": 0}]},
    {"teacher": {"model": "a", "weight": 2}},
    {"teacher": {}},
    {"teacher": {"model": "a", "path": "b"}},
    {"teacher": {"path": "b", "endpoint": "https://host/v1"}},
    {"teacher": {"model": "a", "endpoint": "host/v1"}},
    {"teacher": {"model": "a", "endpoint": "https://me:secret@host/v1"}},
    {"student": {"model": "a", "shrink": {"layers": 0}}},
    {"student": {"model": "a", "shrink": {}}},
    {"data": "rows.jsonl"},
    {"data": {"validation": "rows.jsonl"}},
    {"data": {"train": "rows.jsonl", "on_bad_row": "ignore"}},
    {"generation": {"temperature": 3}},
    {"generation": {"samples": 0}},
    {"generation": {"samples": 2, "select": "most"}},
    {"generation": {"strategy": "route", "route_by": "topic"}},
    {"generation": {"budget_usd": 0}},
    {"generation": {"budget_tokens": 0.5}},
    {"generation": {"min_teacher_score": 60}},
    {"training": {"method": "rl"}},
    {"training": {"learning_rte": 1}},
    {"training": {"batch_size": "many"}},
    {"training": {"loss": {"kl": 1}}},
    {"training": {"method": "kd", "temperature": [[0, 1, 2]]}},
    {"training": {"loss": {}}},
    {"evaluation": {"models": []}},
    {"evaluation": {"models": ["teacher", "teacher"]}},
    {"evaluation": {"metrics": 5}},
    {"evaluation": {"judge": {"rubric": "Rhymes."}}},
    {"evaluation": {"judge": {"model": "a", "rubric": ""}}},
    {"evaluation": {"judge": {"model": "a", "scale": "1-10"}}},
    {"evaluation": {"judge": {"model": "a", "shrink": {"layers": 2}}}},
    {"export": ["gguf:q3"]},
    {"export": "gguf:f16"},
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = job_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def read(values: dict[str, Any], folder: Path) -> None:
    parse_job(values, source="test", folder=folder, default_name="job")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(validator: Draft202012Validator, path: Path) -> None:
    validator.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("task", get_args(TaskName))
def test_what_init_writes_is_valid_and_stays_so_in_a_run_folder(
    validator: Draft202012Validator, tmp_path: Path, task: str
) -> None:
    written, _ = write_samples(task, tmp_path)
    validator.validate(yaml.safe_load(written.read_text()))
    validator.validate(yaml.safe_load(dump_job(load_job(written))))


@pytest.mark.parametrize("change", GOOD, ids=str)
def test_what_can_be_read_is_valid(validator: Draft202012Validator, tmp_path: Path, change: dict[str, Any]) -> None:
    values = {**SMALLEST, **change}
    read(values, tmp_path)
    validator.validate(values)


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_cannot_be_read_is_not(validator: Draft202012Validator, tmp_path: Path, change: dict[str, Any]) -> None:
    values = {**SMALLEST, **change}
    with pytest.raises(InputError):
        read(values, tmp_path)
    assert not validator.is_valid(values)


@pytest.mark.parametrize("key", SMALLEST)
def test_required_keys(validator: Draft202012Validator, key: str) -> None:
    assert not validator.is_valid({name: value for name, value in SMALLEST.items() if name != key})


def keys_of(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for definition in (schema, *schema["$defs"].values()):
        yield from definition["properties"].items()


def test_every_key_has_a_description() -> None:
    """Its own, or that of the section it leads to."""
    schema = job_schema()
    undescribed = [
        name for name, key in keys_of(schema)
        if not key.get("description") and not schema["$defs"][key["$ref"].rpartition("/")[2]].get("description")
    ]
    assert undescribed == []


def test_keys_with_one_value_say_so() -> None:
    for _, key in keys_of(job_schema()):
        only = key.get("type") == "null" or "const" in key
        assert only == key.get("description", "").endswith(f"Only {json.dumps(key.get('const'))} yet.")


def test_the_command_prints_or_writes_it(cli: Cli, work: Path) -> None:
    done = cli("schema")
    assert done.code == 0
    assert json.loads(done.out) == job_schema()
    assert job_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert cli("schema", "--out", "job.schema.json").code == 0
    assert json.loads((work / "job.schema.json").read_text()) == job_schema()


def test_a_place_that_cannot_be_written_is_the_machines_fault(cli: Cli, work: Path) -> None:
    done = cli("schema", "--out", "absent/job.schema.json")
    assert (done.code, done.out) == (1, "")
    assert "where: absent/job.schema.json" in done.err
    assert list(work.iterdir()) == []
