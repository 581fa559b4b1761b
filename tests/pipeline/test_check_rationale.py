"""What is told of reasoning before a job starts: whether there is any to learn, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from loopback import Messages, completion, raw, serve_in_thread
from potstill.errors import InputError
from potstill.pipeline.check import Finding, check_job
from potstill.spec import JobSpec, parse_job

EMBEDDED = "smollm2-135m-instruct"


def thoughtful() -> bytes:
    body = orjson.loads(completion("23"))
    body["choices"][0]["message"]["reasoning_content"] = "Three weeks are 21 days."
    return orjson.dumps(body)


def answer(messages: Messages) -> str:
    return "23"


def job(folder: Path, **values: Any) -> JobSpec:
    rows = [{"question": f"What is {number} + {number + 1}?", "answer": str(2 * number + 1)} for number in range(40)]
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    base = {"task": "math", "teacher": EMBEDDED, "student": EMBEDDED, "data": {"train": "rows.jsonl"}}
    return parse_job({**base, **values}, source="job.yaml", folder=folder, default_name="job")


def look(folder: Path, *, ask: bool = False, **values: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check_job(job(folder, **values), ask_endpoint=ask)}


pytestmark = pytest.mark.usefixtures("embedded_gguf")


@pytest.mark.parametrize("rationale", ["train", "multitask"])
def test_a_local_teacher_that_is_not_asked_to_reason_has_nothing_to_teach_of_it(tmp_path: Path, rationale: str) -> None:
    error = look(tmp_path, generation={"rationale": rationale})["rationale"].error
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert "there is none" in error.what
    assert "generation.rationale" in str(error.where)
    assert "chain_of_thought: true" in str(error.hint)
    assert look(tmp_path, generation={"rationale": rationale, "chain_of_thought": True})["rationale"].error is None


def test_an_endpoint_is_asked_whether_it_tells_its_thoughts(tmp_path: Path) -> None:
    for body, says in ((thoughtful(), None), (completion("23"), "gives no reasoning beside its answer")):
        with serve_in_thread(answer, fault=lambda messages, attempt, body=body: raw(body)) as server:
            teacher = {"model": "loopback", "endpoint": server.base_url}
            error = look(tmp_path, ask=True, teacher=teacher, generation={"rationale": "train"})["reasoning"].error
        assert (error is None) == (says is None)
        assert error is None or says in str(error.found)


@pytest.mark.parametrize(
    ("task", "generation", "says"),
    [
        ("summarization", {"chain_of_thought": True}, "'generation.chain_of_thought' is for nli, qa, math and classification"),
        ("conversation", {"rationale": "train"}, "'generation.rationale': train is for nli, qa, math and classification"),
        ("math", {"chain_of_density": True}, "'generation.chain_of_density' is for summarization; the task is math"),
        ("math", {"rationale": "keep"}, "wrong value for 'generation.rationale'"),
    ],
)
def test_ways_that_do_not_fit_the_task_are_refused(
    tmp_path: Path, task: str, generation: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as error:
        job(tmp_path, task=task, generation=generation)
    assert says in error.value.what


def test_a_weight_for_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'training\.rationale_weight' is for generation\.rationale: multitask; it is train"):
        job(tmp_path, training={"rationale_weight": 0.5}, generation={"rationale": "train", "chain_of_thought": True})
    multitask = {"rationale": "multitask", "chain_of_thought": True}
    assert job(tmp_path, training={"rationale_weight": 0.5}, generation=multitask).training.rationale_weight == 0.5


def test_four_rounds_are_four_requests_in_the_price(tmp_path: Path) -> None:
    documents = [{"document": f"The council met on day {number}."} for number in range(40)]
    data = tmp_path / "documents.jsonl"
    data.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in documents))
    with serve_in_thread(answer) as server:
        values = {"task": "summarization", "teacher": {"model": "loopback", "endpoint": server.base_url},
                  "data": {"train": str(data)}, "evaluation": {"models": ["distilled"]}}
        plain = look(tmp_path, ask=True, **values)["price"].text
        dense = look(tmp_path, ask=True, generation={"chain_of_density": True}, **values)["price"].text
    assert plain.startswith("40 requests")
    assert dense.startswith("160 requests")
    assert f"at most {160 * 512} answer tokens" in dense
