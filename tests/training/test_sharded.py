"""Weights split over processes, as FSDP2 does it: the loss in the head's place sees them whole, and its gradients are right.

In one process, whose part is the whole: the wrappers, their hooks and their tensors are those of many.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig

from potstill.training.collator import FILLER, Collator
from potstill.training.head import is_plain
from potstill.training.losses.mix import MixSchedule, Schedule
from potstill.training.objective import Objective
from training.test_head import model_of, random_rows


@pytest.fixture
def _alone(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def gradients(model: Any, rows: list[Any], count: int) -> tuple[float, dict[str, torch.Tensor]]:
    batch = Collator(pad_id=0)(rows)
    objective = Objective(MixSchedule({"ce": Schedule.of(1.0)}, Schedule.of(1.0)), None, 200, fused=True)
    loss = objective.of_batch(model, model, batch, count, 0.0).loss
    loss.backward()
    made = {name: weight.grad for name, weight in model.named_parameters()}
    whole = {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in made.items()}
    return loss.item(), whole


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_whole_weights(tied: bool) -> None:
    rows = random_rows()
    plain, split = (model_of(LlamaConfig, tie_word_embeddings=tied) for _ in range(2))
    assert is_plain(split)
    mesh = init_device_mesh("cpu", (1,))
    for layer in split.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(split, mesh=mesh)
    assert isinstance(split.lm_head.weight, DTensor)
    loss, theirs = gradients(plain, rows, 30)
    split_loss, ours = gradients(split, rows, 30)
    assert split_loss == pytest.approx(loss)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name])


@pytest.mark.usefixtures("_alone")
def test_a_batch_of_fillers_alone_changes_nothing_and_has_a_graph() -> None:
    """A process that has no row left has to take part in what the others send."""
    split = fully_shard(model_of(LlamaConfig), mesh=init_device_mesh("cpu", (1,)))
    loss, made = gradients(split, [FILLER, FILLER], 30)
    assert loss == 0.0
    assert all(gradient is not None and not gradient.any() for gradient in made.values())
