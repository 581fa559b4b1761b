"""The embedded model, opened, exported and verified by use: what a real file answers, judged by the weights."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import orjson
import pytest
from safetensors.torch import load_file, save_file

from exporting.gguf_support import TEXTS, LlamaCpp
from potstill.catalog import ResolvedModel
from potstill.exporting import Comparison, verify_export
from potstill.exporting.gguf import export_gguf
from potstill.inference import open_engine, open_scorer
from potstill.inference.protocol import MalformedReplyError, RawReply, Request
from potstill.rows import Message, read_rows
from potstill.student import build_student
from potstill.templates import ChatTemplate
from threads import one_thread

Prompts = list[tuple[Message, ...]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def student(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "student"
    build_student(ResolvedModel("embedded", "gguf", path=embedded_gguf), out, shrink=None)
    return out


@pytest.fixture(scope="module")
def exported(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "student.F16.gguf"
    export_gguf(student, file, "f16", name="smollm2")
    return file


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    rows = read_rows(Path(str(files("potstill.quickstart") / "train.jsonl")))
    return [row.messages for _, row in zip(range(8), rows, strict=False)] + [(Message("user", "What is 17 + 25?"),)]


def compare(file: Path, student: Path, prompts: Prompts, max_tokens: int, context: int = 256) -> Comparison:
    async def run() -> Comparison:
        export = open_engine(ResolvedModel("file", "gguf", path=file), concurrency=2, context=context, threads=1)
        weights = open_scorer(ResolvedModel("weights", "folder", path=student), threads=1)
        try:
            return await verify_export(export, weights, ChatTemplate.from_folder(student), prompts, max_tokens=max_tokens)
        finally:
            await export.aclose()
            await weights.aclose()

    return asyncio.run(run())


def test_the_file_answers_as_the_weights_do(exported: Path, student: Path, prompts: Prompts) -> None:
    result = compare(exported, student, prompts, max_tokens=24)
    # 200 prompts of up to 64 tokens part once in 808 tokens, by at most 0.003 nats (benchmarks/export_agreement.py).
    assert result.tokens > 100
    assert result.partings <= 2
    assert result.worst_gap_nats < 0.05
    assert result.loss_nats <= result.worst_gap_nats * result.partings / result.tokens


def test_the_end_of_a_turn_is_compared_too(exported: Path, student: Path) -> None:
    question = (Message("user", "What is the capital of France? Answer in one word."),)
    assert compare(exported, student, [question], max_tokens=1).tokens == 1
    whole = compare(exported, student, [question], max_tokens=24)
    file = ChatTemplate.from_gguf(exported)
    ids = LlamaCpp(exported).tokenize(file.render(question, add_generation_prompt=True))
    assert whole.tokens == len(LlamaCpp(exported).greedy(ids, 24))


def test_other_weights_are_found_out(exported: Path, student: Path, prompts: Prompts, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(student, other)
    weights = load_file(other / "model.safetensors")
    name = "model.layers.3.self_attn.k_proj.weight"
    weights[name] = weights[name].flip(0).contiguous()  # as if the rows had been interleaved the wrong way
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    result = compare(exported, other, prompts[:2], max_tokens=16)
    assert result.worst_gap_nats > 0.05
    assert result.partings > 0


def test_a_prompt_that_does_not_fit_says_so(exported: Path, student: Path) -> None:
    long = (Message("user", "word " * 400),)
    with pytest.raises(MalformedReplyError):
        compare(exported, student, [long], max_tokens=4, context=256)


def test_the_exported_tokenizer_is_the_original_one(exported: Path, embedded_gguf: Path) -> None:
    ours, original = LlamaCpp(exported), LlamaCpp(embedded_gguf)
    for text in (*TEXTS, "List:\n\n1. one\n2. two\n\n3. three", "x =   42"):
        assert ours.tokenize(text) == original.tokenize(text), text
    templates = [ChatTemplate.from_gguf(file) for file in (exported, embedded_gguf)]
    assert len({(template.source, template.bos_token, template.eos_token) for template in templates}) == 1


def test_tokens_are_compared_as_they_were_written(exported: Path, student: Path) -> None:
    """Sixteen hyphens are one token; a file that writes them one by one must be judged on each."""
    weights = open_scorer(ResolvedModel("weights", "folder", path=student), threads=1)
    export = open_engine(ResolvedModel("file", "gguf", path=exported), concurrency=1, context=256, threads=1)
    template = ChatTemplate.from_folder(student)
    question = (Message("user", "Say it."),)

    class Hyphens:
        """The file, made to write hyphens."""

        async def generate(self, request: Request) -> RawReply:
            entries = [{"id": hyphen} for _ in range(16)]
            choice = {"text": "-" * 16, "finish_reason": "length", "logprobs": {"content": entries}}
            return RawReply(200, orjson.dumps({"choices": [choice], "usage": {"completion_tokens": 16}}), 0.0)

        parse = staticmethod(export.parse)

    async def run() -> Comparison:
        return await verify_export(Hyphens(), weights, template, [question], max_tokens=16)  # type: ignore[arg-type]

    try:
        hyphen = asyncio.run(weights.score(["Say it."], ["-"]))[0].tokens[0]
        assert asyncio.run(weights.score(["Say it."], ["-" * 16]))[0].tokens != (hyphen,) * 16
        assert asyncio.run(run()).tokens == 16
    finally:
        asyncio.run(export.aclose())
        asyncio.run(weights.aclose())
