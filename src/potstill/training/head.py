"""The head of a student at work: on answer tokens alone, and on a loss in place of logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

OfHidden = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def head_gives(head: torch.nn.Module, positions: torch.Tensor, compute: OfHidden) -> Iterator[None]:
    """While inside, the head gives `compute(hidden)` of these positions alone, in place of the logits of all.

    Args:
        head: The output embedding of a causal language model, called by the model's own forward with (B, L, H). What is
            computed within that forward sees the parameters as the wrappers for several devices hand them out, and all hooks
            at work.
        positions: (N,) indices into the B*L flattened positions.
        compute: Gets (N, H) in float32. Logits must not be rounded to bfloat16 before the softmax, as autocast would do: that
            costs 4 to 23 % of the gradient's accuracy.
    """

    def of_positions(hidden: torch.Tensor) -> torch.Tensor:
        return compute(hidden.flatten(0, -2).index_select(0, positions).float())

    own = vars(head).get("forward")
    head.forward = of_positions
    try:
        yield
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


@contextmanager
def head_sees_only(head: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """While inside, the head computes logits for these positions alone: (N, V) instead of (B, L, V).

    The head's own forward computes them, in float32, with adapters and biases; what the model does to its logits comes after.
    """
    forward = head.forward

    def outside_of_autocast(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits: torch.Tensor = forward(hidden)
        return logits

    with head_gives(head, positions, outside_of_autocast):
        yield


def is_plain(network: Any) -> bool:
    """Whether the logits are the last hidden state times the head's matrix, plus its bias, and nothing else.

    They are not where an adapter sits on the head, or the model scales or caps what the head gives. That is seen in what the
    model does with a marked value, rather than in the names that configurations have for it.
    """
    head = network.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return False
    mark = torch.tensor([[3.0, -40.0]], device=head.weight.device)
    with torch.no_grad(), head_gives(head, torch.zeros(1, dtype=torch.long, device=mark.device), lambda hidden: mark):
        given = network(input_ids=torch.zeros((1, 1), dtype=torch.long, device=mark.device), use_cache=False).logits
    return bool(torch.equal(given.float(), mark))


def sum_tied_gradients_in_place(network: Any) -> None:
    """Where embedding and head are one matrix, add the embedding's gradient, a few rows, to the head's, which is whole.

    Otherwise the embedding's is a whole matrix too, nearly all zeros, and their sum a third. A loss that makes the head's
    gradient itself has to take the matrix from `weight_of_loss`.
    """
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    if embedding.weight.requires_grad and head.weight is embedding.weight:
        embedding.sparse = True


def weight_of_loss(network: Any) -> torch.Tensor:
    """The head's matrix (V, H), for a loss that makes its gradient itself.

    After `sum_tied_gradients_in_place` it is a leaf of its own, whose gradient is handed over as soon as it is there, so that
    the embedding's finds it in place. Autograd copies the whole matrix before it adds a few rows to what came from Python.
    """
    embedding, weight = network.get_input_embeddings(), network.get_output_embeddings().weight
    if not (torch.is_grad_enabled() and getattr(embedding, "sparse", False) and embedding.weight is weight):
        return weight
    leaf = weight.detach().requires_grad_()
    leaf.register_post_accumulate_grad_hook(partial(_hand_over, weight))
    return leaf


def _hand_over(weight: torch.Tensor, leaf: torch.Tensor) -> None:
    gradient, leaf.grad = leaf.grad, None
    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
