"""One model measured in a process of its own: a real endpoint on loopback, and the embedded model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopback import Messages, serve_in_thread, status
from potstill.catalog.model import Price, ResolvedModel
from potstill.errors import BudgetError, EndpointError, JobFailedError, PotstillError
from potstill.evaluation.answering import LATENCY_ROWS
from potstill.evaluation.predictions import Measurement, read_predictions, read_profile
from potstill.evaluation.process import run_worker
from potstill.inference.budget import Budget
from potstill.inference.journal import Journal
from potstill.inference.protocol import Sampling
from potstill.rows import Message, Row, write_rows


@pytest.fixture
def measurement(tmp_path: Path) -> Callable[..., Measurement]:
    """A measurement of an endpoint on these rows; what is given besides replaces its fields."""

    def make(rows: list[Row], endpoint: str | None = None, **fields: Any) -> Measurement:
        write_rows(tmp_path / "rows.jsonl", rows)
        model = ResolvedModel("far", "endpoint", model="far", endpoint=endpoint, concurrency=4, price=Price(2.0, 10.0))
        usual = Measurement(
            label="teacher",
            model=model,
            rows=tmp_path / "rows.jsonl",
            task="text",
            output=tmp_path / "evaluation" / "teacher.jsonl",
            journal=tmp_path / "journal",
            sampling=Sampling(max_tokens=16),
        )
        return replace(usual, **fields)

    return make


def questions(count: int) -> list[Row]:
    return [Row(f"r{number}", (Message("user", f"question {number}"),), f"answer {number}") for number in range(count)]


def echo(messages: Messages) -> str:
    return messages[-1]["content"].replace("question", "answer")


def test_a_measurement_survives_its_file(measurement: Callable[..., Measurement]) -> None:
    made = measurement(
        questions(1), "http://127.0.0.1:1/v1", labels=("a", "b"), sampling=Sampling(stop=("x",), choices=("a",)), threads=2,
        budget=Budget(usd=1.5),
    )
    assert Measurement.from_json(made.to_json()) == made
    local = replace(made, model=ResolvedModel("m", "gguf", path=Path("/models/m.gguf")))
    assert Measurement.from_json(local.to_json()) == local


def test_an_endpoint_is_asked_once_a_row(measurement: Callable[..., Measurement]) -> None:
    rows, seen = questions(6), []
    with serve_in_thread(echo) as server:
        made = measurement(rows, server.base_url)
        profile = run_worker(made, lambda done, total: seen.append((done, total)))
        assert len(server.requests) == 6
        assert server.most_in_flight == 1
    assert seen == [(number, 6) for number in range(1, 7)]
    predictions = read_predictions(made.output)
    assert [prediction.prediction for prediction in predictions] == [row.reference for row in rows]
    assert [prediction.id for prediction in predictions] == [row.id for row in rows]
    assert profile == read_profile(made.profile)
    # Loopback counts 7 tokens a prompt and one a word: 7 x $2 + 2 x $10 a million, a thousand times.
    assert profile.cost_per_1k_requests == pytest.approx((7 * 2 + 2 * 10) / 1e6 * 1000)
    assert profile.inference_time is not None
    assert 0 < profile.latency_p50 <= profile.latency_p95  # type: ignore[operator]
    for unknown in (profile.memory_bytes, profile.parameters, profile.disk_bytes, profile.throughput_rps):
        assert unknown is None


def test_what_the_run_has_spent_is_no_longer_there_for_its_evaluation(
    measurement: Callable[..., Measurement], tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal" / "generate") as journal:
        journal.append_intent("0" * 32, {}, price={"input_tokens": 900, "output_tokens": 0})
    with serve_in_thread(echo) as server:
        made = measurement(
            questions(6), server.base_url, journal=tmp_path / "journal" / "evaluate-teacher", budget=Budget(tokens=1020)
        )
        with pytest.raises(BudgetError, match="used up"):
            run_worker(made)
        assert len(server.requests) == 2  # each may cost 106 tokens, and costs 9
        run_worker(replace(made, budget=Budget(tokens=2000)))
        assert len(server.requests) == 6


def test_rows_past_the_latency_sample_give_the_endpoints_throughput(measurement: Callable[..., Measurement]) -> None:
    """Each answer takes 20 ms, so four at a time are at most 200 a second; one at a time would be 50."""
    with serve_in_thread(echo, delay_s=0.02) as server:
        profile = run_worker(measurement(questions(LATENCY_ROWS + 16), server.base_url))
        assert len(server.requests) == LATENCY_ROWS + 16
        assert server.most_in_flight == 4
    assert profile.throughput_concurrency == 4
    assert profile.throughput_rps is not None
    assert 60 < profile.throughput_rps <= 200
    assert profile.inference_time is not None
    assert profile.inference_time >= 0.02


def test_untrained_models_are_told_the_labels(measurement: Callable[..., Measurement]) -> None:
    rows = [Row("r", (Message("user", "where is my card?"),), "card_arrival")]
    labels = ("card_arrival", "lost_card")
    with serve_in_thread(lambda messages: "card_arrival") as server:
        made = measurement(rows, server.base_url, task="classification", labels=labels)
        run_worker(replace(made, untrained=True))
        run_worker(made)
        told, bare = (request.messages for request in server.requests)
    assert "lost_card" in told[0]["content"]
    assert bare == [{"role": "user", "content": "where is my card?"}]


def test_every_turn_of_a_conversation_is_kept(measurement: Callable[..., Measurement]) -> None:
    dialogue = (Message("user", "question 1"), Message("assistant", "gold 1"), Message("user", "question 2"))
    rows = [Row("c", dialogue, ["gold 1", "gold 2"])]
    with serve_in_thread(echo) as server:
        made = measurement(rows, server.base_url, task="conversation")
        profile = run_worker(made)
        assert [message["content"] for message in server.requests[1].messages] == ["question 1", "answer 1", "question 2"]
    assert read_predictions(made.output)[0].prediction == ["answer 1", "answer 2"]
    assert profile.responses == 2


def test_a_row_without_an_answer_is_an_empty_prediction(measurement: Callable[..., Measurement]) -> None:
    def fault(messages: Messages, attempt: int) -> Any:
        return status(400, "too long") if messages[-1]["content"] == "question 1" else None

    with serve_in_thread(echo, fault=fault) as server:
        made = measurement(questions(3), server.base_url)
        run_worker(made)
    failed = read_predictions(made.output)[1]
    assert failed.prediction == ""
    assert failed.failure
    assert failed.latency_s is None


def test_the_workers_error_is_the_callers_error(measurement: Callable[..., Measurement]) -> None:
    with serve_in_thread(echo, fault=lambda messages, attempt: status(401, "no such key")) as server:
        made = measurement(questions(2), server.base_url)
        with pytest.raises(EndpointError) as caught:
            run_worker(made)
    assert "no such key" in str(caught.value)
    assert not made.profile.exists()


def test_a_worker_that_crashes_tells_its_last_words(measurement: Callable[..., Measurement]) -> None:
    made = measurement(questions(1), "http://127.0.0.1:1/v1", task="no-such-task")
    with pytest.raises(JobFailedError, match="no-such-task"):
        run_worker(made)


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_measurement_goes_on_without_asking_again(
    measurement: Callable[..., Measurement], tmp_path: Path, victim: str
) -> None:
    """SIGKILL after the fifth reply; the same measurement again asks for the rest alone, and the worker outlives nobody."""
    with serve_in_thread(echo, delay_s=0.1) as server:
        made = measurement(questions(12), server.base_url)
        parent = start_in_a_process(made, tmp_path)
        worker = wait_for(lambda: next(iter(psutil.Process(parent.pid).children()), None))
        wait_for(lambda: len(server.requests) > 5)
        os.kill(worker.pid if victim == "worker" else parent.pid, signal.SIGKILL)
        parent.wait(10)
        run_worker(made)
        # The one request that was in flight may have had no reply yet; every other is asked once.
        assert server.repeats() <= 1
        assert len(server.requests) <= 13
        psutil.wait_procs([worker], timeout=5)
        assert not worker.is_running()
    predictions = read_predictions(made.output)
    assert [prediction.prediction for prediction in predictions] == [f"answer {number}" for number in range(12)]


def start_in_a_process(made: Measurement, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "made.json").write_bytes(made.to_json())
    code = (
        "import sys, pathlib\n"
        "from potstill.evaluation.predictions import Measurement\n"
        "from potstill.evaluation.process import run_worker\n"
        "run_worker(Measurement.from_json(pathlib.Path(sys.argv[1]).read_bytes()))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(folder / "made.json")], stderr=subprocess.DEVNULL)


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """What the condition gives as soon as it gives something."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise TimeoutError("it did not happen in time")


