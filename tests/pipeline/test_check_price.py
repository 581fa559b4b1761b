"""What `potstill check` says of requests, tokens, dollars and budgets."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from loopback import LoopbackEndpoint
from pipeline.test_check import job, look, write_rows
from potstill.errors import InputError
from potstill.pipeline.check import check_job, preflight

pytestmark = pytest.mark.usefixtures("embedded_gguf")


def test_a_local_teacher_costs_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path, gold=True)
    found = look(tmp_path, ask=True)
    assert found["endpoint"].text == "none: the teacher runs on this machine"
    counted = "40 requests, about 560 prompt tokens at 4 bytes each, at most 20480 answer tokens; nothing to pay"
    assert found["price"].text.startswith(counted)


@pytest.fixture
def priced(tmp_path: Path, server: LoopbackEndpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    """A teacher at 1,000 and 2,000 dollars a million tokens, in a catalogue of the user's."""
    catalog = tmp_path / "own.yaml"
    price = "{input: 1000, output: 2000, date: 2026-11-01}"
    endpoint = server.base_url.replace("//", "//me:hunter2@")
    catalog.write_text(f"dear: {{model: loopback, endpoint: '{endpoint}', price: {price}}}\n")
    monkeypatch.setenv("POTSTILL_CATALOG", str(catalog))
    return "dear"


@pytest.mark.parametrize(
    ("gold", "models", "requests"),
    [
        (True, ["teacher", "distilled"], 40),  # each row once: 32 to learn from, 8 to be measured
        (True, ["distilled"], 32),
        (False, ["distilled"], 40),  # the teacher's answers to the test rows are the reference
        (False, ["teacher", "distilled"], 48),  # and it is measured by a second answer
    ],
)
def test_the_price_counts_every_request(tmp_path: Path, priced: str, gold: bool, models: list[str], requests: int) -> None:
    write_rows(tmp_path, gold=gold)
    found = look(tmp_path, ask=True, teacher=priced, generation={"max_tokens": 100}, evaluation={"models": models})
    prompt, answers = requests * 14, requests * 100
    dollars = (prompt * 1000 + answers * 2000) / 1e6
    assert found["price"].text == (
        f"{requests} requests, about {prompt} prompt tokens at 4 bytes each, at most {answers} answer tokens: "
        f"at most about ${dollars:.2f} (prices of 2026-11-01)"
    )


def test_every_turn_of_a_conversation_is_asked_with_what_stands_before_it(tmp_path: Path, priced: str) -> None:
    roles = ("user", "assistant", "user", "assistant")
    rows = [{"messages": [{"role": role, "content": f"ab{number}"} for role in roles]} for number in range(10, 50)]
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    text = look(tmp_path, ask=True, task="conversation", teacher=priced, generation={"max_tokens": 10})["price"].text
    # Two requests a row: a message of 5 tokens; that one again, an answer of 10 at most, and another of 5.
    prompt = 40 * (5 + 5 + 10 + 5)
    assert text.startswith(f"80 requests, about {prompt} prompt tokens at 4 bytes each, at most 800 answer tokens")


def test_the_password_of_an_endpoint_is_not_shown(tmp_path: Path, priced: str, server: LoopbackEndpoint) -> None:
    write_rows(tmp_path)
    found = look(tmp_path, ask=True, teacher=priced, student=priced)
    assert found["teacher"].text == f"dear: loopback at {server.base_url}"
    assert found["student"].error is not None
    assert "hunter2" not in json.dumps([finding.as_dict() for finding in found.values()])


def test_the_price_counts_new_prompts_and_the_answers_to_them(tmp_path: Path, priced: str) -> None:
    write_rows(tmp_path)
    prompts = {"wanted": 100, "ways": ["persona"], "examples": 1, "max_tokens": 50}
    generation = {"mode": "prompts", "max_tokens": 100, "prompts": prompts}
    found = check_job(job(tmp_path, teacher=priced, generation=generation), ask_endpoint=True)
    _own, written, answered = (finding.text for finding in found if finding.subject == "price")
    assert written.startswith("new prompts, where each is kept at the first try, written by dear: 152 requests")
    assert f"at most {152 * 50} answer tokens" in written
    assert answered.startswith(f"answers to those by dear: 76 requests, about {76 * 14} prompt tokens")
    assert f"at most {76 * 100} answer tokens" in answered


def test_a_budget_is_told(tmp_path: Path, priced: str) -> None:
    write_rows(tmp_path)
    found = look(tmp_path, teacher=priced, generation={"budget_usd": 2.5, "budget_tokens": 9000})
    assert found["budget"].text == "the run ends before it has cost more than $2.50 or 9000 tokens"


def test_a_budget_in_dollars_needs_a_price(tmp_path: Path, server: LoopbackEndpoint) -> None:
    write_rows(tmp_path)
    unpriced = job(tmp_path, teacher={"model": "loopback", "endpoint": server.base_url}, generation={"budget_usd": 1})
    with pytest.raises(InputError, match="needs the teacher's price") as raised:
        preflight(unpriced, tmp_path / "run")
    assert "POTSTILL_CATALOG" in str(raised.value)
    # A model on this machine costs no money.
    assert look(tmp_path, generation={"budget_usd": 1})["budget"].error is None


@pytest.mark.parametrize("gold", [True, False])
def test_a_score_of_the_teacher_needs_gold_answers(tmp_path: Path, gold: bool) -> None:
    write_rows(tmp_path, gold=gold)
    finding = look(tmp_path, generation={"min_teacher_score": 0.25})["teacher score"]
    assert (finding.error is None) == gold
    assert gold == finding.text.endswith("have to score 0.25 in rouge_l")
