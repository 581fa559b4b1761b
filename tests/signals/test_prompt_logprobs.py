"""A server that runs is asked about texts it did not write; what it tells equals its network's own forward pass."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from exporting.gguf_support import byte_level_tokenizer
from loopback import completion, serve_in_thread
from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.protocol import MalformedReplyError, RawReply
from potstill.signals.prompt_engine import PromptEngine
from potstill.signals.prompt_logprobs import PromptLogprobs
from potstill.signals.signal import TopK
from potstill.signals.token_bytes import TokenBytes
from potstill.training.collator import TokenisedRow
from telling import TellingEndpoint, TellingTeacher

TOP = 8
TEXTS = ("The gull 🦜 flies.", "Paris is the capital of France.", "Naïve 你好 cafés are few.")


@pytest.fixture(scope="module")
def texts(teacher: TellingTeacher) -> list[TokenisedRow]:
    """The second half of each is to learn."""
    found = []
    for text in TEXTS:
        ids = teacher.tokenizer(text, add_special_tokens=False).input_ids
        found.append(TokenisedRow(tuple(ids), tuple(place >= len(ids) // 2 for place in range(len(ids)))))
    return found


def model_at(server: TellingEndpoint, engine: Any) -> ResolvedModel:
    return ResolvedModel("teacher", "endpoint", model="the-model", endpoint=server.base_url, engine=engine, concurrency=2)


def ask(
    model: ResolvedModel, journal: Path, texts: list[TokenisedRow], tokenizer: Any
) -> tuple[dict[TokenisedRow, TopK], Counter[str]]:
    found: dict[TokenisedRow, TopK] = {}
    without: Counter[str] = Counter()
    with PromptLogprobs(model, journal, None, top=TOP) as teacher:
        teacher.ask(texts, TokenBytes(tokenizer), found.__setitem__, without)
    return found, without


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_signals_are_those_of_the_networks_own_pass(
    teacher: TellingTeacher, texts: list[TokenisedRow], tmp_path: Path, engine: str
) -> None:
    with serve_in_thread(lambda messages: "", TellingEndpoint, teacher=teacher) as server:
        found, without = ask(model_at(server, engine), tmp_path, texts, teacher.tokenizer)
    assert not without
    assert set(found) == set(texts)
    for text, signal in found.items():
        first = text.target_mask.index(True)
        rows = teacher.logprobs(text.input_ids)[first - 1 : -1]
        assert len(signal) == len(rows)
        for place, row in enumerate(rows):
            used = signal.logprobs[place] > -math.inf
            ids = signal.ids[place][used]
            assert set(ids.tolist()) == {text.input_ids[first + place], *row.topk(TOP).indices.tolist()}
            torch.testing.assert_close(signal.logprobs[place][used], row[ids], atol=2e-5, rtol=0)
            rest = 1 - row[ids].double().exp().sum()
            torch.testing.assert_close(signal.log_tail[place].double().exp(), rest, atol=2e-5, rtol=0)


def test_what_the_journal_holds_is_not_asked_for_again(
    teacher: TellingTeacher, texts: list[TokenisedRow], tmp_path: Path
) -> None:
    with serve_in_thread(lambda messages: "", TellingEndpoint, teacher=teacher) as server:
        first, _ = ask(model_at(server, "vllm"), tmp_path, texts[:2], teacher.tokenizer)
        again, _ = ask(model_at(server, "vllm"), tmp_path, [*reversed(texts)], teacher.tokenizer)
    assert sorted(server.prompts) == sorted(list(text.input_ids) for text in texts)
    for text, signal in first.items():
        assert torch.equal(signal.ids, again[text].ids)
        assert torch.equal(signal.logprobs, again[text].logprobs)


def test_a_teacher_with_other_tokens_is_refused(
    teacher: TellingTeacher, texts: list[TokenisedRow], tmp_path: Path
) -> None:
    other = byte_level_tokenizer("llama-bpe")
    ids = other("The gull flies", add_special_tokens=False).input_ids
    text = TokenisedRow(tuple(ids), (False, *[True] * (len(ids) - 1)))
    with (
        serve_in_thread(lambda messages: "", TellingEndpoint, teacher=teacher) as server,
        pytest.raises(InputError, match="not the student's"),
    ):
        ask(model_at(server, "vllm"), tmp_path, [text], other)


@pytest.mark.parametrize("server", ["vllm", "sglang"])
@pytest.mark.parametrize(
    "body",
    [
        b"{", completion("hi"), b'{"choices": [{"text": "a", "prompt_logprobs": null}], "meta_info": {}}',
        b'{"choices": [{"prompt_logprobs": [null, {"x": {"logprob": -1}}]}], "meta_info": {"input_token_logprobs": [5]}}',
    ],
    ids=["broken", "a chat reply", "none told", "told otherwise"],
)
def test_a_reply_without_them_is_malformed(server: Any, body: bytes) -> None:
    engine = PromptEngine(EndpointEngine("http://127.0.0.1:9/v1", "m", None), "m", server)
    with pytest.raises(MalformedReplyError, match="the reply"):
        engine.parse(RawReply(200, body, 0.1))


def test_a_reply_on_another_text_is_refused(
    teacher: TellingTeacher, texts: list[TokenisedRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "prompt_logprobs", lambda ids, top: [[]])
    with (
        serve_in_thread(lambda messages: "", TellingEndpoint, teacher=teacher) as server,
        pytest.raises(InputError, match="another text"),
    ):
        ask(model_at(server, "vllm"), tmp_path, texts[:1], teacher.tokenizer)


def test_a_text_that_the_server_refuses_is_counted(
    teacher: TellingTeacher, texts: list[TokenisedRow], tmp_path: Path
) -> None:
    long = "This model's maximum context length is 8 tokens."
    with serve_in_thread(lambda messages: "", TellingEndpoint, teacher=teacher, longest=(8, long)) as server:
        found, without = ask(model_at(server, "vllm"), tmp_path, texts, teacher.tokenizer)
    (why,) = without
    assert (long in why, len(found) + without[why]) == (True, len(texts))


@pytest.mark.parametrize("kind", [{"engine": None}, {"engine": "anthropic"}])
def test_a_model_that_cannot_be_asked_is_named(tmp_path: Path, kind: dict[str, Any]) -> None:
    model = ResolvedModel("gpt", "endpoint", model="gpt", endpoint="http://127.0.0.1:9/v1", **kind)
    with pytest.raises(InputError, match="did not write"):
        PromptLogprobs(model, tmp_path, None, top=TOP)
