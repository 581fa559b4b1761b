"""`models.evaluate` for a model of a job that has a judge: accuracy of free text is what the judge accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from judging.judges import answers_shown
from loopback import Messages, serve_in_thread
from pipeline.jobs import write_rows_file
from potstill.catalog import resolve
from potstill.errors import InputError
from potstill.pipeline.progress import Silent
from potstill.service.evaluations import evaluate
from potstill.service.registry import Located
from potstill.service.settings import load_settings
from potstill.spec import JobSpec, ModelSpec, parse_job

ROWS = [{"prompt": f"Question {number}?", "completion": f"Answer {number}."} for number in range(6)]


def answer(messages: Messages) -> str:
    """As a model it answers well to even questions; as a judge it knows."""
    answers = answers_shown(messages)
    if answers:
        return f'{{"reason": "as asked", "score": {5 if answers[0].startswith("Answer") else 1}}}'
    number = int(messages[-1]["content"].split()[-1].rstrip("?"))
    return f"Answer {number}." if number % 2 == 0 else "No idea."


def job_of(endpoint: str, folder: Path, judge: dict[str, Any] | None) -> JobSpec:
    job = {
        "task": "text", "teacher": {"model": "m", "endpoint": endpoint}, "student": "phi-4-mini",
        "data": {"train": "rows.jsonl"}, "evaluation": {"judge": judge},
    }
    return parse_job(job, source="job.yaml", folder=folder, default_name="job")


def test_accuracy_is_what_the_jobs_judge_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_HOME", str(tmp_path / "home"))
    data = write_rows_file(tmp_path / "rows.jsonl", ROWS)
    with serve_in_thread(answer) as server:
        model = resolve(ModelSpec(model="m", endpoint=server.base_url))
        judged, plain = (
            Located("m", "teacher", model, None, job_of(server.base_url, tmp_path, judge), None)
            for judge in ({"model": "judge", "endpoint": server.base_url}, None)
        )
        settings = load_settings()
        results = evaluate(settings, judged, data, ["accuracy", "judge_score", "rouge_l"], Silent())
        assert dict(results) == {"accuracy": 0.5, "judge_score": 3.0, "rouge_l": pytest.approx(0.5, abs=0.2)}
        low, high = results.intervals["accuracy"]
        assert 0 < low < 0.5 < high < 1
        asked = len(server.requests)
        assert evaluate(settings, judged, data, None, Silent())["judge_score"] == 3.0
        assert len(server.requests) == asked
        assert evaluate(settings, plain, data, ["accuracy"], Silent())["accuracy"] is None
        with pytest.raises(InputError, match="unknown metric"):
            evaluate(settings, plain, data, ["judge_score"], Silent())
