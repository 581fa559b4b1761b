"""The cards: front matter the hub can read, and nothing that was not measured."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from potstill.reporting import dataset_card, headline, model_card, result_table
from reporting.synthetic_run import Run, make_run


def parts(card: str) -> tuple[dict[str, Any], str]:
    empty, matter, body = card.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(matter), body


def job_of(run: Run) -> dict[str, Any]:
    return run.job.model_dump(mode="json")


def table_cells(body: str, number: int) -> list[list[str]]:
    """The cells of a table of the text, as a Markdown reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    tables: list[list[list[str]]] = []
    for token, following in pairwise(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            tables[-1][-1].append(following.content)
    return tables[number]


def test_the_model_card_says_what_is_known_of_a_student_of_the_hub() -> None:
    front, body = parts(model_card(*_run_and_job(student="phi-4-mini")))
    assert front["base_model"] == "microsoft/Phi-4-mini-instruct"
    assert front["license"] == "mit"
    assert front["library_name"] == "transformers"
    assert front["pipeline_tag"] == "text-generation"
    assert {"distillation", "gguf"} <= set(front["tags"])
    assert "language" not in front
    assert body.lstrip().startswith("# support")


def _run_and_job(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    run = make_run(**changes)
    return run.report, job_of(run)


def test_what_is_not_known_of_a_student_is_left_out() -> None:
    front, body = parts(model_card(*_run_and_job(student={"path": "/data/secret-project/my-model"})))
    assert "base_model" not in front
    assert "license" not in front
    assert "my-model" in body


def test_the_results_are_those_of_the_report(conversation: Run) -> None:
    _, body = parts(model_card(conversation.report, job_of(conversation)))
    assert table_cells(body, 0) == result_table(conversation.report)
    assert headline(conversation.report) in body
    assert all(note in body for note in conversation.report["assumptions"] if not note.startswith(("teacher:", "baseline:")))


def test_the_model_card_says_how_to_run_what_was_exported(conversation: Run) -> None:
    job = job_of(conversation)
    _, body = parts(model_card(conversation.report, job))
    assert "llama-server -m exports/student.Q8_0.gguf" in body
    assert "ollama create support -f exports/Modelfile" in body
    _, body = parts(model_card(conversation.report, {**job, "export": {**job["export"], "formats": []}}))
    assert "gguf" not in body
    assert 'pipeline("text-generation", model="student")' in body


def test_the_model_card_has_the_settings_of_the_training() -> None:
    student = {"model": "phi-4-mini", "adapter": {"type": "lora", "r": 16}}
    _, body = parts(model_card(*_run_and_job(student=student, training={"gradient_accumulation_steps": 4})))
    settings = dict(table_cells(body, 1)[1:])
    assert settings["Adapter"] == "LoRA of rank 16, merged"
    assert settings["Batch size"] == "8"
    assert settings["Kept checkpoint"] == "step 70, epoch 2"


def test_limits_name_what_was_not_measured_and_whom_the_scores_favour(conversation: Run) -> None:
    report = copy.deepcopy(conversation.report)
    report["models"]["distilled"]["cost_per_1k_requests"] = None
    report["training"] = None
    _, body = parts(model_card(report, job_of(conversation)))
    assert "Not measured: cost per 1,000 requests." in body
    assert "The references are the teacher's own answers" in body
    assert "Kept checkpoint" not in body


def test_the_dataset_card_tells_where_rows_come_from_and_which_are_missing(conversation: Run) -> None:
    front, body = parts(dataset_card(conversation.report, job_of(conversation)))
    assert front["task_categories"] == ["text-generation"]
    assert front["size_categories"] == ["n<1K"]
    assert [entry["path"] for entry in front["configs"][0]["data_files"]] == ["curated/train.jsonl", "curated/validation.jsonl"]
    assert "license" not in front
    assert "train (`train.jsonl`): 280 rows" in body
    assert "276 train and 31 validation rows" in body
    assert "at temperature 0.7" in body
    assert table_cells(body, 0)[1:] == [
        ["no usable reply came back", "1"],
        ["another row asks nearly the same", "2"],
        ["the answer was cut off by the token limit", "1"],
    ]


def test_a_run_that_rejected_nothing_says_so_and_one_that_did_not_count_does_not(conversation: Run) -> None:
    report, job = copy.deepcopy(conversation.report), job_of(conversation)
    report["counts"].update(rejected={}, unanswered=0)
    assert "every row was answered and kept" in dataset_card(report, job)
    report["counts"] = dict.fromkeys(report["counts"])
    card = dataset_card(report, job)
    assert "every row was answered and kept" not in card
    assert "size_categories" not in parts(card)[0]


@pytest.mark.parametrize("card", [model_card, dataset_card])
def test_no_path_of_the_machine_is_told(card: Any) -> None:
    run = make_run(student={"path": "/data/secret-project/my-model"}, teacher={"path": "/data/secret-project/big.gguf"})
    text = card(run.report, job_of(run))
    assert "secret-project" not in text
    assert "/data" not in text
