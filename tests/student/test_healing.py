"""Healing a model that lost layers: the refit is the ridge regression it claims to be, helps, and leaves alone what it must."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from potstill.student.healing import RIDGE, Recording, heal, record
from potstill.student.shrink import keep_layers

Floats = NDArray[np.float64]
LAYERS, WIDTH, FEATURES = 6, 32, 48


def model_of(family: str = "llama", **more: Any) -> PreTrainedModel:
    """Weights are drawn with a spread at which a lost layer shows."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": FEATURES, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "initializer_range": 0.2,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**settings, **more})).float().eval()


def texts_of(count: int, tokens: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 64, (1, tokens), generator=generator) for _ in range(count)]


def cut_and_healed(model: PreTrainedModel, texts: list[torch.Tensor], kept: list[int]) -> tuple[Recording, Any, Any, Any]:
    """What was recorded, the cut model as it was, the healed one, and what healing said."""
    recording = record(model, texts, kept)
    keep_layers(model, kept)
    bare = copy.deepcopy(model)
    return recording, bare, model, heal(model, recording)


def features_and_output(model: PreTrainedModel, place: int, texts: list[torch.Tensor]) -> tuple[Floats, Floats]:
    """Of one layer, all tokens after each other: what goes into its output projection, and what it writes."""
    layer = model.model.layers[place]
    features: list[torch.Tensor] = []
    written: list[torch.Tensor] = []
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _module, args: features.append(args[0][0])),
        layer.register_forward_hook(lambda _layer, _args, output: written.append(output[0])),
    ]
    with torch.no_grad():
        for ids in texts:
            model.model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.cat(features).double().numpy(), torch.cat(written).double().numpy()


def output(model: PreTrainedModel, texts: list[torch.Tensor]) -> Floats:
    """What the last layer writes."""
    return features_and_output(model, -1, texts)[1]


def relative_error(written: Floats, target: Floats) -> float:
    return float((((written - target) ** 2).sum(axis=1) / (target**2).sum(axis=1)).mean())


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed_weights(before: dict[str, torch.Tensor], model: PreTrainedModel) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_what_the_kept_layers_met_is_recorded() -> None:
    model, texts, kept = model_of(), [*texts_of(2, 9), *texts_of(1, 5)], [0, 2, 5]
    recording = record(model, texts, kept)
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in model.model.layers)
    states = [model.model(input_ids=ids, output_hidden_states=True).hidden_states for ids in texts]
    for text, met in enumerate(states):
        torch.testing.assert_close(recording.inputs[text], met[0])
        # The arguments of a call are those by which the layer writes what the next one met.
        torch.testing.assert_close(model.model.layers[2](met[2], **recording.calls[text][1]), met[3])
    for target, successor in zip(recording.targets[:2], kept[1:], strict=True):
        torch.testing.assert_close(target, torch.cat([met[successor][0] for met in states]))
    last = torch.from_numpy(output(model, texts)).float()
    torch.testing.assert_close(recording.targets[2], last)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3"])
def test_the_healed_model_comes_closer_also_on_texts_it_has_not_seen(family: str) -> None:
    whole, texts, unseen = model_of(family), texts_of(24, 50), texts_of(8, 50, seed=2)
    wanted, wanted_unseen = output(whole, texts), output(whole, unseen)
    _, bare, healed, errors = cut_and_healed(whole, texts, [0, 2, 5])
    before, after = (relative_error(output(model, texts), wanted) for model in (bare, healed))
    assert errors[2][1] == pytest.approx(after, rel=1e-3)
    assert after < 0.9 * before
    before, after = (relative_error(output(model, unseen), wanted_unseen) for model in (bare, healed))
    assert after < 0.95 * before
    assert all(now < then for then, now in errors)
    assert changed_weights(weights_of(bare), healed) == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(3)}


