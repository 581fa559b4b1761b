"""A GGUF file must behave as the folder it was made from: llama.cpp runs it, transformers is the judge.

The models are tiny and random, of the real configuration classes. Their weights are drawn with a spread of 0.08, at
which a wrong rotation, bias or scale moves log-probabilities by tenths of a nat and more, and half precision by about
0.01.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from exporting.gguf_support import (
    TEXTS,
    LlamaCpp,
    byte_level_tokenizer,
    compare_steps,
    edit_json,
    save,
    sentencepiece_tokenizer,
)
from potstill.errors import ExportError
from potstill.exporting.gguf import export_gguf
from potstill.exporting.gguf_pretokenizer import byte_level_rule
from potstill.student.splitting import SPLITTING_RULES, apply_rule

# Largest difference of a log-probability, in nats. Half precision of the weights, of llama.cpp's products and of its
# cache gives up to 0.012 on these models. At q8_0 llama.cpp rounds the activations to eight bits too: up to 0.13.
TOLERANCE = {"f16": 0.02, "q8_0": 0.25}
ROWS = 1088  # the tokenizers have 1,025 tokens: the embedding is padded
ORIGINAL_CONTEXT = 256

SHAPE: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4 * ORIGINAL_CONTEXT,
    "initializer_range": 0.08,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def longrope(pairs: int, **settings: Any) -> dict[str, Any]:
    """Factors far from one and far from each other, so that taking the wrong ones shows."""
    steps = [i / (pairs - 1) for i in range(pairs)]
    return {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [round(1 + 0.5 * step, 3) for step in steps],
        "long_factor": [round(1 + 19 * step, 3) for step in steps],
        "original_max_position_embeddings": ORIGINAL_CONTEXT,
        **settings,
    }


def scaled(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0, **settings}


LLAMA3 = scaled("llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=ORIGINAL_CONTEXT)
YARN = scaled("yarn", original_max_position_embeddings=ORIGINAL_CONTEXT)
PHI3_MINI = {**SHAPE, "num_key_value_heads": 4, "original_max_position_embeddings": ORIGINAL_CONTEXT}

FAMILIES: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "llama, wide heads and biases": (LlamaForCausalLM, LlamaConfig(**SHAPE, head_dim=64, attention_bias=True)),
    "llama, llama3 scaling": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_parameters=LLAMA3)),
    "llama, linear scaling": (LlamaForCausalLM, LlamaConfig(**SHAPE, rope_parameters=scaled("linear"))),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
    "qwen2, yarn": (Qwen2ForCausalLM, Qwen2Config(**SHAPE, rope_parameters=YARN)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=48)),
    "phi-3 mini 4k": (Phi3ForCausalLM, Phi3Config(**PHI3_MINI, sliding_window=2047)),
    "phi-3 mini 128k": (Phi3ForCausalLM, Phi3Config(**PHI3_MINI, rope_parameters=longrope(16))),
    "phi-4-mini": (
        Phi3ForCausalLM,
        Phi3Config(
            **{**SHAPE, "original_max_position_embeddings": ORIGINAL_CONTEXT},
            tie_word_embeddings=True,
            rope_parameters=longrope(12, partial_rotary_factor=0.75),
        ),
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer("qwen2")


@pytest.fixture(scope="module")
def prompt(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids: list[int] = tokenizer("".join(TEXTS))["input_ids"]
    return ids


def build(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """A random model whose vectors (norms, biases) are no ones and zeros, so that leaving one out shows."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    return save(tmp_path_factory.mktemp("llama"), build(*FAMILIES["llama"]), tokenizer)


