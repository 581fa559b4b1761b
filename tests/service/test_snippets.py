"""The code of the contract as written: jobs under Azure's names, and the four steps; `deepseek-v3` and `phi-4-mini` lead to an
endpoint on loopback and to a local folder by the user's own catalogue.

The student is the embedded model cut to six layers, so that what it learns in seconds can be measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopback import LoopbackEndpoint, Messages, serve_in_thread
from potstill.catalog import resolve
from potstill.pipeline.untouched import build_initial_student
from potstill.rows import Message, Row
from potstill.spec import ModelSpec, ShrinkSpec
from service.conftest import wait_until

QUESTIONS = [
    f"{ask} {what}?" for what in (
        "a scratched lamp", "the green kettle", "an empty parcel", "my torn jacket", "two wrong books", "the loud blender",
        "a late sofa", "this cracked mug", "a missing cable",
    ) for ask in ("What do I do about", "Whom do I ask about", "How long may I keep", "Where do I send", "Who pays for")
]
ANSWER = "Thank you for your message. Please write to our service team."


def answer(messages: Messages) -> str:
    return f"{ANSWER} We will look at {messages[-1]['content'].partition(' ')[2].removesuffix('?')}."


@pytest.fixture(scope="module")
def student(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("students") / "six-layers"
    rows = [
        Row(str(number), (Message("user", text), Message("assistant", f"{ANSWER} We will look into it.")))
        for number, text in enumerate(QUESTIONS[:28])
    ]
    build_initial_student(resolve(ModelSpec(path=str(embedded_gguf))), folder, ShrinkSpec(layers=6), rows)
    return folder


@pytest.fixture
def server(place: Path, student: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackEndpoint]:
    """The endpoint, the catalogue that leads to it, and the data files in the current folder."""
    splits = {"training_data": QUESTIONS[:28], "validation_data": QUESTIONS[28:36], "test_data": QUESTIONS[36:42]}
    for name, questions in splits.items():
        rows = [
            {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer([{"content": text}])}]}
            for text in questions
        ]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("POTSTILL_CATALOG", "own.yaml")
    monkeypatch.delenv("OMP_NUM_THREADS")
    with serve_in_thread(answer) as running:
        (place / "own.yaml").write_text(
            f"deepseek-v3: {{model: deepseek-chat, endpoint: '{running.base_url}'}}\nphi-4-mini: {{path: '{student}'}}\n"
        )
        yield running


@pytest.mark.timeout(600)
def test_jobs_under_azures_names(server: LoopbackEndpoint) -> None:
    from potstill import MLClient
    from potstill.entities import DistillationJob

    ml_client = MLClient.from_config()
    job = ml_client.jobs.create_or_update(DistillationJob(
        teacher_model="deepseek-v3", student_model="phi-4-mini",
        training_data="./training_data.jsonl", validation_data="./validation_data.jsonl",
        task_type="conversation",
        hyperparameters={"learning_rate": 2e-5, "batch_size": 2, "num_epochs": 3, "temperature": 0.7}))
    seen = [job.status]
    wait_until(lambda: seen.append(ml_client.jobs.get(job.name).status) or seen[-1] not in ("Queued", "Running"), limit_s=280)
    assert list(dict.fromkeys(seen)) == ["Queued", "Running", "Completed"], ml_client.jobs.get(job.name).error
    ml_client.jobs.stream(job.name)
    assert server.requests[0].body["temperature"] == 0.7

    evaluation_results = ml_client.models.evaluate(model_name="phi-4-mini-distilled", test_data="./test_data.jsonl",
                              metrics=["accuracy", "bleu_score", "inference_time"])
    baseline_results = ml_client.models.evaluate(model_name="phi-4-mini-baseline", test_data="./test_data.jsonl")
    gain = evaluation_results["accuracy"] - baseline_results["accuracy"]

    assert set(evaluation_results) == {"accuracy", "bleu_score", "inference_time"}
    assert {"rouge_l", "accuracy", "bleu_score", "inference_time"} <= set(baseline_results)
    assert all(isinstance(evaluation_results[name], float) for name in evaluation_results)
    assert gain > 0.05
    low, high = evaluation_results.intervals["accuracy"]
    assert low <= evaluation_results["accuracy"] <= high
    assert evaluation_results["inference_time"] > 0
    asked = len(server.requests)
    again = ml_client.models.evaluate("phi-4-mini-distilled", "./test_data.jsonl", ["accuracy", "bleu_score", "inference_time"])
    assert dict(again) == dict(evaluation_results)
    assert len(server.requests) == asked
    teacher = ml_client.models.evaluate("deepseek-v3", "./test_data.jsonl", ["rouge_l", "accuracy"])
    assert dict(teacher) == {"rouge_l": 1.0, "accuracy": None}  # an endpoint shows no weights to measure on


def test_the_four_steps(server: LoopbackEndpoint) -> None:
    from potstill import fine_tune_student, generate_teacher_responses, load_dataset, load_model

    training_data = load_dataset("training_data.jsonl")
    validation_data = load_dataset("validation_data.jsonl")
    teacher_model = load_model("deepseek-v3")
    student_model = load_model("phi-4-mini")
    synthetic_training_data = generate_teacher_responses(teacher_model, training_data)
    synthetic_validation_data = generate_teacher_responses(teacher_model, validation_data)
    student = fine_tune_student(student_model, synthetic_training_data, synthetic_validation_data)

    assert (student.folder / "model.safetensors").is_file()
    curve = [point.loss for point in student.training.validation_curve]
    assert student.validation_loss == min(curve) < curve[0]
    asked = len(server.requests)
    assert len(generate_teacher_responses(teacher_model, training_data)) == len(synthetic_training_data)
    assert len(server.requests) == asked == 36
    assert len(load_model(student.folder).resolved.name) > 0
