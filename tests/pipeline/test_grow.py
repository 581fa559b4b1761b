"""A job that grows its training rows: prompts, answers and curation together, up to the rows that training would read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from inventive import asks_for_persona, asks_for_prompt, inventive
from loopback import LoopbackEndpoint, Messages, serve_in_thread
from pipeline.jobs import events, start_cli, topic_rows, write_job, write_rows_file
from pipeline.test_kill import kill_when
from potstill.errors import InputError, JobCanceledError, JobFailedError
from potstill.pipeline.progress import Silent
from potstill.pipeline.run import run_job
from potstill.spec import load_job

ROWS = topic_rows(40)
LABELS = sorted({row["label"] for row in ROWS})
GOLD = {row["text"]: row["label"] for row in ROWS}


def teacher(messages: Messages) -> str:
    """Knows the user's rows, and the label that stands in a text of its own; one of its prompts in five is a copy."""
    own = GOLD.get(messages[-1]["content"])
    return own or inventive(LABELS, repeats=0.2)(messages)


def job_of(folder: Path, server: LoopbackEndpoint, student: Path, **prompts: Any) -> Path:
    data = write_rows_file(folder / "rows.jsonl", ROWS)
    generation = {"max_tokens": 16, "mode": "prompts", "prompts": {"wanted": 100, **prompts}}
    return write_job(folder / "job.yaml", server.base_url, student, data, generation=generation)


def run(job: Path, folder: Path) -> Path:
    return run_job(load_job(job), folder / "run", Silent(), until="curate").root


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_as_many_rows_as_wanted_are_kept_and_say_where_they_are_from(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(teacher) as server:
        root = run(job_of(tmp_path, server, tiny_student), tmp_path)
        asked = len(server.requests)
        assert run(tmp_path / "job.yaml", tmp_path) == root
        assert len(server.requests) == asked
    kept = lines(root / "curated" / "train.jsonl")
    grown = [row for row in kept if "grown_by" in row["meta"]]
    assert 100 <= len(kept) < 110
    assert len(grown) == len(kept) - 24
    counts = Counter(row["reference"] for row in kept)
    assert max(counts.values()) - min(counts[label] for label in LABELS) <= 4
    for row in grown:
        system, user, answer = row["messages"]
        assert row["reference"] == answer["content"]
        assert answer["content"] in user["content"]
        assert "not a gold one" in row["meta"]["reference_is"]
        assert row["meta"]["teacher"] == "loopback"
        assert system == kept[0]["messages"][0]
    held_out = [row for split in ("validation", "test") for row in lines(root / "rows" / f"{split}.jsonl")]
    assert {row["messages"][-1]["content"] for row in held_out} <= set(GOLD)
    shown = " ".join(str(request.messages) for request in server.requests if asks_for_prompt(request.messages))
    assert not any(row["messages"][-1]["content"] in shown for row in held_out)
    rejected = lines(root / "generated" / "rejected.jsonl")
    assert {entry["rule"] for entry in rejected} == {"prompt_too_near"}
    (summary,) = (event["summary"] for event in events(root) if event["event"] == "finished" and event["stage"] == "generate")
    assert summary["rejected"] == 0
    (figures,) = summary["teachers"]
    assert figures["score"]["n"] == 32  # the user's rows alone: a label that was asked for is no gold answer
    prompts = summary["prompts"]
    assert (prompts["kept"], prompts["written"]) == (len(kept), len(lines(root / "generated" / "train.jsonl")) - 24)
    assert prompts["asked"] == prompts["written"] + len(rejected)


def test_more_wanted_asks_for_the_rest_alone(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(teacher) as server:
        job_of(tmp_path, server, tiny_student, wanted=60)
        first = lines(run(tmp_path / "job.yaml", tmp_path) / "curated" / "train.jsonl")
        asked = len(server.requests)
        job_of(tmp_path, server, tiny_student, wanted=90)
        more = lines(run(tmp_path / "job.yaml", tmp_path) / "curated" / "train.jsonl")
        assert more[: len(first)] == first
        assert 90 <= len(more) < 100
        added = [request.messages for request in server.requests[asked:]]
    assert sum(not asks_for_prompt(messages) and not asks_for_persona(messages) for messages in added) == len(more) - len(first)


def test_a_poor_teacher_ends_it_and_what_is_there_is_kept(tiny_student: Path, tmp_path: Path) -> None:
    """Its new prompts are good, but of its answers to them only those on one topic are right."""

    def poor(messages: Messages) -> str:
        text = messages[-1]["content"]
        return teacher(messages) if text in GOLD or asks_for_prompt(messages) or asks_for_persona(messages) else LABELS[0]

    with serve_in_thread(poor) as server:
        job = job_of(tmp_path, server, tiny_student, tries=2)
        with pytest.raises(JobFailedError) as failed:
            run(job, tmp_path)
        asked = len(server.requests)
        generated = lines(tmp_path / "run" / "generated" / "train.jsonl")
        reached = int(failed.value.what.partition(" rows to ")[2].partition(",")[0])
        assert 24 < reached < len(generated)
        assert "64 prompts asked for" in str(failed.value.found)
        job_of(tmp_path, server, tiny_student, tries=2, wanted=reached)
        assert len(lines(run(job, tmp_path) / "curated" / "train.jsonl")) == reached
        assert len(server.requests) == asked


def test_killed_in_the_middle_it_asks_for_nothing_again(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(teacher, delay_s=0.02) as server:
        job = str(job_of(tmp_path, server, tiny_student))
        undisturbed, killed = run(Path(job), tmp_path), tmp_path / "killed" / "topics"
        alone = len(server.requests)
        kill_when(
            start_cli("run", job, "--runs", str(killed.parent), "--until", "curate"),
            lambda: len(server.requests) >= alone + 100,
        )
        run_job(load_job(Path(job)), killed, Silent(), until="curate")
        assert len(server.requests) - alone <= alone + 4  # what was in flight may be asked again
    both = [[without_times(row) for row in lines(root / "curated" / "train.jsonl")] for root in (undisturbed, killed)]
    assert both[0] == both[1]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "meta": {name: value for name, value in row["meta"].items() if name != "latency_s"}}


def test_it_is_cancelled_while_prompts_are_written_and_goes_on_from_there(tiny_student: Path, tmp_path: Path) -> None:
    with serve_in_thread(teacher) as server:
        job = job_of(tmp_path, server, tiny_student)

        def canceled() -> bool:
            return sum(asks_for_prompt(request.messages) for request in server.requests) >= 20

        with pytest.raises(JobCanceledError):
            run_job(load_job(job), tmp_path / "run", Silent(), until="curate", canceled=canceled)
        asked = len(server.requests)
        assert asked < 100
        assert len(lines(run(job, tmp_path) / "curated" / "train.jsonl")) >= 100
        assert sum(request.messages[-1]["content"] in GOLD for request in server.requests[asked:]) == 0


def test_documents_are_not_written_anew(tiny_student: Path, tmp_path: Path) -> None:
    data = write_rows_file(tmp_path / "rows.jsonl", [{"document": f"A document on {n}."} for n in range(40)])
    with serve_in_thread(lambda messages: "A summary.") as server:
        job = write_job(
            tmp_path / "job.yaml", server.base_url, tiny_student, data, generation={"mode": "prompts"},
        )
        job.write_text(job.read_text().replace("task: classification", "task: summarization"))
        with pytest.raises(InputError, match="can be a model") as wrong:
            run(job, tmp_path)
    assert "has to be a real text" in str(wrong.value.found)
