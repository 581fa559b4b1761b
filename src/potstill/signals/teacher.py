"""A teacher that computes now: one forward pass a batch, of which only the target positions are kept.

In: a batch of tokens. Out: the last hidden states at its N target positions and the teacher's head, from which a loss makes
logits tile by tile; those of all positions, or all N at once, never exist. On request also hidden states and attention
probabilities of chosen layers. What it costs: the weights, in half precision where the processor multiplies bfloat16, and one
forward pass a batch. The head is given as it is: whoever multiplies by it has to add up in float32 (`products`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch

from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError
from potstill.inference import model_identity
from potstill.quiet import quiet_transformers
from potstill.signals.caps import cap_of, not_linear
from potstill.signals.signal import Dense
from potstill.signals.source import Observation, TargetBatch
from potstill.student.attention import attention_is_told
from potstill.student.gguf_reading import gguf_read_once
from potstill.student.load import open_model
from potstill.student.processor import multiplies_bfloat16
from potstill.student.shrink import decoder_layers

_PROBE_TOKENS = 8
_SAME = 1e-3  # by how much logits may differ, relative to the largest, and still count as the head's own


class LiveTeacher:
    """A local teacher as a `SignalSource`.

    Args:
        network: A causal language model of transformers on the device it shall run on. It is frozen, and where bfloat16 is
            fast its layers' matrices are kept in it from here on; its head stays as it is.
        bfloat16: Whether the layers multiply in bfloat16; by default where the processor or GPU does so natively.

    Raises:
        InputError: the model's logits are not linear in its last hidden state.
    """

    def __init__(self, network: Any, *, bfloat16: bool | None = None) -> None:
        self._network = network.eval().requires_grad_(False)
        head = network.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear):
            raise InputError(
                "this teacher's head is no plain matrix", where="teacher", found=type(head).__name__,
                expected="a causal language model of transformers, with adapters merged into it",
            )
        self._weight, self._bias = head.weight, head.bias
        self._scale = _scale_after_head(network, self._weight, self._bias)
        self._bfloat16 = multiplies_bfloat16() if bfloat16 is None else bfloat16
        if self._bfloat16:
            for layer in decoder_layers(network):
                for module in layer.modules():
                    if isinstance(module, torch.nn.Linear):
                        module.to(torch.bfloat16)  # what autocast would do anew at every pass

    @property
    def device(self) -> torch.device:
        """Where it computes, and where batches have to be."""
        return self._weight.device

    @property
    def width(self) -> int:
        """Ht, the width of its hidden states."""
        return int(self._weight.shape[1])

    @property
    def layer_count(self) -> int:
        """How many decoder layers it has."""
        return len(decoder_layers(self._network))

    @property
    def head_rows(self) -> int:
        """V', the rows of its head: its tokens, and padding beyond them."""
        return int(self._weight.shape[0])

    def signal(self, batch: TargetBatch, temperature: float) -> Dense:
        """The whole distributions at the batch's positions, as hidden states and a head."""
        return self.signal_in(self.observe(batch), temperature)

    def signal_in(self, observed: Observation, temperature: float) -> Dense:
        """The signal that lies in what `observe` gave."""
        assert observed.last is not None
        return Dense(observed.last, self._weight, self._bias, temperature)

    def observe(
        self, batch: TargetBatch, *, hidden_layers: Sequence[int] = (), attention_layers: Sequence[int] = ()
    ) -> Observation:
        """One forward pass, and what is asked for of it; layers count from 0."""
        layers = decoder_layers(self._network)
        outputs: dict[int, torch.Tensor] = {}
        attention: dict[int, torch.Tensor] = {}
        with ExitStack() as stack:
            for index in hidden_layers:
                handle = layers[index].register_forward_hook(_keep(outputs, index, batch.positions))
                stack.callback(handle.remove)
            for index in attention_layers:
                handle = layers[index].self_attn.register_forward_hook(_keep_attention(attention, index))
                stack.callback(handle.remove)
            stack.enter_context(attention_is_told(self._network) if attention_layers else nullcontext())
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16))
            states = self._network.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        last = _at(states, batch.positions)
        if self._scale != 1.0:
            last = last * self._scale
        return Observation(last, outputs, attention)


def open_teacher(model: ResolvedModel) -> tuple[LiveTeacher, Any, Mapping[str, Any]]:
    """A teacher from a folder, a hub id or a GGUF file (whose blocks are unpacked to float32), on the GPU where there is one.

    Returns:
        The teacher, its tokenizer, and its identity by content.

    Raises:
        InputError: it cannot be opened (an endpoint has no weights to open), or its logits are not linear in its last hidden
            state.
    """
    on_gpu = torch.cuda.is_available()
    with quiet_transformers(), gguf_read_once() if model.kind == "gguf" else nullcontext():
        tokenizer, network = open_model(model, role="teacher")
    network = network.to("cuda") if on_gpu else network
    if not on_gpu and network.dtype != torch.float32:  # transformers refuses to change a GGUF file's, which is float32 already
        network = network.float()
    return LiveTeacher(network), tokenizer, model_identity(model)


def _scale_after_head(network: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> float:
    """By what the model multiplies its head's output: some do, under names that mean opposite things in two architectures.

    So it is measured, on a few tokens. A factor can be folded into the hidden states where the head has no bias.
    """
    config = network.config.get_text_config()
    capped = cap_of(config.to_dict())
    if capped is not None:
        raise not_linear(capped)
    tokens = torch.arange(min(_PROBE_TOKENS, config.vocab_size), device=weight.device)[None]
    with torch.no_grad():
        states = network.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
        told = network(input_ids=tokens, use_cache=False).logits[0].float()
        ours = torch.nn.functional.linear(states[0].to(weight.dtype), weight, bias).float()
    scale = float((told * ours).sum() / ours.square().sum().clamp_min(1e-30))
    tolerance = 2e-2 if network.dtype in (torch.bfloat16, torch.float16) else _SAME  # its own logits are rounded
    if abs(scale - 1.0) <= tolerance:
        scale = 1.0
    elif bias is not None:
        raise not_linear(f"logits {scale:g} times those of its head, which has a bias")
    if not (told - scale * ours).abs().max() <= tolerance * told.abs().max():
        raise not_linear(f"logits other than its head's ({type(network).__name__})")
    return scale


def _keep(into: dict[int, torch.Tensor], index: int, positions: torch.Tensor) -> Any:
    def hook(_layer: Any, _args: Any, output: Any) -> None:
        into[index] = _at(output[0] if isinstance(output, tuple) else output, positions)

    return hook


def _keep_attention(into: dict[int, torch.Tensor], index: int) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        into[index] = output[1]

    return hook


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(B, L, H) to (N, H) float32."""
    return states.flatten(0, 1).index_select(0, positions).float()
