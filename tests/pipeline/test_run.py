"""A whole job, from rows and an endpoint to the report; and what is not done again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import LoopbackEndpoint, Messages, serve_in_thread
from pipeline.jobs import TOPICS, events, gold_answer, run_cli, topic_rows, write_job, write_rows_file

pytest.importorskip("xllamacpp")
STAGES = ["prepare", "generate", "curate", "train", "export", "evaluate", "report"]
ROWS = topic_rows(66)
WRONG = {row["text"] for row in ROWS[:56:8]}


def mostly_right(messages: Messages) -> str:
    """The gold label, or another one for every eighth row."""
    gold = gold_answer(ROWS)(messages)
    labels = sorted({row["label"] for row in ROWS})
    return labels[labels.index(gold) - 1] if messages[-1]["content"] in WRONG else gold


@dataclass
class Run:
    """A run that is through, where it lies, and the endpoint that answered it."""

    folder: Path
    job: Path
    data: Path
    student: Path
    server: LoopbackEndpoint

    def again(self, **sections: Any) -> tuple[list[str], int]:
        """Run it once more, with these sections of the job changed: the stages done anew, and the requests sent."""
        write_job(self.job, self.server.base_url, self.student, self.data, **sections)
        seen, asked = len(events(self.folder)), len(self.server.requests)
        done = run_cli("run", str(self.job), "--runs", str(self.folder.parent))
        assert done.returncode == 0, done.stderr
        fresh = [event["stage"] for event in events(self.folder)[seen:] if event["event"] == "finished"]
        return fresh, len(self.server.requests) - asked

    def report(self, name: str = "report.json") -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="module")
def run(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("whole")
    data = write_rows_file(folder / "rows.jsonl", ROWS[:56])
    with serve_in_thread(mostly_right) as server:
        job = write_job(folder / "job.yaml", server.base_url, tiny_student, data)
        done = run_cli("run", str(job), "--runs", str(folder / "runs"))
        assert done.returncode == 0, done.stderr
        yield Run(folder / "runs" / "topics", job, data, tiny_student, server)


def test_all_stages_leave_their_files(run: Run) -> None:
    finished = [event["stage"] for event in events(run.folder) if event["event"] == "finished"]
    assert finished[:7] == STAGES
    for name in (
        "job.yaml", "rows/test.jsonl", "generated/train.jsonl", "generated/rejected.jsonl", "curated/train.jsonl",
        "curated/rejected.jsonl", "student/model.safetensors", "student/tokenizer.json", "exports/student.F16.gguf",
        "exports/Modelfile", "evaluation/teacher.jsonl", "evaluation/distilled.jsonl", "report.html", "MODEL_CARD.md",
        "DATASET_CARD.md",
    ):
        assert (run.folder / name).is_file(), name


def test_every_request_is_a_row(run: Run) -> None:
    assert run.server.repeats() == 0
    asked = {request.messages[-1]["content"] for request in run.server.requests}
    assert asked >= {row["text"] for row in ROWS[:56]}


def test_wrong_answers_are_rejected_with_the_reason(run: Run) -> None:
    rejected = [orjson.loads(line) for line in run.report("curated/rejected.jsonl").splitlines()]
    contradicting = [entry for entry in rejected if entry["rule"] == "contradicts_gold"]
    trained = {
        orjson.loads(line)["messages"][-1]["content"]
        for split in ("train", "validation")
        for line in run.report(f"rows/{split}.jsonl").splitlines()
    }
    assert {entry["messages"][-2]["content"] for entry in contradicting} == WRONG & trained
    assert all("gold" in entry["reason"] for entry in contradicting)


def test_the_card_of_the_rows_tells_what_curation_told(run: Run) -> None:
    card = run.report("DATASET_CARD.md")
    rejected = [orjson.loads(line) for line in run.report("curated/rejected.jsonl").splitlines()]
    contradicting = [entry for entry in rejected if entry["rule"] == "contradicts_gold"]
    train = sum(entry["split"] == "train" for entry in contradicting)
    row = f"| the answer contradicts the gold answer | {train} | {len(contradicting) - train} | {contradicting[0]['reason']} |"
    assert row in card
    assert "None was found by these patterns." in card
    assert "kept training rows, chosen by hash" in card
    assert "- loopback: what its answers may be used for is in the terms of the endpoint" in card


def test_the_report_holds_what_the_contract_names(run: Run) -> None:
    report = orjson.loads(run.report())
    assert set(report["models"]) == {"teacher", "baseline", "distilled"}
    for label, model in report["models"].items():
        for metric in ("accuracy", "macro_f1", "parsed"):
            low, high = model[metric]["ci95"]
            assert 0 <= low <= model[metric]["value"] <= high <= 1
        for name in ("inference_time", "latency_p50", "latency_p95"):
            assert model[name] > 0
        local = ("parameters", "memory_bytes", "disk_bytes", "throughput_rps", "cost_per_1k_requests")
        # What an endpoint weighs cannot be seen, the throughput of eight rows is not told, and this one has no price.
        assert all((model[name] is None) == (label == "teacher") for name in local)
    right = sum(row["text"] not in WRONG for row in ROWS[:56]) / 56
    assert report["models"]["teacher"]["accuracy"]["value"] == pytest.approx(right, abs=0.25)
    headline = report["headline"]
    assert {"accuracy_retention", "accuracy_gain", "inference_time_reduction", "memory_reduction", "cost_reduction",
            "throughput_gain"} == set(headline)
    assert set(headline["accuracy_gain"]) == {"value", "ci95", "n", "p_value"}


def test_what_is_passed_on_names_no_path_of_this_machine(run: Run) -> None:
    for name in ("report.json", "MODEL_CARD.md", "DATASET_CARD.md"):
        assert str(run.folder.parent.parent) not in run.report(name)


def test_run_again_asks_and_trains_nothing(run: Run) -> None:
    assert run.again() == ([], 0)


def test_predictions_that_were_damaged_are_named_and_made_again_once_deleted(run: Run) -> None:
    predictions = run.folder / "evaluation" / "distilled.jsonl"
    before = predictions.read_bytes()
    predictions.write_bytes(before[:-20])
    done = run_cli("run", str(run.folder))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"where: {predictions}, line {len(before.splitlines())}" in done.stderr
    assert "delete it" in done.stderr
    predictions.unlink()
    fresh, asked = run.again()
    assert (fresh[0], asked) == ("evaluate", 0)
    assert len(predictions.read_bytes().splitlines()) == len(before.splitlines())


def test_another_export_setting_repeats_what_follows_export_alone(run: Run) -> None:
    fresh, asked = run.again(export={"max_quality_loss": 0.03})
    assert (fresh, asked) == (["export", "report"], 0)


def test_another_training_setting_repeats_training_and_what_follows(run: Run) -> None:
    assert run.again(training={"num_epochs": 1}) == (["train", "export", "evaluate", "report"], 0)


def test_ten_more_rows_are_ten_requests(run: Run) -> None:
    before = {split: run.report(f"rows/{split}.jsonl").splitlines() for split in ("train", "validation", "test")}
    write_rows_file(run.data, ROWS[60:66] + ROWS[:60])  # in front and behind, so that the order changes too
    fresh, asked = run.again(training={"num_epochs": 1})
    assert asked == 10
    assert fresh == STAGES
    after = {split: run.report(f"rows/{split}.jsonl").splitlines() for split in before}
    for split, lines in before.items():
        assert set(lines) <= set(after[split])
    assert sum(map(len, after.values())) == 66


def test_a_moved_run_goes_on(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.folder, moved, ignore=shutil.ignore_patterns("report.*", ".lock"))
    asked = len(run.server.requests)
    done = run_cli("run", str(moved))
    assert done.returncode == 0, done.stderr
    assert len(run.server.requests) == asked
    assert [event["stage"] for event in events(moved)[len(events(run.folder)) :] if event["event"] == "started"] == ["report"]
    assert orjson.loads((moved / "report.json").read_bytes()) == orjson.loads(run.report())


def test_labels_are_told_to_the_teacher_and_not_to_the_student(run: Run) -> None:
    labels = {row["label"] for row in ROWS}
    assert len(labels) == TOPICS
    assert all(label in run.server.requests[0].messages[0]["content"] for label in labels)
    trained = orjson.loads(run.report("curated/train.jsonl").splitlines()[0])
    assert not any(label in trained["messages"][0]["content"] for label in labels)
