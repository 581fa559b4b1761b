"""Signals from what a teacher told with its answers equal those of its own forward pass on the same text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModelForCausalLM

from inference.tiny_models import chat_tokenizer, write_gguf
from loopback import Messages, serve_in_thread
from potstill.catalog.model import ResolvedModel
from potstill.generation.candidate import Candidate, answered_row
from potstill.generation.ways import candidate_of
from potstill.inference import Client, Journal, open_engine
from potstill.inference.dialogue import answer_row
from potstill.inference.protocol import Reply, Sampling, TokenLogprobs, ToldToken
from potstill.pipeline.asking import Pass, ask_teachers, first_alone
from potstill.pipeline.teachers import Books
from potstill.quiet import quiet_transformers
from potstill.rows import Message, Row
from potstill.signals import endpoint
from potstill.signals.endpoint import answer_places, signals_of
from potstill.signals.packing import Body
from potstill.signals.signal import TopK
from potstill.signals.token_bytes import TokenBytes
from potstill.signals.top_entries import TAIL_FLOOR, drawn, top_signal
from potstill.signals.top_k import TopKEncoding
from potstill.spec import GenerationSpec
from potstill.tasks import get_task
from potstill.templates import ChatTemplate
from potstill.training.collator import TokenisedRow, tokenise
from telling import TellingEndpoint, TellingTeacher

TOP = 20
ANSWERS = {"capital": "Paris, of course.", "bird": "A gull 🦜, naïve café 你好!", "thanks": "You are welcome."}
GREEDY = GenerationSpec(temperature=0.0, max_tokens=64)
Pairs = list[tuple[Row, list[TokenisedRow]]]


def answer(messages: Messages) -> str:
    return next(text for word, text in ANSWERS.items() if word in messages[-1]["content"])


@pytest.fixture(scope="session")
def tokens(teacher: TellingTeacher) -> TokenBytes:
    return TokenBytes(teacher.tokenizer)


async def generated(model: ResolvedModel, journal: Path, *prompts: Sequence[str], top: int = TOP) -> list[Row]:
    """Rows of one user turn a prompt, answered by the teacher; top: of how many tokens it tells the log-probabilities."""
    task, found = get_task("conversation"), dict[int, Row]()
    rows = [
        task.row({"messages": [m for text in turns for m in ({"role": "user", "content": text},
                                                           {"role": "assistant", "content": "gold"})]})
        for turns in prompts
    ]

    def keep(number: int, outcome: Any) -> None:
        (found[number],) = outcome

    asked = [Pass(lambda: rows, first_alone)]
    await ask_teachers([model], task, asked, GREEDY, journal, keep, Books.of([model]), top_logprobs=top)
    return [found[number] for number in range(len(rows))]


def texts_of(rows: Sequence[Row], template: ChatTemplate, tokenizer: Any) -> Pairs:
    return [
        (row, [tokenise(text, tokenizer) for text in template.training_texts(row.messages, last_only=False)]) for row in rows
    ]


def read(journal: Path, pairs: Pairs, tokens: TokenBytes) -> tuple[list[tuple[TokenisedRow, TopK]], Counter[str]]:
    without: Counter[str] = Counter()
    with Journal(journal) as opened:
        return list(signals_of(opened, pairs, tokens, without)), without


def expected(text: TokenisedRow, teacher: TellingTeacher) -> torch.Tensor:
    """(targets, vocabulary), from the whole text in one pass."""
    before = [place - 1 for place, is_target in enumerate(text.target_mask) if is_target]
    return teacher.logprobs(text.input_ids)[before]


def compare(signal: TopK, rows: torch.Tensor, text: TokenisedRow, *, within: float, top: int = TOP) -> None:
    """Each entry is the network's own, the likeliest are among them, and the tail holds the rest."""
    written = targets(text)
    assert len(signal) == len(rows) == len(written)
    for ids, logprobs, tail, row, own in zip(signal.ids, signal.logprobs, signal.log_tail, rows, written, strict=True):
        used = logprobs > -math.inf
        found = ids[used].tolist()
        assert set(found) == {own, *row.topk(top).indices.tolist()}
        assert len(set(found)) == len(found)
        assert torch.equal(logprobs[used], logprobs[used].sort(descending=True).values)
        torch.testing.assert_close(logprobs[used], row[ids[used]], atol=within, rtol=0)
        rest = 1 - row[ids[used]].double().exp().sum()
        torch.testing.assert_close(tail.double().exp(), rest, atol=within, rtol=0)
        torch.testing.assert_close(logprobs.double().exp().sum() + tail.double().exp(), torch.tensor(1.0).double())


