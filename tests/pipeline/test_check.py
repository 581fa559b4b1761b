"""What is looked at before a job starts, and what is told about it."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import LoopbackEndpoint
from potstill.errors import InputError, MachineError
from potstill.pipeline.check import Finding, check_job, locate, preflight
from potstill.spec import JobSpec, parse_job

EMBEDDED = "smollm2-135m-instruct"
PROMPT = "Describe the bell number {:02d} in short words"  # ten tokens at four bytes each, and four around them


def write_rows(folder: Path, count: int = 40, *, gold: bool = False) -> None:
    rows = [{"prompt": PROMPT.format(number), **({"completion": "A bell."} if gold else {})} for number in range(count)]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def job(folder: Path, **values: Any) -> JobSpec:
    base: dict[str, Any] = {"task": "text", "teacher": EMBEDDED, "student": EMBEDDED, "data": {"train": "rows.jsonl"}}
    return parse_job({**base, **values}, source="job.yaml", folder=folder, default_name="job")


def look(folder: Path, *, ask: bool = False, **values: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check_job(job(folder, **values), ask_endpoint=ask)}


def student_folder(folder: Path, parameters: int) -> Path:
    """A student of so many weights, all zero; its file is as long as they are and takes no room on the disk."""
    folder.mkdir()
    tensor = {"dtype": "F32", "shape": [parameters], "data_offsets": [0, 4 * parameters]}
    header = json.dumps({"model.layers.0.weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * parameters)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 6}))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "tokenizer.model").write_bytes(b"")
    return folder


pytestmark = pytest.mark.usefixtures("embedded_gguf")


def test_a_job_that_is_in_order(tmp_path: Path) -> None:
    write_rows(tmp_path)
    found = look(tmp_path)
    assert list(found) == ["data", "teacher", "student", "installed", "memory", "export", "lengths", "metrics"]
    assert [finding.error for finding in found.values()] == [None] * 8
    assert found["data"].text == "24 train, 8 validation, 8 test rows, 0 of 40 with a gold answer"
    assert found["teacher"].text.startswith(f"{EMBEDDED}: ")
    assert "135 million parameters" in found["memory"].text
    assert found["metrics"].text.endswith("the main one is rouge_l")
    assert found["data"].as_dict() == {"subject": "data", "ok": True, "text": found["data"].text, "error": None}


def test_everything_wrong_is_found_at_once(tmp_path: Path) -> None:
    found = look(tmp_path, teacher="nowhere", student="neither", evaluation={"metrics": ["sparkle", "bleu"]})
    wrong = {subject: finding.error for subject, finding in found.items() if finding.error is not None}
    assert {"data", "teacher", "student", "metrics"} <= set(wrong)
    for key in ("teacher", "student"):
        assert wrong[key].where == f"key '{key}' of the job file"
    assert wrong["metrics"].found == "sparkle"
    as_json = found["data"].as_dict()
    assert (as_json["ok"], as_json["error"]["where"]) == (False, str(tmp_path / "rows.jsonl"))


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path, gold=True)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("no JSON\n")
    text = look(tmp_path, data={"train": "rows.jsonl", "on_bad_row": "drop"})["data"].text
    assert text == "24 train, 8 validation, 8 test rows, 40 of 40 with a gold answer, 1 dropped"


def test_the_names_of_the_contract_are_metrics_too(tmp_path: Path) -> None:
    write_rows(tmp_path)
    finding = look(tmp_path, evaluation={"metrics": ["accuracy", "bleu_score", "inference_time"]})["metrics"]
    assert (finding.error, finding.text) == (None, "accuracy, bleu_score, inference_time")


def test_a_student_too_large_for_the_memory(tmp_path: Path) -> None:
    write_rows(tmp_path)
    path = str(student_folder(tmp_path / "large", 10**11))
    error = look(tmp_path, student={"path": path})["memory"].error
    assert isinstance(error, MachineError)
    assert error.expected == "about 1600.0 GB for 100000 million parameters"
    assert "lora" in str(error.hint)
    # What is left after layers are dropped is not known here, so that job may start.
    assert look(tmp_path, student={"path": path, "shrink": {"layers": 2}})["memory"].error is None
    # With an adapter the weights need no gradients and no moments of the optimiser.
    with_adapter = look(tmp_path, student={"path": path, "adapter": {"type": "lora"}})["memory"].error
    assert with_adapter is not None
    assert str(with_adapter.expected).startswith("about 600.0 GB")


def test_layers_are_counted_in_folders_and_gguf_files(tmp_path: Path) -> None:
    write_rows(tmp_path)
    path = str(student_folder(tmp_path / "small", 1000))
    for model, layers in (({"path": path}, 6), ({"model": EMBEDDED}, 30)):
        assert look(tmp_path, student={**model, "shrink": {"layers": layers}})["student"].error is None
        error = look(tmp_path, student={**model, "shrink": {"layers": layers + 1}})["student"].error
        assert error is not None
        assert (error.where, error.expected) == ("student.shrink.layers", f"1..{layers}")


def test_a_model_of_the_hub_is_not_asked_for(tmp_path: Path) -> None:
    write_rows(tmp_path)
    found = look(tmp_path, student="phi-4-mini")
    assert found["student"].text == "phi-4-mini: microsoft/Phi-4-mini-instruct of the hub"
    assert found["memory"].text == "unknown until the student is downloaded"


def test_an_endpoint_is_asked_once_and_only_where_that_is_wanted(tmp_path: Path, server: LoopbackEndpoint) -> None:
    write_rows(tmp_path)
    teacher = {"model": "loopback", "endpoint": server.base_url}
    seen = len(server.requests)
    assert {"endpoint", "price"}.isdisjoint(look(tmp_path, teacher=teacher))
    assert len(server.requests) == seen
    found = look(tmp_path, ask=True, teacher=teacher)
    assert re.fullmatch(r"answered in \d+\.\d\d s", found["endpoint"].text)
    assert found["price"].text.endswith("the price of loopback is not known")
    assert len(server.requests) == seen + 1


def test_a_teachers_terms_are_told_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")
    write_rows(tmp_path)
    finding = look(tmp_path, teacher="claude-haiku")["terms"]
    assert finding.error is None
    assert "train competing AI models" in finding.text
    assert "https://www.anthropic.com/legal/commercial-terms" in finding.text


def test_new_prompts_are_announced(tmp_path: Path) -> None:
    write_rows(tmp_path)
    text = look(tmp_path, generation={"mode": "prompts", "prompts": {"wanted": 100}})["prompts"].text
    assert text.startswith("24 of 24 train rows are models for new ones; 76 more are wanted, and up to 5 prompts")
    assert look(tmp_path, generation={"mode": "prompts", "prompts": {"wanted": 20}})["prompts"].text.startswith("none, unless")


def test_prompts_that_nobody_could_write_anew_are_refused(tmp_path: Path) -> None:
    rows = [{"question": f"Who rang bell {number}?", "context": f"Ann rang bell {number}."} for number in range(40)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = look(tmp_path, ask=True, task="qa", generation={"mode": "prompts"})
    error = found["prompts"].error
    assert "price" not in found  # it would say the same once more
    assert isinstance(error, InputError)
    assert error.where == "key 'generation.mode' of the job file"
    assert "about a context" in str(error.found)
    with pytest.raises(InputError, match="can be a model"):
        preflight(job(tmp_path, task="qa", generation={"mode": "prompts"}), tmp_path / "run")


# Where a job runs, and what is looked at before it does.


def test_preflight_raises_the_first_thing_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data file does not exist"):
        preflight(job(tmp_path, teacher="nowhere"), tmp_path / "run")
    write_rows(tmp_path)
    with pytest.raises(InputError, match="no model is called 'nowhere'"):
        preflight(job(tmp_path, teacher="nowhere"), tmp_path / "run")
    preflight(job(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_begun_does_not_need_its_sources(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.jsonl").write_text("")
    preflight(job(tmp_path), tmp_path / "run")


def test_where_a_job_runs(tmp_path: Path) -> None:
    text = f"{{task: text, teacher: {EMBEDDED}, student: {EMBEDDED}, data: {{train: rows.jsonl}}}}"
    (tmp_path / "support.yaml").write_text(text)
    runs = tmp_path / "runs"
    spec, root = locate(tmp_path / "support.yaml", runs)
    assert (spec.name, root) == ("support", runs / "support")

    run = runs / "support"
    run.mkdir(parents=True)
    (run / "job.yaml").write_text(text)
    # A folder with a job file in it is no run until something has happened in it.
    assert locate(run, runs)[1] == runs / "job"
    (run / "events.jsonl").write_text("")
    assert locate(run, runs)[1] == run
    assert locate(run / "job.yaml", runs)[1] == run


def test_where_nothing_can_be_written_nothing_starts(tmp_path: Path) -> None:
    write_rows(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="has to be") as error:
        preflight(job(tmp_path), tmp_path / "runs" / "job")
    assert error.value.where == str(tmp_path / "runs")


def test_rows_that_are_held_out_too_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path)
    first = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True)[:8]
    (tmp_path / "test.jsonl").write_bytes(b"".join(first))
    text = look(tmp_path, data={"train": "rows.jsonl", "test": "test.jsonl"})["data"].text
    train = int(text.partition(" ")[0])
    assert (train, text.endswith(" train rows are held out too")) == (32, True)


def test_a_template_that_refuses_the_rows_is_found_before_the_teacher_is_paid(tmp_path: Path, tiny_student: Path) -> None:
    rows = [{"text": f"Where is bell {number}?", "label": "ab"[number % 2]} for number in range(40)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    folder = tmp_path / "student"
    shutil.copytree(tiny_student, folder)
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    (folder / "chat_template.jinja").write_text(refusing)
    found = look(tmp_path, task="classification", student={"path": str(folder)})
    assert found["lengths"].error is not None
    assert "takes no system message" in found["lengths"].error.what


def test_a_model_of_the_hub_that_is_here_already_is_looked_at_as_a_folder(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_student, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    write_rows(tmp_path)
    found = look(tmp_path, ask=True, student="someone/tiny")
    assert "hub" not in found
    assert found["student"].text == "someone/tiny: someone/tiny of the hub"
    assert found["memory"].text.startswith("about 0.0 GB to train 2 million parameters")
    (cached / "snapshots" / "0123" / "model.safetensors").write_bytes(b"cut")
    assert look(tmp_path, student="someone/tiny")["student"].error is not None


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path)
    assert look(tmp_path, training={"trackers": ["tensorboard"]})["installed"].error is None
    error = look(tmp_path, training={"trackers": ["trackio"]})["installed"].error
    assert error is not None
    assert (error.found, error.hint) == ("trackio", "pip install trackio")


def test_a_launch_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path)
    error = look(tmp_path, training={"launch": "fsdp.yaml"})["installed"].error
    assert error is not None
    assert (error.what, error.where) == ("the launch file (training.launch) does not exist", str(tmp_path / "fsdp.yaml"))
    with pytest.raises(InputError, match="leave out 'processes'"):
        look(tmp_path, training={"launch": "fsdp.yaml", "processes": 2})


def test_the_tokens_of_a_folder_are_counted_by_its_tokenizer(tmp_path: Path, tiny_student: Path) -> None:
    """Its tokens are more than the words, and that many are still too few: the answer needs one more."""
    write_rows(tmp_path)
    student = {"path": str(tiny_student)}
    error = look(tmp_path, student=student, training={"max_length": 16})["lengths"].error
    assert error is not None
    shortest = int(re.findall(r"more than (\d+)", str(error.expected))[0])
    assert shortest > len(PROMPT.split())
    assert look(tmp_path, student=student, training={"max_length": shortest + 1})["lengths"].error is None
