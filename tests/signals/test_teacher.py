"""A live teacher's hidden states and head make the very logits that the whole model gives, at target positions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CohereConfig, Gemma2Config, GraniteConfig, HyperCLOVAXConfig, Phi3Config

from potstill.catalog import ResolvedModel
from potstill.errors import InputError
from potstill.signals.signal import Dense
from potstill.signals.source import TargetBatch
from potstill.signals.teacher import LiveTeacher, open_teacher
from signals.conftest import VOCABULARY, tiny_network


def batch_of(lengths: tuple[int, ...] = (5, 12, 9)) -> TargetBatch:
    """Texts of several lengths with about every second token a target; the padding is a token like others."""
    length = max(lengths)
    ids = torch.randint(3, VOCABULARY, (len(lengths), length))
    real = torch.arange(length)[None] < torch.tensor(lengths)[:, None] - 1
    return TargetBatch(ids, (real & (torch.rand(real.shape) < 0.5)).flatten().nonzero()[:, 0])


def logits_of(dense: Dense) -> torch.Tensor:
    return torch.nn.functional.linear(dense.hidden, dense.weight, dense.bias)


def with_bias() -> Any:
    network = tiny_network()
    network.lm_head.bias = torch.nn.Parameter(torch.randn(VOCABULARY))
    return network


MODELS = {
    "llama": tiny_network,
    "phi3": lambda: tiny_network(Phi3Config),
    "bias": with_bias,
    "cohere multiplies its logits": lambda: tiny_network(CohereConfig, logit_scale=0.0625),
    "granite divides them": lambda: tiny_network(GraniteConfig, logits_scaling=6.0),
    "hyperclovax multiplies by what has granite's name": lambda: tiny_network(HyperCLOVAXConfig, logits_scaling=6.0),
    "gemma2 without a cap": lambda: tiny_network(Gemma2Config, final_logit_softcapping=None),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_the_whole_models(name: str) -> None:
    network, batch = MODELS[name](), batch_of()
    with torch.no_grad():
        whole = network(input_ids=batch.input_ids).logits.flatten(0, 1)[batch.positions]
    dense = LiveTeacher(network, bfloat16=False).signal(batch, 2.0)
    assert (len(dense), dense.temperature, dense.weight.requires_grad) == (len(batch.positions), 2.0, False)
    torch.testing.assert_close(logits_of(dense), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_capped_logits_are_refused_by_the_name_of_the_cap() -> None:
    with pytest.raises(InputError) as caught:
        LiveTeacher(tiny_network(Gemma2Config, final_logit_softcapping=30.0))
    assert caught.value.found == "final_logit_softcapping: 30.0"


def test_logits_changed_in_a_way_nobody_named_are_refused() -> None:
    network = tiny_network()
    network.lm_head.register_forward_hook(lambda _module, _args, logits: torch.tanh(logits))
    with pytest.raises(InputError, match="changes its logits after the head"):
        LiveTeacher(network)


def test_layers_in_bfloat16_leave_the_head_in_float32() -> None:
    network, batch = tiny_network(initializer_range=0.1), batch_of()
    with torch.no_grad():
        whole = network(input_ids=batch.input_ids).logits.flatten(0, 1)[batch.positions].log_softmax(-1)
    dense = LiveTeacher(network, bfloat16=True).signal(batch, 1.0)
    assert network.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert dense.hidden.dtype == dense.weight.dtype == torch.float32
    divergence = (whole.exp() * (whole - logits_of(dense).log_softmax(-1))).sum(-1)
    assert divergence.max() < 0.01


def test_chosen_layers_are_told_with_their_attention(network: Any) -> None:
    batch = batch_of()
    teacher = LiveTeacher(network, bfloat16=False)
    seen = teacher.observe(batch, hidden_layers=(0, 2), attention_layers=(1,))
    network.set_attn_implementation("eager")
    with torch.no_grad():
        whole = network(input_ids=batch.input_ids, output_hidden_states=True, output_attentions=True)
    network.set_attn_implementation("sdpa")
    picked = whole.hidden_states[1].flatten(0, 1)[batch.positions]
    torch.testing.assert_close(seen.hidden[0], picked)
    torch.testing.assert_close(seen.attention[1], whole.attentions[1])
    assert (set(seen.hidden), set(seen.attention)) == ({0, 2}, {1})
    torch.testing.assert_close(seen.last, teacher.observe(batch).last, rtol=1e-4, atol=1e-4)
    assert teacher.observe(batch).attention == {}


def test_a_teacher_is_opened_from_a_folder(tiny_student: Path) -> None:
    teacher, tokenizer, identity = open_teacher(ResolvedModel("tiny", "folder", path=tiny_student))
    assert (teacher.width, teacher.head_rows, len(tokenizer)) == (32, 49_152, 49_152)
    assert list(identity) == ["folder"]


def test_a_teacher_is_opened_from_a_gguf_file(embedded_gguf: Path) -> None:
    teacher, tokenizer, identity = open_teacher(ResolvedModel("embedded", "gguf", path=embedded_gguf))
    ids = tokenizer("The capital of France is", add_special_tokens=False, return_tensors="pt").input_ids
    dense = teacher.signal(TargetBatch(ids, torch.tensor([ids.numel() - 1])), 1.0)
    assert tokenizer.decode([int(logits_of(dense).argmax())]) == " Paris"
    assert list(identity) == ["gguf"]


def test_an_endpoint_is_no_live_teacher() -> None:
    with pytest.raises(InputError, match="this teacher must be a model whose weights are at hand"):
        open_teacher(ResolvedModel("far", "endpoint", model="x", endpoint="http://127.0.0.1:9/v1"))
