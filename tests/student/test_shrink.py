"""Dropping layers: which ones, and that what is left is a whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedModel, Qwen2Config, Qwen3Config

from potstill.errors import InputError
from potstill.student.shrink import (
    block_influence,
    calibration_ids,
    choose_layers,
    evenly_spaced,
    keep_layers,
    most_influential,
)

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "phi3": Phi3Config}


class LetterTokenizer:
    """One token a letter; shrinking needs no more of a tokenizer."""

    def __call__(self, text: str, **_: object) -> LetterTokenizer:
        self.input_ids = [ord(letter) % 60 for letter in text]
        return self


def model_of(family: str, layers: int = 6, **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = FAMILIES[family](
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )
    return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rest_is_saved_opened_and_generates_alike(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    ids = torch.randint(3, 64, (1, 9))
    kept = [0, 2, 5]
    hidden = model.model.layers
    expected = [hidden[i].mlp.down_proj.weight.clone() for i in kept]
    keep_layers(model, kept)
    model.save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert opened.config.num_hidden_layers == len(opened.model.layers) == 3
    assert all(torch.equal(one, layer.mlp.down_proj.weight) for one, layer in zip(expected, opened.model.layers, strict=True))
    torch.testing.assert_close(opened(ids).logits, model(ids).logits)
    # With a cache, which finds keys and values by the layer's index, and without.
    texts = [opened.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*texts)
    torch.testing.assert_close(model.generate(ids, max_new_tokens=6, do_sample=False), texts[0])


def test_settings_that_name_each_layer_follow() -> None:
    types = ["full_attention", "sliding_attention"] * 3
    model = model_of("qwen3", use_sliding_window=True, sliding_window=8, layer_types=types)
    model.config.eos_token_id = [2, 3, 4, 5, 6, 7]  # as many as layers, but not one a layer
    keep_layers(model, [0, 1, 5])
    assert model.config.eos_token_id == [2, 3, 4, 5, 6, 7]
    assert model.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]


def test_layers_that_change_nothing_go_first() -> None:
    model = model_of("llama")
    for index, layer in enumerate(model.model.layers):
        # A layer adds these two products to its input; the larger they are, the more it changes.
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.normal_(linear.weight, std=[0.5, 0.0, 2.0, 0.01, 1.0, 0.0][index])
    texts = calibration_ids(LetterTokenizer(), ["the quick brown fox", "jumps over the lazy dog"])
    influence = block_influence(model, texts)
    assert influence[1] == pytest.approx(0.0, abs=1e-6)
    assert influence[2] > influence[4] > influence[3] > influence[1]
    assert choose_layers(model, texts, 4) == [0, 2, 4, 5]  # the last one stays, although it does nothing
    assert not any(layer._forward_hooks for layer in model.model.layers)


def test_influence_is_the_mean_over_tokens_of_one_minus_cosine() -> None:
    model, texts = model_of("llama", layers=2), calibration_ids(LetterTokenizer(), ["abcdefgh"])
    states = model.model(input_ids=texts[0], output_hidden_states=True).hidden_states
    cosine = torch.nn.functional.cosine_similarity(states[0], states[1], dim=-1).mean().item()
    assert block_influence(model, texts)[0] == pytest.approx(1 - cosine, abs=1e-6)


def test_without_texts_layers_are_evenly_spaced() -> None:
    assert choose_layers(model_of("llama"), [], 3) == [0, 2, 5]
    assert [evenly_spaced(30, count) for count in (1, 2, 5)] == [[0], [0, 29], [0, 7, 14, 22, 29]]
    assert most_influential([0.1, 0.2, 0.3], 1) == [0]
    assert all(len(set(evenly_spaced(total, count))) == count for total in range(1, 40) for count in range(1, total + 1))


def test_more_layers_than_there_are() -> None:
    with pytest.raises(InputError) as caught:
        choose_layers(model_of("llama"), [], 7)
    assert (caught.value.where, caught.value.found, caught.value.expected) == ("student.shrink.layers", "7", "1..6")


def test_an_architecture_that_keeps_its_layers_elsewhere() -> None:
    from transformers import GPT2Config

    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(InputError, match="cannot be dropped"):
        choose_layers(model, [], 1)


def test_calibration_texts_are_cut_and_bounded_together() -> None:
    lengths = [ids.shape[1] for ids in calibration_ids(LetterTokenizer(), ["a" * 700] * 20)]
    assert lengths == [512] * 12
    assert [ids.shape for ids in calibration_ids(LetterTokenizer(), ["abc", "de"])] == [(1, 3), (1, 2)]
