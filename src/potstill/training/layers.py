"""What a student learns from inside the teacher: hidden states and attention of layers that belong together.

Hidden states come from the teacher beside the student, or from where they were captured. Attention needs the teacher beside it
at every step, and the slow way to compute it in both, as the fast kernels never hold its probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from potstill.signals.source import LayerSource, Observation, TargetBatch
from potstill.student.attention import attention_is_told
from potstill.student.shrink import decoder_layers
from potstill.training.losses.mix import LAYER_LOSSES
from potstill.training.losses.transfer import (
    LayerPairs,
    Projectors,
    attention_loss,
    attention_map,
    hidden_loss,
    layer_map,
)

MODULE = "potstill_projectors"  # under this name the projectors are part of the student while it is trained
FILE = "projectors.tensors"  # of the same format, under a name by which it is not taken for weights of the student


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass of the student shows of its layers: at targets (N, H), and attention (B, heads, L, L)."""

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LayerTransfer:
    """Losses on layers, beside those on tokens.

    hidden, attention: which layers belong together, empty where a loss has no weight. projectors: trained with the student.
    """

    teacher: LayerSource
    hidden: LayerPairs
    attention: LayerPairs
    projectors: Projectors

    @property
    def names(self) -> tuple[str, ...]:
        """The losses, in the order in which `losses` gives them."""
        return tuple(name for name, pairs in (("hidden", self.hidden), ("attention", self.attention)) if pairs)

    def observe(self, batch: TargetBatch) -> Observation:
        """The teacher's pass over a batch."""
        hidden, attention = ([theirs for _, theirs in pairs] for pairs in (self.hidden, self.attention))
        return self.teacher.observe(batch, hidden_layers=hidden, attention_layers=attention)

    @contextmanager
    def watching(self, network: Any, positions: torch.Tensor) -> Iterator[Seen]:
        """While inside, a pass of the student leaves behind what the losses compare."""
        seen, layers = Seen(), decoder_layers(network)
        with ExitStack() as stack:
            for ours, _ in self.hidden:
                handle = layers[ours].register_forward_hook(_keep_states(seen.hidden, ours, positions))
                stack.callback(handle.remove)
            for ours, _ in self.attention:
                handle = layers[ours].self_attn.register_forward_hook(_keep_attention(seen.attention, ours))
                stack.callback(handle.remove)
            stack.enter_context(attention_is_told(network) if self.attention else nullcontext())
            yield seen

    def losses(
        self, seen: Seen, observed: Observation, batch: Mapping[str, Any], target_count: torch.Tensor | int
    ) -> list[torch.Tensor]:
        """Scalars with a graph, in the order of `names`, each divided by the step's targets."""
        weights, made = batch.get("weights"), []
        if self.hidden:
            ours = self.projectors([seen.hidden[layer] for layer, _ in self.hidden])
            made.append(hidden_loss(ours, [observed.hidden[layer] for _, layer in self.hidden], weights, target_count))
        if self.attention:
            made.append(attention_loss(
                [seen.attention[layer] for layer, _ in self.attention],
                [observed.attention[layer] for _, layer in self.attention], batch["positions"], weights, target_count,
            ))
        return made


def layer_transfer(
    network: Any, teacher: LayerSource, losses: Collection[str], kept: Sequence[int] | None
) -> LayerTransfer | None:
    """The losses on layers that are asked for, with projectors that become part of the student while it is trained.

    Args:
        network: The student, adapters and all.
        teacher: The teacher beside it, or what was captured of its layers.
        losses: The names of all losses; those on layers are `hidden` and `attention`.
        kept: The teacher's layers that the student was made of, where that is so.

    Returns:
        None where no loss is on layers.
    """
    if not set(losses) & set(LAYER_LOSSES):
        return None
    decoder = decoder_of(network)
    count = len(decoder_layers(decoder)), teacher.layer_count
    hidden = layer_map(*count, kept) if "hidden" in losses else ()
    attention = attention_map(*count, kept) if "attention" in losses else ()
    projectors = Projectors(len(hidden), decoder.get_output_embeddings().weight.shape[1], teacher.width)
    network.add_module(MODULE, projectors.to(decoder.device))
    if decoder is network:  # an adapter's wrapper saves nothing but adapters anyway
        names = {f"{MODULE}.{name}" for name in projectors.state_dict()}
        network._keys_to_ignore_on_save = set(network._keys_to_ignore_on_save or ()) | names
    return LayerTransfer(teacher, hidden, attention, projectors)


def save_projectors(transfer: LayerTransfer, checkpoint: Path) -> None:
    """Write them beside a checkpoint's weights, of which they are no part."""
    save_file(transfer.projectors.state_dict(), checkpoint / FILE)


def load_projectors(transfer: LayerTransfer, checkpoint: Path) -> None:
    """Go on with those of a checkpoint."""
    transfer.projectors.load_state_dict(load_file(checkpoint / FILE, device=str(next(transfer.projectors.parameters()).device)))


def decoder_of(network: Any) -> Any:
    """The causal language model itself, within an adapter's wrapper."""
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def _keep_states(into: dict[int, torch.Tensor], index: int, positions: torch.Tensor) -> Any:
    def hook(_layer: Any, _args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        into[index] = states.flatten(0, 1).index_select(0, positions)

    return hook


def _keep_attention(into: dict[int, torch.Tensor], index: int) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        into[index] = output[1]

    return hook
