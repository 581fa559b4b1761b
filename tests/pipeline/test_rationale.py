"""A whole job whose teacher reasons and whose student learns to: what is generated, trained on, and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from loopback import Messages, serve_in_thread
from pipeline.jobs import gold_answer, run_cli, topic_rows, write_job, write_rows_file
from potstill.rows import read_jsonl

ROWS = topic_rows(40)
GENERATION = {"chain_of_thought": True, "rationale": "train", "max_tokens": 40}


def reasoning(text: str) -> str:
    return f"The customer writes {len(text)} characters."


def reasons(messages: Messages) -> str:
    """JSON where it is asked for, else a marked last line."""
    label, thought = gold_answer(ROWS)(messages), reasoning(messages[-1]["content"])
    if "JSON" in messages[0]["content"]:
        return orjson.dumps({"reasoning": thought, "answer": label}).decode()
    return f"{thought}\nAnswer: {label}"


def question(row: dict[str, Any]) -> str:
    return next(message["content"] for message in row["messages"] if message["role"] == "user")


def test_a_student_learns_to_reason_and_is_measured_so(tiny_student: Path, tmp_path: Path) -> None:
    data, folder = write_rows_file(tmp_path / "rows.jsonl", ROWS), tmp_path / "runs" / "topics"
    with serve_in_thread(reasons) as server:
        def run(*options: str, **sections: Any) -> None:
            job = write_job(
                tmp_path / "job.yaml", server.base_url, tiny_student, data, export={"formats": []},
                evaluation={"models": ["teacher", "distilled"]}, training={"num_epochs": 1}, **sections,
            )
            done = run_cli("run", str(job), "--runs", str(folder.parent), *options)
            assert done.returncode == 0, done.stderr

        run(generation=GENERATION)
        asked = len(server.requests)
        curated = list(read_jsonl(folder / "curated" / "train.jsonl"))
        assert [row["messages"][-1]["content"] for row in curated] == [row["reference"] for row in curated]
        assert all(row["meta"]["rationale"] == reasoning(question(row)) for row in curated)

        report = orjson.loads((folder / "report.json").read_bytes())
        assert report["models"]["teacher"]["accuracy"]["value"] == 1.0
        said = list(read_jsonl(folder / "evaluation" / "teacher.jsonl"))
        assert all("\nAnswer: " in entry["prediction"] for entry in said)
        # A label has at most some twenty tokens; only a student that may reason has room for more.
        assert max(entry["completion_tokens"] for entry in read_jsonl(folder / "evaluation" / "distilled.jsonl")) > 30
        in_one_text = orjson.loads((folder / "student" / "training.json").read_bytes())

        run("--until", "train", generation={**GENERATION, "rationale": "multitask"})
        assert len(server.requests) == asked
        apart = orjson.loads((folder / "student" / "training.json").read_bytes())
    assert (in_one_text["train_texts"], apart["train_texts"]) == (len(curated), 2 * len(curated))
