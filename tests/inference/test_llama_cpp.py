"""llama.cpp in this process: the same answer at any number of slots, from exactly the prompt that was rendered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

from exporting.gguf_support import LlamaCpp
from inference.tiny_models import BOS, CHAT, END_OF_TURN, chat_tokenizer, write_gguf
from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, ModelNotFoundError
from potstill.inference import open_engine
from potstill.inference.completion import error_message, parse_completion
from potstill.inference.llama_cpp import LlamaCppEngine
from potstill.inference.protocol import Reply, Request, Sampling
from potstill.rows import Message
from potstill.templates import ChatTemplate

AskFor = Callable[..., Request]
CONTEXT = 256  # llama.cpp rounds up to a multiple of it
QUESTIONS = (
    "What is the capital of France?",
    "Name three birds that live near the sea.",
    "Write a short poem on copper.",
    "Why is the sky blue?",
)


def resolved(file: Path, **more: int) -> ResolvedModel:
    return ResolvedModel("mine", "gguf", path=file, **more)  # type: ignore[arg-type]


def opened(file: Path, slots: int = 1, context: int = CONTEXT) -> LlamaCppEngine:
    return LlamaCppEngine(resolved(file), slots=slots, context=context, threads=1)


async def ask(engine: LlamaCppEngine, request: Request) -> Reply:
    raw = await engine.generate(request)
    assert raw.status == 200, raw.body
    return engine.parse(raw)


@pytest.fixture(scope="module")
def one_slot(embedded_gguf: Path) -> Iterator[LlamaCppEngine]:
    engine = opened(embedded_gguf)
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def four_slots(embedded_gguf: Path) -> Iterator[LlamaCppEngine]:
    engine = opened(embedded_gguf, slots=4)
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose tokenizer adds a first token, as Llama 3's does, and whose template writes it too."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    return write_gguf(file, chat_tokenizer("llama-bpe", "{{ bos_token }}" + CHAT))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
async def test_slots_change_no_answer(
    one_slot: LlamaCppEngine, four_slots: LlamaCppEngine, ask_for: AskFor, temperature: float
) -> None:
    requests = [ask_for(question, max_tokens=16, temperature=temperature) for question in QUESTIONS]
    alone = [(await ask(one_slot, request)).text for request in requests]
    together = await asyncio.gather(*(ask(four_slots, request) for request in requests))
    assert [reply.text for reply in together] == alone
    assert all(alone)


async def test_a_drawn_answer_depends_on_the_sample_number_alone(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    requests = [ask_for(QUESTIONS[2], sample=sample, max_tokens=12, temperature=1.0) for sample in (0, 1, 0, 1)]
    texts = [(await ask(one_slot, request)).text for request in requests]
    assert texts[:2] == texts[2:]
    assert texts[0] != texts[1]


async def test_log_probabilities_change_no_answer(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    request = ask_for(QUESTIONS[2], max_tokens=6, temperature=1.0)
    plain, told = await ask(one_slot, request), await ask(one_slot, replace(request, top_logprobs=30))
    assert told.text == plain.text
    read = parse_completion(await one_slot.generate(replace(request, top_logprobs=30)), logprobs=True).logprobs
    assert read is not None
    assert [len(place.top) for place in read] == [30] * 6
    assert b"".join(place.written.data or b"" for place in read).decode() == told.text
    assert one_slot.capabilities.logprobs == "raw"


def test_slots_and_context_are_told(one_slot: LlamaCppEngine, four_slots: LlamaCppEngine) -> None:
    for engine, slots in ((one_slot, 1), (four_slots, 4)):
        told = engine.capabilities
        assert (told.max_concurrency, told.context_window, told.choices, told.local) == (slots, CONTEXT, True, True)


@pytest.mark.parametrize(
    ("pre", "flag"), [("llama-bpe", True), ("llama-bpe", False), ("llama-bpe", None), ("falcon-h1", None)]
)
async def test_the_model_meets_the_rendered_prompt_and_one_first_token(
    tiny: Path, tmp_path: Path, ask_for: AskFor, pre: str, flag: bool | None
) -> None:
    # falcon-h1 is one of the kinds of vocabulary before which llama.cpp puts a first token unless the file says otherwise.
    file = with_first_token(tiny, tmp_path, pre, flag)
    request = replace(ask_for("hello there", max_tokens=4), token_ids=True)
    prompt = ChatTemplate.from_gguf(file).render(request.messages, add_generation_prompt=True)
    ids = chat_tokenizer("llama-bpe").encode(prompt, add_special_tokens=False)
    assert ids.count(BOS) == 1
    engine = opened(file)
    try:
        reply = await ask(engine, request)
    finally:
        await engine.aclose()
    assert reply.prompt_tokens == len(ids)
    assert reply.token_ids == tuple(step["id"] for step in LlamaCpp(file).greedy(ids, 4))


def with_first_token(file: Path, folder: Path, pre: str, flag: bool | None) -> Path:
    """A copy with another kind of vocabulary, which says whether a first token is added, or (None) does not say."""
    content, name = file.read_bytes(), b"tokenizer.ggml.add_bos_token"
    place = content.index(name) + len(name) + 4  # a 4-byte type stands between name and value
    assert content[place] == 1
    content = content[:place] + bytes([flag is True]) + content[place + 1 :]
    if flag is None:
        content = content.replace(name, b"tokenizer.ggml.add_xxx_token")
    assert len(pre) == len("llama-bpe")
    changed = folder / "changed.gguf"
    changed.write_bytes(content.replace(b"llama-bpe", pre.encode()))
    return changed


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_choices_leave_no_other_answer(four_slots: LlamaCppEngine, ask_for: AskFor, temperature: float) -> None:
    choices = ("entailment", 'a "quoted" one', "back\\slash", "zwei\nZeilen é €")
    requests = [
        ask_for("Tell me a story.", sample=sample, choices=choices, temperature=temperature, max_tokens=24)
        for sample in range(4)
    ]
    replies = await asyncio.gather(*(ask(four_slots, request) for request in requests))
    assert {reply.text for reply in replies} <= set(choices)
    assert {reply.finish_reason for reply in replies} == {"stop"}


async def test_each_choice_can_be_written(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    for choice in ('a "quoted" one', "back\\slash", "zwei\nZeilen\té €", "]|{}()*+?."):
        assert (await ask(one_slot, ask_for("hi", choices=(choice,), max_tokens=32))).text == choice


async def test_a_stop_string_ends_the_answer_before_it(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    whole = (await ask(one_slot, ask_for(QUESTIONS[1], max_tokens=16))).text
    stop = whole.split()[3]
    reply = await ask(one_slot, ask_for(QUESTIONS[1], max_tokens=16, stop=("never written", stop)))
    assert (reply.text, reply.finish_reason) == (whole[: whole.index(stop)], "stop")


async def test_the_answers_bound_is_told_from_its_end(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    cut = await ask(one_slot, replace(ask_for(QUESTIONS[1], max_tokens=3), token_ids=True))
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 3)
    assert cut.token_ids is not None
    assert len(cut.token_ids) == 3
    ended = await ask(one_slot, replace(ask_for("Say yes.", choices=("yes",), max_tokens=8), token_ids=True))
    assert (ended.text, ended.finish_reason) == ("yes", "stop")
    assert ended.token_ids is not None
    assert ended.token_ids[-1] == END_OF_TURN  # SmolLM2's <|im_end|> has the same id as the tiny model's
    assert (await ask(one_slot, ask_for(QUESTIONS[1], max_tokens=3))).token_ids is None


async def test_a_prompt_longer_than_the_context_is_a_bad_request(one_slot: LlamaCppEngine, ask_for: AskFor) -> None:
    raw = await one_slot.generate(ask_for("word " * CONTEXT, max_tokens=4))
    assert raw.status == 400
    assert f"exceeds the available context size ({CONTEXT} tokens)" in error_message(raw.body)
    assert (await ask(one_slot, ask_for("Are you still there?", max_tokens=2))).completion_tokens == 2


async def test_an_answer_that_reaches_the_end_of_the_context_is_cut(tiny: Path, ask_for: AskFor) -> None:
    engine = opened(tiny, slots=2, context=2 * CONTEXT)  # as much for each slot
    try:
        reply = await ask(engine, ask_for("hello", max_tokens=5000, choices=("spam " * 1000,)))
    finally:
        await engine.aclose()
    assert reply.finish_reason == "length"
    assert reply.prompt_tokens is not None
    assert reply.completion_tokens is not None
    assert reply.prompt_tokens + reply.completion_tokens == 2 * CONTEXT


@pytest.mark.parametrize(
    ("window", "wanted", "given"), [(512, 4096, 512), (512, 256, 256), (None, 512, 512), (None, None, 4096)]
)
async def test_the_models_window_bounds_the_context(tiny: Path, window: int | None, wanted: int | None, given: int) -> None:
    model = resolved(tiny, context_window=window) if window else resolved(tiny)
    engine = open_engine(model, concurrency=2, context=wanted, threads=1)
    try:
        assert engine.capabilities.context_window == given
        assert engine.capabilities.max_concurrency == 2
    finally:
        await engine.aclose()


async def test_a_dialogue_the_template_refuses(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    engine = opened(write_gguf(tmp_path / "refusing.gguf", chat_tokenizer("llama-bpe", refusing)))
    try:
        with pytest.raises(InputError, match="no system message"):
            await engine.generate(Request((Message("system", "Be kind."), Message("user", "hi")), Sampling()))
    finally:
        await engine.aclose()


def test_what_is_no_gguf_file_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(ModelNotFoundError) as missing:
        opened(file)
    file.write_bytes(b"PK\x03\x04 this is an archive")
    with pytest.raises(InputError, match="not a GGUF file") as caught:
        opened(file)
    assert (missing.value.where, caught.value.where) == (str(file), str(file))
    assert capfd.readouterr() == ("", "")


def test_a_file_that_was_cut_off_is_named(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cut.gguf"
    file.write_bytes(tiny.read_bytes()[:-5000])  # all metadata is there, not all weights
    with pytest.raises(InputError, match="cannot load") as caught:
        opened(file)
    assert caught.value.where == str(file)
    assert capfd.readouterr() == ("", "")


def test_a_file_without_a_chat_template(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "base.gguf"
    file.write_bytes(tiny.read_bytes().replace(b"tokenizer.chat_template", b"tokenizer.chat_tempxxxx"))
    with pytest.raises(InputError, match="no chat template"):
        opened(file)


async def test_nothing_is_written_to_the_terminal(tiny: Path, ask_for: AskFor, capfd: pytest.CaptureFixture[str]) -> None:
    engine = opened(tiny)
    await engine.generate(ask_for("hello", max_tokens=4, choices=("a", "b"), temperature=1.0))
    await engine.generate(ask_for("hello " * CONTEXT))
    await engine.aclose()
    assert capfd.readouterr() == ("", "")


async def test_closing_waits_for_the_answer_in_flight_and_gives_everything_back(tiny: Path, ask_for: AskFor) -> None:
    process = psutil.Process()
    threads = process.num_threads()
    engine = opened(tiny, slots=2, context=1024)
    assert is_mapped(tiny)
    in_flight = asyncio.create_task(ask(engine, ask_for("hello", max_tokens=200, choices=("spam " * 200,))))
    await asyncio.sleep(0)  # lets the request start
    await engine.aclose()
    assert (await in_flight).completion_tokens == 200
    assert not is_mapped(tiny)
    assert process.num_threads() <= threads + 1  # asyncio.to_thread keeps one of its own


def is_mapped(file: Path) -> bool:
    """Whether this process holds the file's weights in memory."""
    return str(file) in {region.path for region in psutil.Process().memory_maps()}


@pytest.mark.timeout(120)
async def test_an_engine_that_was_never_asked_closes(embedded_gguf: Path) -> None:
    """llama.cpp's loop starts beside the one who opens it; told to end before that, it never would."""
    for _ in range(3):
        await opened(embedded_gguf).aclose()
