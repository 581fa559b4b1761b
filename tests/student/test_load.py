"""A student is written whole, in the hub's layout, from a GGUF file and from a folder; or the user is told why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.catalog.model import ResolvedModel
from potstill.errors import CorruptFileError, InputError
from potstill.rows import Message
from potstill.spec import ShrinkSpec
from potstill.student import build_student, parameter_count, weight_bytes
from potstill.templates import ChatTemplate

DIALOGUE = [Message("user", "What is the capital of France?")]


@pytest.fixture(scope="module")
def student(embedded_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as it is."""
    out = tmp_path_factory.mktemp("built") / "student"
    build_student(ResolvedModel("embedded", "gguf", path=embedded_gguf), out, shrink=None)
    return out


def changed(student: Path, folder: Path, **files: Any) -> ResolvedModel:
    """A copy of the student without its weights, some of its JSON files changed."""
    shutil.copytree(student, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name, values in files.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return ResolvedModel("mine", "folder", path=folder)


def test_the_embedded_model_answers_as_before(student: Path, embedded_gguf: Path) -> None:
    assert {path.name for path in student.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja",
    }
    template = ChatTemplate.from_folder(student)
    assert template.source == ChatTemplate.from_gguf(embedded_gguf).source
    tokenizer = AutoTokenizer.from_pretrained(student)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    prompt = tokenizer(template.render(DIALOGUE, add_generation_prompt=True), add_special_tokens=False, return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"


def test_text_is_split_as_the_model_was_trained_to(student: Path, embedded_gguf: Path) -> None:
    """By GPT-2's rule, which transformers takes for every name it does not know, "\\n\\n1" would be three tokens."""
    tokenizer = AutoTokenizer.from_pretrained(student)
    pieces = {"List:\n\n1. one": ["List", ":", "\n\n", "1", ".", " one"], "a   42": ["a", "   ", "4", "2"]}
    for text, expected in pieces.items():
        assert [tokenizer.decode([token]) for token in tokenizer(text).input_ids] == expected


def test_a_file_with_an_unknown_splitting_rule(embedded_gguf: Path, tmp_path: Path) -> None:
    content, key = embedded_gguf.read_bytes(), b"tokenizer.ggml.pre"
    place = content.index(b"smollm", content.index(key))
    file = tmp_path / "odd.gguf"
    file.write_bytes(content[:place] + b"oddllm" + content[place + 6 :])
    with pytest.raises(InputError, match="splits text by a rule") as caught:
        build_student(ResolvedModel("odd", "gguf", path=file), tmp_path / "out", shrink=None)
    assert (caught.value.found, caught.value.where) == ("oddllm", f"{file}: tokenizer.ggml.pre")


def test_sizes_are_read_from_the_header(student: Path, tmp_path: Path) -> None:
    assert parameter_count(student) == 134_515_008  # SmolLM2-135M, the tied head counted once
    assert weight_bytes(student) == 4 * 134_515_008
    with pytest.raises(CorruptFileError):
        parameter_count(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CorruptFileError):
        weight_bytes(tmp_path)


def test_a_folder_is_shrunk_by_what_calibration_shows(student: Path, tmp_path: Path) -> None:
    text = ChatTemplate.from_folder(student).render(DIALOGUE, add_generation_prompt=True)
    out = tmp_path / "student"
    build_student(ResolvedModel("mine", "folder", path=student), out, shrink=ShrinkSpec(layers=4), calibration=[text])
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert str(tmp_path.parent) not in json.dumps(config)
    assert parameter_count(out) == 134_515_008 - 26 * 3_540_096  # what a layer of SmolLM2-135M holds
    whole, four = (AutoModelForCausalLM.from_pretrained(folder).model.layers for folder in (student, out))
    for kept, origin in ((four[0], whole[0]), (four[3], whole[29])):
        assert torch.equal(kept.mlp.up_proj.weight, origin.mlp.up_proj.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_more_layers_than_there_are_leaves_nothing_behind(student: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_student(ResolvedModel("mine", "folder", path=student), tmp_path / "out", shrink=ShrinkSpec(layers=31))
    assert (caught.value.where, caught.value.found, caught.value.expected) == ("student.shrink.layers", "31", "1..30")
    assert list(tmp_path.iterdir()) == []


def test_without_a_chat_template(student: Path, tmp_path: Path) -> None:
    model = changed(student, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        build_student(model, tmp_path / "out", shrink=None)


def test_an_architecture_nobody_knows(student: Path, tmp_path: Path) -> None:
    model = changed(student, tmp_path / "odd", config={"model_type": "stillnet", "architectures": ["StillNet"]})
    with pytest.raises(InputError, match="cannot be opened") as caught:
        build_student(model, tmp_path / "out", shrink=None)
    assert "stillnet" in str(caught.value)


def test_pickled_weights_are_not_opened(student: Path, tmp_path: Path) -> None:
    model = changed(student, tmp_path / "pickled")
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be opened"):
        build_student(model, tmp_path / "out", shrink=None)


def test_code_beside_the_weights_runs_only_where_it_is_trusted(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    model = changed(student, folder, config={"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}})
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    with pytest.raises(InputError) as caught:
        build_student(model, tmp_path / "out", shrink=None)
    assert "trust_remote_code" in (caught.value.hint or "")
    assert not (tmp_path / "ran").exists()


def test_an_endpoint_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights are at hand"):
        build_student(ResolvedModel("deepseek", "endpoint", model="x", endpoint="http://x"), tmp_path / "out", shrink=None)


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model at all")
    with pytest.raises(InputError, match="cannot be opened"):
        build_student(ResolvedModel("x", "gguf", path=tmp_path / "x.gguf"), tmp_path / "out", shrink=None)
