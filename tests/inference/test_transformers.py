"""Weights run by transformers: what they write, what they score, and how they refuse. Transformers itself is the judge."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: E402

from exporting.gguf_support import edit_json, sentencepiece_tokenizer  # noqa: E402
from inference.tiny_models import CHAT, END_OF_TURN, chat_tokenizer, write_folder  # noqa: E402
from potstill.catalog.model import ResolvedModel  # noqa: E402
from potstill.errors import InputError, ModelNotFoundError  # noqa: E402
from potstill.inference import open_engine  # noqa: E402
from potstill.inference.completion import error_message  # noqa: E402
from potstill.inference.protocol import Reply, Request, Sampling  # noqa: E402
from potstill.inference.transformers import TransformersEngine  # noqa: E402
from potstill.rows import Message  # noqa: E402

AskFor = Callable[..., Request]
PROMPT = "<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n"
WINDOW = 128


def opened(folder: Path) -> TransformersEngine:
    return TransformersEngine(ResolvedModel("mine", "folder", path=folder))


async def ask(engine: TransformersEngine, request: Request) -> Reply:
    raw = await engine.generate(request)
    assert raw.status == 200, raw.body
    return engine.parse(raw)


def written_by_transformers(folder: Path, tokens: int, text: str = "hello there") -> tuple[list[int], list[int]]:
    """Ids of the prompt and of the greedy answer, by transformers' own template and loop."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    dialogue = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    answer = network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    return ids[0].tolist(), answer[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model") / "tiny", chat_tokenizer("qwen2"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    engine = opened(folder)
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return write_folder(tmp_path / "own", chat_tokenizer("qwen2"))


async def test_a_greedy_answer_is_transformers_own(folder: Path, engine: TransformersEngine, ask_for: AskFor) -> None:
    prompt, answer = written_by_transformers(folder, 12)
    reply = await ask(engine, ask_for("hello there", max_tokens=12))
    assert reply.text == AutoTokenizer.from_pretrained(folder).decode(answer)
    assert (reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("length", len(prompt), 12)


async def test_a_drawn_answer_depends_on_the_request_alone(engine: TransformersEngine, ask_for: AskFor) -> None:
    requests = [ask_for("hello there", sample=sample, max_tokens=8, temperature=1.0) for sample in (0, 1, 0)]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    texts = [(await ask(engine, request)).text for request in requests]
    assert texts[0] == texts[2] != texts[1]
    assert torch.equal(torch.random.get_rng_state(), before)
    near_greedy = await ask(engine, ask_for("hello there", max_tokens=8, temperature=1.0, top_p=1e-6))
    assert near_greedy.text == (await ask(engine, ask_for("hello there", max_tokens=8))).text


async def test_answers_asked_for_together_are_those_of_each_alone(engine: TransformersEngine, ask_for: AskFor) -> None:
    asked = [(text, temperature) for text in ("hello", "good bye") for temperature in (0.0, 1.0)]
    requests = [ask_for(text, max_tokens=6, temperature=temperature) for text, temperature in asked]
    together = await asyncio.gather(*(ask(engine, request) for request in requests))
    assert [reply.text for reply in together] == [(await ask(engine, request)).text for request in requests]


async def test_the_end_of_a_turn_ends_the_answer(own_folder: Path, ask_for: AskFor) -> None:
    # Exchanging two rows of the head makes the model write the end of a turn where it wrote its third token.
    _, answer = written_by_transformers(own_folder, 6)
    assert answer[2] not in answer[:2]
    network = LlamaForCausalLM.from_pretrained(own_folder)
    with torch.no_grad():
        network.lm_head.weight[[answer[2], END_OF_TURN]] = network.lm_head.weight[[END_OF_TURN, answer[2]]]
    network.save_pretrained(own_folder)
    edit_json(own_folder / "generation_config.json", eos_token_id=7)  # the template's own end counts beside it
    engine = opened(own_folder)
    reply = await ask(engine, ask_for("hello there", max_tokens=6))
    await engine.aclose()
    assert reply.text == AutoTokenizer.from_pretrained(own_folder).decode(answer[:2])
    assert (reply.finish_reason, reply.completion_tokens) == ("stop", 3)


async def test_an_end_of_turn_that_is_no_token_stops_at_no_token(tmp_path: Path, ask_for: AskFor) -> None:
    # Looked up, such a text is the unknown token; a model made to write that one third goes on after it.
    tokenizer = sentencepiece_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}[END]\n{% endfor %}[assistant]\n"
    unknown = tokenizer.unk_token_id
    folder = write_folder(tmp_path / "spelled", tokenizer, vocab_size=2048, eos_token_id=None, bos_token_id=None)
    _, answer = written_by_transformers(folder, 6)
    network = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        network.lm_head.weight[[answer[2], unknown]] = network.lm_head.weight[[unknown, answer[2]]]
    network.save_pretrained(folder)
    engine = opened(folder)
    reply = await ask(engine, ask_for("hello there", max_tokens=6))
    await engine.aclose()
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 6)