def metadata(file: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in gguf.GGUFReader(file).fields.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_file_continues_a_prompt_as_the_weights_do(
    family: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, prompt: list[int]
) -> None:
    model = build(*FAMILIES[family])
    folder = save(tmp_path / "model", model, tokenizer)
    for quantization, tolerance in TOLERANCE.items():
        file = tmp_path / f"{quantization}.gguf"
        export = export_gguf(folder, file, quantization, name="student")  # type: ignore[arg-type]
        assert (export.path, export.size_bytes) == (file, file.stat().st_size)
        # a context of 256 takes LongRoPE's short factors; with 512 and 300 tokens of prompt both take the long ones
        for context, length in ((ORIGINAL_CONTEXT, 40), (2 * ORIGINAL_CONTEXT, 300)):
            distance = compare_steps(model, LlamaCpp(file, context), prompt[:length])
            assert max(distance.shortfall, distance.logprob) < tolerance, (quantization, length)


@pytest.mark.parametrize("rule", ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "sentencepiece"])
def test_file_cuts_text_as_the_tokenizer_does(rule: str, tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer() if rule == "sentencepiece" else byte_level_tokenizer(rule)
    markers = tokenizer.all_special_tokens + list(tokenizer.get_added_vocab())
    chats = [f"{marker}user\nHi there{markers[-1]}\n{marker} x {marker}" for marker in markers]
    config = LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": len(tokenizer) + 7})
    folder = save(tmp_path / "model", LlamaForCausalLM(config), tokenizer)
    file = tmp_path / "model.gguf"
    export_gguf(folder, file, "f16", name="student")
    written = metadata(file)
    assert written["tokenizer.ggml.pre"] == {"sentencepiece": "default"}.get(rule, rule)
    engine = LlamaCpp(file)
    template = tokenizer.chat_template  # where there is one, it alone says whether bos begins a text
    saved = partial(AutoTokenizer.from_pretrained(folder), add_special_tokens=template is None or "bos_token" in template)
    # by GPT-4o's rule llama.cpp cuts words before combining marks; nothing in a file can change that
    texts = [text for text in TEXTS if rule != "gpt-4o" or not text.startswith(("नमस्ते", "สวัสดี"))]
    for text in [*texts, *chats]:
        assert engine.tokenize(text) == saved(text)["input_ids"], text


@pytest.mark.parametrize("name", SPLITTING_RULES)
def test_a_rule_is_recognised_after_it_was_applied(name: str) -> None:
    tokenizer = byte_level_tokenizer("gpt-2").backend_tokenizer
    apply_rule(tokenizer, SPLITTING_RULES[name])
    assert byte_level_rule(json.loads(tokenizer.to_str())) == name


def test_phi3_markers_swallow_whitespace_only_where_the_name_says_phi3(tmp_path: Path) -> None:
    config = LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": 2000})
    model = LlamaForCausalLM(config)
    for tokenizer, given, expected in (
        (sentencepiece_tokenizer(), "student", "student (Phi-3)"),
        (sentencepiece_tokenizer(), "Phi-3-mini-distilled", "Phi-3-mini-distilled"),
        (byte_level_tokenizer("gpt-4o"), "phi-3-small-distilled", "Phi 3-small-distilled"),  # else it would not load
    ):
        folder = save(tmp_path / "model", model, tokenizer)
        export_gguf(folder, tmp_path / "model.gguf", "q8_0", name=given)
        assert metadata(tmp_path / "model.gguf")["general.name"] == expected
        assert LlamaCpp(tmp_path / "model.gguf").tokenize("word")


def test_tokens_types_and_special_ids(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer()
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": len(tokenizer) + 3}))
    folder = save(tmp_path / "model", model, tokenizer)
    end, text_end = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    edit_json(folder / "generation_config.json", eos_token_id=[end, text_end, 10**6])  # the last was trimmed away
    export_gguf(folder, tmp_path / "model.gguf", "f16", name="student", chat_template=None)
    written = metadata(tmp_path / "model.gguf")
    kinds = dict(zip(written["tokenizer.ggml.tokens"], written["tokenizer.ggml.token_type"], strict=True))
    kind = gguf.TokenType
    assert (kinds["<unk>"], kinds["<0x0A>"], kinds["<|user|>"]) == (kind.UNKNOWN, kind.BYTE, kind.CONTROL)
    assert kinds[f"[PAD{len(tokenizer)}]"] == kind.UNUSED
    assert len(kinds) == len(tokenizer) + 3
    special = {role: written[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "eot", "padding", "unknown")}
    assert special == {"bos": 1, "eos": text_end, "eot": end, "padding": text_end, "unknown": 0}
    assert written["tokenizer.chat_template"] == tokenizer.chat_template


@pytest.mark.parametrize(
    ("template", "adds"), [("{{ messages }}", False), ("{{ bos_token }}{{ messages }}", True), ("<s>[INST]", True)]
)
def test_a_text_begins_as_the_template_says(tmp_path: Path, template: str, adds: bool) -> None:
    """The tokenizer puts bos before every text, but training renders by the template alone: llama.cpp must not add it."""
    tokenizer = sentencepiece_tokenizer()
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": len(tokenizer)}))
    folder = save(tmp_path / "model", model, tokenizer)
    export_gguf(folder, tmp_path / "model.gguf", "f16", name="student", chat_template=template)
    written = metadata(tmp_path / "model.gguf")
    assert written["tokenizer.chat_template"] == template
    assert written["tokenizer.ggml.add_bos_token"] is adds


def test_added_tokens_that_are_not_special_stay_text(llama_folder: Path, tmp_path: Path) -> None:
    export_gguf(llama_folder, tmp_path / "model.gguf", "f16", name="student")
    written = metadata(tmp_path / "model.gguf")
    kinds = dict(zip(written["tokenizer.ggml.tokens"], written["tokenizer.ggml.token_type"], strict=True))
    assert kinds["<tool_call>"] == gguf.TokenType.USER_DEFINED
    assert kinds["<|im_end|>"] == gguf.TokenType.CONTROL


def test_storage_types(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    shape = {**SHAPE, "intermediate_size": 200}  # down_proj has rows of 200, no multiple of 32
    folder = save(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)), tokenizer)
    export = export_gguf(folder, tmp_path / "model.gguf", "q8_0", name="student")
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert export.tensors == len(types)
    kind = gguf.GGMLQuantizationType
    assert (types["token_embd.weight"], types["blk.0.ffn_up.weight"]) == (kind.Q8_0, kind.Q8_0)
    assert (types["blk.0.ffn_down.weight"], types["blk.0.attn_norm.weight"]) == (kind.F16, kind.F32)
    assert "output.weight" not in types  # tied


def test_sharded_bfloat16_checkpoint_gives_the_same_file(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = build(*FAMILIES["qwen3"]).to(torch.bfloat16)
    files = []
    for name, size in (("whole", "1GB"), ("sharded", "500KB")):
        folder = save(tmp_path / name, model, tokenizer, max_shard_size=size)
        assert (folder / "model.safetensors.index.json").exists() == (name == "sharded")
        export_gguf(folder, tmp_path / f"{name}.gguf", "f16", name="student")
        tensors = gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors
        files.append({tensor.name: tensor.data.tobytes() for tensor in tensors})
    assert files[0] == files[1]


def test_rope_settings_of_older_configurations(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = save(tmp_path / "model", build(*FAMILIES["phi-4-mini"]), tokenizer)
    export_gguf(folder, tmp_path / "new.gguf", "f16", name="student")
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.75}
    config |= {"rope_scaling": {"type": "longrope", **{k: rope[k] for k in ("short_factor", "long_factor")}}}
    (folder / "config.json").write_text(json.dumps(config))
    export_gguf(folder, tmp_path / "old.gguf", "f16", name="student")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MambaForCausalLM"]}, ["MambaForCausalLM", "LlamaForCausalLM", "Phi3ForCausalLM"]),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, ["dynamic", "llama3"]),
        ({"rope_parameters": {**YARN, "mscale": 0.7}}, ["YaRN", "mscale", "0.7"]),
        ({"hidden_act": "gelu"}, ["gelu", "silu"]),
        ({"num_hidden_layers": 2}, ["model.layers.2.", "2 layers"]),
        ({"num_hidden_layers": 4}, ["incomplete", "model.layers.3."]),
    ],
)
def test_configurations_that_llama_cpp_does_not_compute(
    changes: dict[str, Any], named: list[str], llama_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in llama_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    edit_json(folder / "config.json", **changes)
    check_refused(folder, tmp_path, named)


def test_tokenizers_that_llama_cpp_does_not_compute(llama_folder: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 1, "vocab_size": 2000}))
    folder = save(tmp_path / "model", model, byte_level_tokenizer("qwen2"))
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    punctuation = json.loads(pre_tokenizers.Punctuation().__getstate__())
    edit_json(file, pre_tokenizer={"type": "Sequence", "pretokenizers": [punctuation, content["pre_tokenizer"]]})
    check_refused(folder, tmp_path, ["Punctuation", "Qwen 2"])
    edit_json(file, pre_tokenizer=content["pre_tokenizer"], normalizer={"type": "Lowercase"})
    check_refused(folder, tmp_path, ["Lowercase", "NFC"])
    edit_json(file, normalizer=None, model={**content["model"], "type": "Unigram"})
    check_refused(folder, tmp_path, ["Unigram", "BPE"])

    save(folder, model, sentencepiece_tokenizer())
    content = json.loads(file.read_text())
    halves = content["model"]["merges"][-1]
    edit_json(file, model={**content["model"], "merges": content["model"]["merges"][:-1]})
    check_refused(folder, tmp_path, [repr(halves[0]), repr(halves[1])])


def test_weights_that_half_precision_cannot_hold_leave_nothing_behind(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    for value in (float("nan"), 1e6):
        model = build(*FAMILIES["llama"])
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 4] = value
        check_refused(save(tmp_path / "model", model, tokenizer), tmp_path, ["model.layers.1.mlp.up_proj.weight"])


def check_refused(folder: Path, out: Path, named: list[str]) -> None:
    with pytest.raises(ExportError) as raised:
        export_gguf(folder, out / "model.gguf", "f16", name="student")
    assert all(name in str(raised.value) for name in named), str(raised.value)
    assert [path.name for path in out.iterdir() if "gguf" in path.name] == []