def test_the_embedded_model_is_measured_whole(measurement: Callable[..., Measurement], embedded_gguf: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = ResolvedModel("smollm2-135m-instruct", "gguf", path=embedded_gguf)
    made = measurement(questions(3), model=model, concurrency=2, context=256, sampling=Sampling(max_tokens=8))
    profile = run_worker(made)
    predictions = read_predictions(made.output)
    assert all(prediction.prediction and prediction.failure is None for prediction in predictions)
    assert all(0 < (prediction.completion_tokens or 0) <= 8 for prediction in predictions)
    assert profile.parameters == 134_515_008
    assert profile.disk_bytes == embedded_gguf.stat().st_size
    # The whole file is mapped and read; context and scratch space of so small a model stay below its own size again.
    assert profile.memory_bytes is not None
    assert 90e6 < profile.memory_bytes < 400e6
    assert profile.inference_time is not None
    assert profile.throughput_concurrency == 2
    assert profile.throughput_rps is not None
    assert profile.throughput_rps > 0
    assert profile.cost_per_1k_requests is not None
    assert profile.cost_per_1k_requests > 0
    assert "virtual CPUs" in profile.assumptions[0]


def test_a_model_that_is_not_there_is_named(measurement: Callable[..., Measurement], tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    model = ResolvedModel("gone", "gguf", path=tmp_path / "gone.gguf")
    with pytest.raises(PotstillError) as caught:
        run_worker(measurement(questions(1), model=model))
    assert "gone.gguf" in str(caught.value)
