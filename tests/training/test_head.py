"""The head on answer positions alone gives what the whole model gives, with padding, adapters, biases and hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, LlamaConfig, Phi3Config, PreTrainedModel

from potstill.training.collator import Collator, TokenisedRow
from potstill.training.head import head_sees_only, is_plain, sum_tied_gradients_in_place
from potstill.training.losses.head_gradients import HeadGradients
from potstill.training.losses.mix import MixSchedule, Schedule
from potstill.training.objective import Objective

VOCABULARY = 200


def model_of(config: type[LlamaConfig | Phi3Config | Gemma2Config], **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    made = config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(made).float()


def with_bias() -> PreTrainedModel:
    model = model_of(LlamaConfig)
    model.lm_head.bias = torch.nn.Parameter(torch.randn(VOCABULARY))
    return model


def with_adapter_on_the_head() -> torch.nn.Module:
    targets = ["q_proj", "lm_head"]
    return get_peft_model(model_of(LlamaConfig), LoraConfig(r=2, target_modules=targets, init_lora_weights=False))


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": lambda: model_of(LlamaConfig),
    "phi3": lambda: model_of(Phi3Config),
    "gemma2, whose logits are capped after the head": lambda: model_of(Gemma2Config, final_logit_softcapping=3.0),
    "bias": with_bias,
    "adapter": with_adapter_on_the_head,
}
PLAIN = ("llama", "phi3", "bias")


def random_rows() -> list[TokenisedRow]:
    rows = []
    for length in (5, 17, 30):
        mask = (torch.rand(length) < 0.5).tolist()
        rows.append(TokenisedRow(tuple(torch.randint(3, VOCABULARY, (length,)).tolist()), (False, *mask[1:-1], True)))
    return rows


def objective(fused: bool) -> Objective:
    return Objective(MixSchedule({"ce": Schedule.of(1.0)}, Schedule.of(1.0)), None, VOCABULARY, fused)


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_the_whole_model(name: str) -> None:
    model, rows = MODELS[name](), random_rows()
    batch = Collator(pad_id=0)(rows)
    # The reference sees each row alone, without padding, and computes all logits.
    expected, count = torch.tensor(0.0), batch["target_ids"].numel()
    for row in rows:
        ids, mask = torch.tensor([row.input_ids]), torch.tensor(row.target_mask)[1:]
        logits = model(input_ids=ids).logits[0, :-1][mask]
        expected = expected + torch.nn.functional.cross_entropy(logits, ids[0, 1:][mask], reduction="sum") / count
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    of_whole = torch.autograd.grad(expected, trained)
    plain = is_plain(model)
    assert plain is (name in PLAIN)
    for fused in {plain, False}:
        loss = objective(fused).of_batch(model, model, batch, count, 0.0).loss
        torch.testing.assert_close(loss, expected)
        for ours, theirs in zip(torch.autograd.grad(loss, trained), of_whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_hooks_run_and_the_head_is_itself_again() -> None:
    model, batch, seen = model_of(LlamaConfig), Collator(pad_id=0)(random_rows()), []
    model.lm_head.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    with head_sees_only(model.get_output_embeddings(), batch["positions"]):
        model(input_ids=batch["input_ids"])
    assert model(input_ids=batch["input_ids"]).logits.shape == (*batch["input_ids"].shape, VOCABULARY)
    assert [len(shape) for shape in seen] == [2, 3]


def test_the_head_computes_in_float32_under_autocast() -> None:
    model, batch = model_of(LlamaConfig), Collator(pad_id=0)(random_rows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
        with head_sees_only(model.get_output_embeddings(), batch["positions"]):
            logits = model(input_ids=batch["input_ids"]).logits
    picked = hidden.flatten(0, 1)[batch["positions"]].double()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), picked @ model.lm_head.weight.double().T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [True, False])
def test_what_flows_back_from_the_loss_is_multiplied_in_the_format_of_the_layers(
    half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the head's place, within the model's own forward."""
    formats: list[torch.dtype] = []
    made_of = HeadGradients.of

    def noting(weight: torch.Tensor, dtype: torch.dtype, *gradients: torch.Tensor | None, scale: float) -> HeadGradients:
        formats.append(dtype)
        return made_of(weight, dtype, *gradients, scale=scale)

    monkeypatch.setattr(HeadGradients, "of", noting)
    model, batch = model_of(LlamaConfig), Collator(pad_id=0)(random_rows())
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        objective(True).of_batch(model, model, batch, 1, 0.0)
        assert torch.is_autocast_enabled("cpu") is half
    assert formats == [torch.bfloat16 if half else torch.float32]


class Made(TorchDispatchMode):
    """The operations that made a tensor of a shape, anew or in place."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.names = shape, Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and tuple(result.shape) == self.shape and not result.is_sparse:
            self.names[func.__name__.partition(".")[0]] += 1
        return result


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_gradients_are_the_same_with_a_sparse_part_added_in_place(tied: bool, steps: int) -> None:
    model, batch = model_of(LlamaConfig, tie_word_embeddings=tied), Collator(pad_id=0)(random_rows())
    embedding = model.get_input_embeddings()

    def gradient() -> Made:
        model.zero_grad()
        for _ in range(steps):
            loss = objective(True).of_batch(model, model, batch, 7, 0.0).loss
            with Made(tuple(embedding.weight.shape)) as made:
                loss.backward()
        return made

    gradient()
    before = embedding.weight.grad
    sum_tied_gradients_in_place(model)
    made = gradient()
    assert embedding.sparse is tied
    assert not embedding.weight.grad.is_sparse
    torch.testing.assert_close(embedding.weight.grad, before)
    if tied:
        assert set(made.names) <= {"detach", "add_"}


def test_a_frozen_embedding_has_no_gradient_to_sum() -> None:
    model = get_peft_model(model_of(LlamaConfig, tie_word_embeddings=True), LoraConfig(r=2, target_modules=["q_proj"]))
    sum_tied_gradients_in_place(model)
    assert not model.get_input_embeddings().sparse