@pytest.mark.parametrize("style", ["openai", "vllm"])
async def test_they_are_those_of_the_teachers_own_pass(
    teacher: TellingTeacher, tokens: TokenBytes, tmp_path: Path, style: str
) -> None:
    with serve_in_thread(answer, TellingEndpoint, teacher=teacher, style=style) as server:
        engine: Any = "vllm" if style == "vllm" else None
        model = ResolvedModel("teacher", "endpoint", model="m", endpoint=server.base_url, engine=engine, concurrency=2)
        rows = await generated(model, tmp_path, ["The capital?"], ["A bird?"], ["The capital?", "A bird?", "And thanks."])
    assert [len(row.meta["request_keys"]) for row in rows] == [1, 1, 3]
    found, without = read(tmp_path, texts_of(rows, teacher.template, teacher.tokenizer), tokens)
    assert not without
    assert len(found) == 3
    for text, signal in found:
        compare(signal, expected(text, teacher), text, within=2e-5)


async def test_the_end_of_a_turn_counts_as_drawn_where_the_server_leaves_it_out(
    teacher: TellingTeacher, tokens: TokenBytes, tmp_path: Path
) -> None:
    with serve_in_thread(answer, TellingEndpoint, teacher=teacher, end=False) as server:
        model = ResolvedModel("teacher", "endpoint", model="m", endpoint=server.base_url, concurrency=1)
        rows = await generated(model, tmp_path, ["The capital?"])
    ((text, signal),), _ = read(tmp_path, texts_of(rows, teacher.template, teacher.tokenizer), tokens)
    assert len(signal) == sum(text.target_mask)
    compare(signal.tile(0, len(signal) - 1), expected(text, teacher)[:-1], shortened(text), within=2e-5)
    last = signal.tile(len(signal) - 1, len(signal))
    assert (last.ids[0, 0], last.logprobs[0, 1:].max()) == (text.input_ids[-1], -math.inf)
    assert last.logprobs[0, 0].exp().item() == pytest.approx(1 - TAIL_FLOOR)
    assert last.log_tail.exp().item() == pytest.approx(TAIL_FLOOR)


def shortened(text: TokenisedRow) -> TokenisedRow:
    return replace(text, input_ids=text.input_ids[:-1], target_mask=text.target_mask[:-1])


async def test_tokens_that_are_told_by_their_looks_alone_stay_in_the_tail(
    teacher: TellingTeacher, tokens: TokenBytes, tmp_path: Path
) -> None:
    with serve_in_thread(answer, TellingEndpoint, teacher=teacher, style="text") as server:
        model = ResolvedModel("teacher", "endpoint", model="m", endpoint=server.base_url, concurrency=1)
        rows = await generated(model, tmp_path, ["A bird?"])
    ((text, signal),), _ = read(tmp_path, texts_of(rows, teacher.template, teacher.tokenizer), tokens)
    rows_of = expected(text, teacher)
    for ids, logprobs, row in zip(signal.ids, signal.logprobs, rows_of, strict=True):
        used = logprobs > -math.inf
        torch.testing.assert_close(logprobs[used], row[ids[used]], atol=2e-5, rtol=0)


async def test_of_a_character_in_several_tokens_llama_cpp_tells_the_last(tmp_path: Path) -> None:
    """A random model in half precision, which has to write a text that has but one division into tokens."""
    pytest.importorskip("xllamacpp")
    text, tokenizer = "Q🦜Zé~", chat_tokenizer("llama-bpe")
    assert len(tokenizer(text, add_special_tokens=False).input_ids) == len(text.encode())
    file = write_gguf(tmp_path / "tiny.gguf", tokenizer)
    network = AutoModelForCausalLM.from_pretrained(file.with_suffix("")).float().eval()
    own = TellingTeacher(network, tokenizer, ChatTemplate.from_gguf(file))
    row = await asked_in_process(file, tmp_path, choices=(text,))
    ((learnt, signal),), _ = read(tmp_path / "journal", texts_of([row], own.template, tokenizer), TokenBytes(tokenizer))
    told = [0, 4, 5, 7, 8, 9]  # Q, the last of four, Z, the last of two, ~, and the end of the turn
    rows = expected(learnt, own)
    for place, (ids, logprobs) in enumerate(zip(signal.ids, signal.logprobs, strict=True)):
        used = logprobs > -math.inf
        if place in told:
            assert int(used.sum()) > 1  # rows of the head beyond the vocabulary are no tokens of the student
            torch.testing.assert_close(logprobs[used], rows[place][ids[used]], atol=0.05, rtol=0)
        else:
            assert (ids[used].tolist(), round(float(logprobs[used].exp()), 5)) == ([targets(learnt)[place]], 1.0)


