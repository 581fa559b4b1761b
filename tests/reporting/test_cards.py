"""The cards: front matter the hub can read, and nothing that was not measured."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from potstill.reporting import RowsMade, dataset_card, headline, model_card, result_table
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


MADE = RowsMade(
    rejected={"near_duplicate": {"train": 2}, "truncated": {"validation": 1}},
    examples={"near_duplicate": "asks nearly the same as row 7 | here", "truncated": "it ends with 'and then'"},
)


def section(body: str, title: str) -> str:
    return body.split(f"## {title}\n\n", 1)[1].split("\n\n## ", 1)[0]


def test_the_dataset_card_tells_where_rows_come_from_and_which_are_missing(conversation: Run) -> None:
    front, body = parts(dataset_card(conversation.report, job_of(conversation), MADE))
    assert front["task_categories"] == ["text-generation"]
    assert front["size_categories"] == ["n<1K"]
    assert [entry["path"] for entry in front["configs"][0]["data_files"]] == ["curated/train.jsonl", "curated/validation.jsonl"]
    assert "license" not in front
    assert "train (`train.jsonl`): 280 rows" in body
    assert "276 train and 31 validation rows" in body
    assert dict(table_cells(body, 0)[1:])["Temperature"] == "0.7"
    assert table_cells(body, 1) == [
        ["Why", "train", "validation", "For example"],
        ["another row asks nearly the same", "2", "0", "asks nearly the same as row 7 | here"],
        ["the answer was cut off by the token limit", "0", "1", "it ends with 'and then'"],
    ]
    assert "To 1 row no usable reply came back" in body


def test_a_run_that_rejected_nothing_says_so_and_one_that_did_not_count_does_not(conversation: Run) -> None:
    report, job = copy.deepcopy(conversation.report), job_of(conversation)
    report["counts"].update(rejected={}, unanswered=0)
    assert "every row was answered and kept" in dataset_card(report, job, RowsMade())
    report["counts"] = dict.fromkeys(report["counts"])
    text = dataset_card(report, job, RowsMade())
    assert section(text, "What was left out") == section(text, "Personal data") == "That was not recorded."
    assert "## Diversity" not in text
    assert "size_categories" not in parts(text)[0]


def test_the_dataset_card_tells_the_terms_of_each_teacher(tmp_path: Path) -> None:
    known, unknown = make_run(teacher="gpt-4o"), make_run(teacher={"path": str(tmp_path / "gone.gguf")})
    told = section(dataset_card(known.report, job_of(known), MADE), "What they may be used for")
    assert "- gpt-4o: OpenAI's terms forbid" in told
    assert "read them: https://openai.com/policies/ (looked up on 2" in told
    assert "licence is proprietary" not in told
    told = section(dataset_card(unknown.report, job_of(unknown), MADE), "What they may be used for")
    assert "- gone.gguf: it is no longer where it was" in told
    free = make_run(teacher="llama-3.1-8b")
    told = section(dataset_card(free.report, job_of(free), MADE), "What they may be used for")
    assert "- llama-3.1-8b: its licence is llama3.1; under the Llama 3.1 licence" in told


def test_the_dataset_card_compares_several_teachers(conversation: Run) -> None:
    entry = {
        "asked": 156, "answered": 155, "score": None, "kept": 138, "share": 0.5, "requests": 156, "prompt_tokens": 900,
        "completion_tokens": 800, "cost_usd": None,
    }
    report = {**conversation.report, "teachers": [{"name": "one", **entry}, {"name": "other", **entry}]}
    run = make_run(teacher=["gpt-4o", {"model": "llama-3.1-8b", "name": "other"}])
    text = dataset_card(report, job_of(run), MADE)
    assert "gpt-4o and other answered the rows" in text
    assert [row[0] for row in table_cells(text, 1)] == ["Teacher", "one", "other"]
    terms = section(text, "What they may be used for")
    assert "- gpt-4o: OpenAI's terms" in terms
    assert "- other: its licence is llama3.1" in terms


def test_the_dataset_card_tells_which_prompts_a_teacher_wrote(conversation: Run) -> None:
    ways = {"grow": 40, "persona": 50}
    prompts = {"asked": 120, "written": 90, "kept": 366, "rejected": {"prompt_too_near": 30}, "ways": ways}
    text = dataset_card(conversation.report, job_of(conversation), RowsMade(generated={"prompts": prompts}))
    assert "90 rows (40 by grow, 50 by persona), out of 120 asked for" in section(text, "Where the rows come from")
    assert "not a gold answer" in section(text, "Where the rows come from")
    assert ["the new prompt was too near to one that was there", "30", "0", ""] in table_cells(text, 1)


def test_the_dataset_card_tells_diversity_and_personal_data_as_curation_found_them(conversation: Run) -> None:
    texts = {"distinct_1": 0.25, "distinct_2": 0.75, "self_bleu": None}
    curated = {
        "diversity": {
            "sampled": 276, "prompts": texts, "answers": {**texts, "distinct_1": 0.5},
            "clusters": 27, "cluster_coverage": 0.963, "cluster_evenness": 0.912,
        },
        "noticed": {
            "train": {"shares_8_words": 0, "personal_data": {"email": 3, "phone": 1}},
            "validation": {"shares_8_words": 0, "personal_data": {"email": 1}},
        },
    }
    run = make_run(curation={"personal_data": "redact"})
    text = dataset_card(run.report, job_of(run), RowsMade(curated=curated, rejected=MADE.rejected))
    assert table_cells(text, 2)[1:] == [
        ["Different words among all", "0.250", "0.500"],
        ["Different pairs of words among all", "0.750", "0.750"],
        ["Self-BLEU (the lower, the more diverse)", "–", "–"],
    ]
    assert "27 clusters" in section(text, "Diversity")
    assert "Found: email in 4 rows, phone in 1 row. It was replaced by placeholders" in section(text, "Personal data")
    nothing = {**curated, "noticed": {"train": {"shares_8_words": 0, "personal_data": {}}}}
    text = dataset_card(conversation.report, job_of(conversation), RowsMade(curated=nothing))
    assert "None was found by these patterns." in section(text, "Personal data")


@pytest.mark.parametrize("card", [model_card, lambda report, job: dataset_card(report, job, MADE)], ids=["model", "rows"])
def test_no_path_of_the_machine_is_told(card: Any) -> None:
    run = make_run(student={"path": "/data/secret-project/my-model"}, teacher={"path": "/data/secret-project/big.gguf"})
    text = card(run.report, job_of(run))
    assert "secret-project" not in text
    assert "/data" not in text