async def test_a_stop_string_cuts_the_answer_before_it(engine: TransformersEngine, ask_for: AskFor) -> None:
    whole = (await ask(engine, ask_for("hello there", max_tokens=12))).text
    stop = whole[5:9]
    reply = await ask(engine, ask_for("hello there", max_tokens=12, stop=("never written", stop)))
    assert (reply.text, reply.finish_reason) == (whole[: whole.index(stop)], "stop")


async def test_the_window_bounds_prompt_and_answer(engine: TransformersEngine, ask_for: AskFor) -> None:
    assert engine.capabilities.context_window == WINDOW
    raw = await engine.generate(ask_for("word " * WINDOW, max_tokens=4))
    assert (raw.status, error_message(raw.body)) == (400, "the prompt is longer than the model's context window")
    reply = await ask(engine, ask_for("word " * 20, max_tokens=500))
    assert reply.prompt_tokens is not None
    assert (reply.finish_reason, reply.completion_tokens) == ("length", WINDOW - reply.prompt_tokens)


async def test_scores_are_those_of_a_plain_forward_pass(folder: Path, engine: TransformersEngine) -> None:
    texts = [" world, how are you?", "x", "<|im_end|>"]
    tokenizer, network = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer(PROMPT, add_special_tokens=False).input_ids
    for text, score in zip(texts, await engine.score([PROMPT] * 3, texts), strict=True):
        target = tokenizer(text, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = network(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].double()
        logprobs = logits - logits.exp().sum(dim=-1, keepdim=True).log()
        assert score.tokens == tuple(target)
        assert score.logprobs == pytest.approx(logprobs[range(len(target)), target].tolist(), abs=1e-5)
        assert score.best_logprobs == pytest.approx(logprobs.amax(dim=-1).tolist(), abs=1e-5)
        assert score.top1 == tuple((logprobs.argmax(dim=-1) == torch.tensor(target)).tolist())


async def test_what_the_model_chose_itself_is_its_first_choice(folder: Path, engine: TransformersEngine) -> None:
    _, answer = written_by_transformers(folder, 6)
    swerved = [*answer[:3], END_OF_TURN, *answer[4:]]
    chosen, other = await engine.score([PROMPT] * 2, [answer, swerved])
    assert chosen.tokens == tuple(answer)
    assert chosen.top1 == (True,) * 6
    assert chosen.logprobs == chosen.best_logprobs
    assert other.top1[:4] == (True, True, True, False)
    assert other.best_logprobs[3] == chosen.logprobs[3] > other.logprobs[3]


async def test_a_score_does_not_depend_on_its_neighbours(engine: TransformersEngine) -> None:
    texts = [" one", " two and three and four", ""]
    together = await engine.score([PROMPT] * 3, texts)
    assert together == [(await engine.score([PROMPT], [text]))[0] for text in texts]
    assert together[2].tokens == ()


async def test_nothing_is_written_to_the_terminal(
    own_folder: Path, ask_for: AskFor, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Settings that published models have, and that transformers has remarks on at every call.
    edit_json(own_folder / "generation_config.json", do_sample=True, temperature=0.6, top_p=0.9, max_length=50)
    capfd.readouterr()
    engine = opened(own_folder)
    for temperature in (0.0, 0.8):
        await ask(engine, ask_for("hello", max_tokens=4, temperature=temperature))
    await engine.score([PROMPT], ["hello"])
    await engine.aclose()
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("no chat template", "has no chat template"),
        ("cut weights", "cannot be opened"),
        ("no weights", "cannot be opened"),
        ("pickled weights", "cannot be opened"),
        ("broken tokenizer", "cannot be opened"),
        ("other sizes", "cannot be opened"),
        ("unknown kind", "cannot be opened"),
    ],
)
def test_a_folder_that_is_no_chat_model(own_folder: Path, damage: str, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    break_folder(own_folder, damage)
    capfd.readouterr()
    with pytest.raises(InputError, match=says) as caught:
        opened(own_folder)
    assert "own" in str(caught.value) or caught.value.where == "mine"
    assert len(str(caught.value).splitlines()) <= 6
    assert capfd.readouterr() == ("", "")


def break_folder(folder: Path, damage: str) -> None:
    weights = folder / "model.safetensors"
    if damage == "no chat template":
        (folder / "chat_template.jinja").unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "pickled weights":
        torch.save(LlamaForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    elif damage == "broken tokenizer":
        (folder / "tokenizer.json").write_text("{")
    elif damage == "other sizes":
        edit_json(folder / "config.json", intermediate_size=100)
    else:
        edit_json(folder / "config.json", model_type="stillnet", architectures=["StillNet"])


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        opened(tmp_path / "gone")
    assert caught.value.where == str(tmp_path / "gone")


async def test_a_dialogue_the_template_refuses(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    engine = opened(write_folder(tmp_path / "refusing", chat_tokenizer("qwen2", refusing)))
    with pytest.raises(InputError, match="no system message"):
        await engine.generate(Request((Message("system", "Be kind."), Message("user", "hi")), Sampling()))


async def test_closing_gives_the_weights_back(own_folder: Path) -> None:
    threads = torch.get_num_threads()
    try:
        engine = open_engine(ResolvedModel("mine", "folder", path=own_folder), threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    before = networks_in_memory()
    await engine.aclose()
    assert networks_in_memory() == before - 1


def networks_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is LlamaForCausalLM for thing in gc.get_objects())