@pytest.mark.parametrize("tokens", [FEATURES // 2, FEATURES * 6])
def test_the_change_is_the_ridge_regression_of_the_docstring(tokens: int) -> None:
    texts = texts_of(2, tokens // 2)
    recording, bare, healed, errors = cut_and_healed(model_of(), texts, [0, 3, 5])
    so_far = copy.deepcopy(bare)
    for place in range(3):
        target = recording.targets[place].double().numpy()
        features, written = features_and_output(so_far, place, texts)
        norms = np.linalg.norm(target, axis=1, keepdims=True)
        change = ridge(features / norms, (target - written) / norms)
        old = bare.model.layers[place].mlp.down_proj.weight.double().detach().numpy()
        new = healed.model.layers[place].mlp.down_proj.weight.double().detach().numpy()
        np.testing.assert_allclose(new - old, change.T, atol=1e-5)
        assert errors[place][0] == pytest.approx(relative_error(written, target), rel=1e-4)
        so_far.model.layers[place] = healed.model.layers[place]  # the next one is fitted on what this one writes now
        _, written = features_and_output(so_far, place, texts)
        assert errors[place][1] == pytest.approx(relative_error(written, target), rel=1e-4)


def ridge(features: Floats, residual: Floats) -> Floats:
    """min over D of |F D - R|^2 + r |D|^2 as plain least squares, sqrt(r) times the unit matrix below F."""
    r = RIDGE * np.diag(features.T @ features).mean()
    above = np.vstack([features, np.sqrt(r) * np.eye(FEATURES)])
    solution: Floats = np.linalg.lstsq(above, np.vstack([residual, np.zeros((FEATURES, WIDTH))]), rcond=None)[0]
    return solution


def test_where_nothing_was_cut_nothing_changes() -> None:
    model = model_of()
    before = weights_of(model)
    assert heal(model, record(model, texts_of(3, 20), range(LAYERS))) == [(0.0, 0.0)] * LAYERS
    assert changed_weights(before, model) == set()


def test_a_layer_whose_successor_was_kept_stays_as_it_was() -> None:
    _, bare, healed, errors = cut_and_healed(model_of(), texts_of(3, 20), [0, 1, 4, 5])
    assert errors[0] == (0.0, 0.0)
    assert changed_weights(weights_of(bare), healed) == {f"model.layers.{i}.mlp.down_proj.weight" for i in (1, 2, 3)}


def test_a_layer_that_would_come_no_closer_stays_as_it_was() -> None:
    # Gemma 2 norms what the projection writes. One of these norms turns its sign, so that the fit leads the wrong way.
    model = model_of("gemma2", head_dim=16)
    with torch.no_grad():
        model.model.layers[0].post_feedforward_layernorm.weight.fill_(-2.0)  # it multiplies by 1 + weight
    _, bare, healed, errors = cut_and_healed(model, texts_of(12, 40), [0, 3, 5])
    assert errors[0][0] == errors[0][1] > 0
    assert changed_weights(weights_of(bare), healed) == {f"model.layers.{i}.mlp.down_proj.weight" for i in (1, 2)}


@pytest.mark.parametrize(("dense", "changed"), [([], set()), ([0], {"model.layers.0.mlp.down_proj.weight"})])
def test_mixtures_of_experts_are_left_alone(dense: list[int], changed: set[str]) -> None:
    model = model_of("qwen3_moe", num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16, mlp_only_layers=dense)
    _, bare, healed, errors = cut_and_healed(model, texts_of(4, 20), [0, 2, 5])
    assert len(errors) == len(changed)
    assert changed_weights(weights_of(bare), healed) == changed


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_with_hidden_states_whose_norms_overflow_it(precision: torch.dtype) -> None:
    model = model_of()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(6e4)
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(4e3)
    model.to(precision)
    texts = texts_of(12, 40)
    recording, _, healed, errors = cut_and_healed(model, texts, [0, 3, 5])
    assert recording.targets[0].float().norm(dim=1).median() > torch.finfo(torch.float16).max
    assert all(0 < after < before < 1 for before, after in errors)
    target = recording.targets[2].double().numpy()
    assert errors[2][1] == pytest.approx(relative_error(output(healed, texts), target), rel=0.01)
    assert {value.dtype for value in healed.state_dict().values()} == {precision}