async def test_llama_cpp_tells_what_the_unpacked_weights_say(embedded_gguf: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from potstill.student.gguf_reading import gguf_read_once
    from potstill.student.load import open_model

    row = await asked_in_process(embedded_gguf, tmp_path)
    with quiet_transformers(), gguf_read_once():
        tokenizer, network = open_model(ResolvedModel("embedded", "gguf", path=embedded_gguf))
    own = TellingTeacher(network, tokenizer, ChatTemplate.from_gguf(embedded_gguf))
    ((text, signal),), _ = read(tmp_path / "journal", texts_of([row], own.template, tokenizer), TokenBytes(tokenizer))
    assert len(signal) == sum(text.target_mask)
    rows = expected(text, own)
    for ids, logprobs, row_of in zip(signal.ids, signal.logprobs, rows, strict=True):
        used = logprobs > -math.inf
        # llama.cpp rounds the activations to eight bits too, which moves a log-probability by 0.1 on average, 0.33 at most.
        torch.testing.assert_close(logprobs[used], row_of[ids[used]], atol=0.5, rtol=0)


def targets(text: TokenisedRow) -> list[int]:
    return [token_id for token_id, is_target in zip(text.input_ids, text.target_mask, strict=True) if is_target]


async def asked_in_process(file: Path, folder: Path, choices: tuple[str, ...] = ()) -> Row:
    """A row that a model in this process has answered greedily; the journal is in `folder`."""
    row = get_task("text").row({"prompt": "Say hello to Bob, in three words.", "completion": "gold"})
    engine = open_engine(ResolvedModel("mine", "gguf", path=file), threads=1)
    try:
        with Journal(folder / "journal") as journal:
            client, sampling = Client(engine, journal, concurrency=1), Sampling(max_tokens=24, choices=choices)
            found = candidate_of(await answer_row(client, row.messages, 1, sampling, top_logprobs=TOP), "mine", 0)
    finally:
        await engine.aclose()
    assert isinstance(found, Candidate)
    return answered_row(row, found)


async def test_a_text_of_which_nothing_can_be_told_is_counted_by_its_reason(
    teacher: TellingTeacher, tokens: TokenBytes, tmp_path: Path
) -> None:
    with serve_in_thread(answer, TellingEndpoint, teacher=teacher) as server:
        model = ResolvedModel("teacher", "endpoint", model="m", endpoint=server.base_url, concurrency=1)
        (good,) = await generated(model, tmp_path, ["The capital?"])
        (plain,) = await generated(model, tmp_path, ["The capital?"], top=0)
    edited = replace(good, messages=(*good.messages[:-1], Message("assistant", "Paris, I think.")))
    missing = replace(good, meta={**good.meta, "request_keys": ["0" * 32]})
    keyless = replace(good, meta={})
    found, without = read(
        tmp_path, texts_of([good, plain, edited, missing, keyless], teacher.template, teacher.tokenizer), tokens
    )
    assert len(found) == 1
    assert without == dict.fromkeys(
        (endpoint.NOT_TOLD, endpoint.OTHER_TEXT, endpoint.NOT_KEPT, endpoint.NO_KEY), 1
    )


async def test_the_last_turn_alone_is_that_of_the_last_reply(
    teacher: TellingTeacher, tokens: TokenBytes, tmp_path: Path
) -> None:
    with serve_in_thread(answer, TellingEndpoint, teacher=teacher) as server:
        model = ResolvedModel("teacher", "endpoint", model="m", endpoint=server.base_url, concurrency=1)
        (row,) = await generated(model, tmp_path, ["The capital?", "And thanks."])
    last = [tokenise(text, teacher.tokenizer) for text in teacher.template.training_texts(row.messages, last_only=True)]
    ((text, signal),), _ = read(tmp_path, [(row, last)], tokens)
    compare(signal, expected(text, teacher), text, within=2e-5)


def reply(*told: TokenLogprobs, text: str = "yes", finish: Any = "stop") -> Reply:
    return Reply(text, finish, None, None, 0.0, logprobs=told or None)


def place(token_id: int | None, data: bytes | None, logprob: float = -0.5, *top: ToldToken) -> TokenLogprobs:
    return TokenLogprobs(ToldToken(token_id, data, logprob), top)


def ids_of(tokens: TokenBytes, *parts: bytes) -> list[int]:
    found = [tokens.id_of(part) for part in parts]
    return [token_id for token_id in found if token_id is not None]


def test_an_answer_that_was_cut_off_or_in_other_tokens_tells_nothing(tokens: TokenBytes) -> None:
    target = ids_of(tokens, b"yes", b"<|im_end|>")
    assert answer_places(target, reply(place(None, b"yes"), finish="length"), tokens) == endpoint.CUT_OFF
    assert answer_places(target, reply(place(None, b"y"), place(None, b"es")), tokens) == endpoint.OTHER_TOKENS
    assert answer_places(target, reply(place(None, b"no"), text="no"), tokens) == endpoint.OTHER_TEXT
    more = reply(place(None, b"yes"), place(None, b"<|im_end|>"), place(None, b"\n"))
    assert answer_places(target, more, tokens) == endpoint.OTHER_TOKENS


def test_ids_that_are_not_the_students_own_are_not_taken_for_them(tokens: TokenBytes) -> None:
    """The student's vocabulary may be a part of the teacher's, with ids of its own: then the bytes decide."""
    yes, no, end = ids_of(tokens, b"yes", b"no", b"<|im_end|>")
    told = place(7000, b"yes", -0.5, ToldToken(7001, b"no", -1.5), ToldToken(7000, b"yes", -0.5), ToldToken(9, b"nonesuch", -3))
    assert answer_places([yes, end], reply(told), tokens) == [{no: -1.5, yes: -0.5}, {end: 0.0}]
    assert answer_places([yes, end], reply(place(7000, None)), tokens) == endpoint.OTHER_TOKENS


def test_what_is_named_twice_counts_once(tokens: TokenBytes) -> None:
    yes, no, end = ids_of(tokens, b"yes", b"no", b"<|im_end|>")
    told = place(None, b"yes", -0.5, *[ToldToken(None, b"no", -1.5)] * 2, ToldToken(None, b"yes", -0.5))
    places = answer_places([yes, end], reply(told), tokens)
    assert places == [{no: -1.5, yes: -0.5}, {end: 0.0}]
    signal = top_signal(places)  # type: ignore[arg-type]
    assert signal is not None
    assert signal.log_tail[0].exp().item() == pytest.approx(1 - math.exp(-0.5) - math.exp(-1.5), abs=1e-6)


def test_a_signal_is_packed_as_one_that_was_captured() -> None:
    signal = top_signal([{7: math.log(0.5), 9: math.log(0.25), 3: math.log(0.125)}, {4: math.log(0.75)}, drawn(5), {}])
    assert signal is not None
    encoding = TopKEncoding(vocabulary=300, draws=0)
    unpacked = encoding.decode([Body(len(signal), encoding.pack_told(signal))], 1.0)
    assert torch.equal(unpacked.ids, signal.ids)
    torch.testing.assert_close(unpacked.log_tail, signal.log_tail)
    torch.testing.assert_close(unpacked.logprobs.exp(), signal.logprobs.exp(), atol=0.01, rtol=0)


def test_numbers_that_are_of_no_one_distribution_make_no_signal() -> None:
    assert top_signal([{1: -0.1, 2: -0.5}]) is None
    rounded = top_signal([{1: math.log(0.7), 2: math.log(0.3004)}])
    assert rounded is not None
    assert rounded.logprobs.exp().sum().item() + rounded.log_tail.exp().item() == pytest.approx(1)
    assert rounded.log_tail.exp().item() == pytest.approx(TAIL_FLOOR)
