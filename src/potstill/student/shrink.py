"""Make a model shallower by dropping whole layers.

Which ones: those that change their input least, by block influence (Men et al. 2024, "ShortGPT: Layers in Large Language
Models are More Redundant Than You Expect", arXiv:2403.03853): 1 - cosine between what goes into a layer and what comes out,
averaged over the tokens of calibration texts. The first and the last layer always stay: they map from the embedding and to
the head. What it costs: one forward pass over at most 16 calibration texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from potstill.errors import InputError

_MAX_TOKENS = 512  # of one calibration text
_ALL_TOKENS = 6144  # of all of them: four for each feature of a feed-forward part 1,536 wide, and minutes fewer for long texts
_MEASURED_TEXTS = 16  # the mean over tokens is steady long before


def calibration_ids(tokenizer: Any, texts: Sequence[str]) -> list[torch.Tensor]:
    """Rendered calibration texts as 1 x tokens ids, each cut at 512 tokens; only the first texts of about 6,000 tokens."""
    found: list[torch.Tensor] = []
    left = _ALL_TOKENS
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids[: min(_MAX_TOKENS, left)]
        if not ids:
            break
        found.append(torch.tensor([ids]))
        left -= len(ids)
    return found


def choose_layers(network: Any, calibration: Sequence[torch.Tensor], count: int) -> list[int]:
    """Indices of the layers to keep, in order.

    Args:
        network: A causal language model of transformers with a list of decoder layers.
        calibration: Token ids of rendered texts, 1 x tokens each; without any, evenly spaced layers are kept.
        count: How many layers to keep.

    Raises:
        InputError: the model has fewer layers, or no list of layers that could be cut.
    """
    total = len(decoder_layers(network))
    if count > total:
        raise InputError(
            "the student has fewer layers than asked for", where="student.shrink.layers", found=str(count),
            expected=f"1..{total}",
        )
    if count == total or not calibration:
        return evenly_spaced(total, count)
    return most_influential(block_influence(network, calibration[:_MEASURED_TEXTS]), count)


def evenly_spaced(total: int, count: int) -> list[int]:
    """`count` of `total` indices at equal distances, the first and the last among them."""
    if count == 1:
        return [0]
    return [round(i * (total - 1) / (count - 1)) for i in range(count)]


def most_influential(influence: Sequence[float], count: int) -> list[int]:
    """The first and the last index, and those of the largest influence between them, in order."""
    last = len(influence) - 1
    ranked = sorted(range(1, last), key=lambda i: influence[i], reverse=True)
    return sorted([0, last, *ranked][:count])


def block_influence(network: Any, texts: Sequence[torch.Tensor]) -> list[float]:
    """1 - cosine between input and output of every layer, the mean over all tokens of all texts; between 0 and 2."""
    layers = decoder_layers(network)
    sums, tokens = [0.0] * len(layers), 0

    def measure(index: int) -> Any:
        def hook(_layer: Any, args: tuple[Any, ...], output: Any) -> None:
            after = output[0] if isinstance(output, tuple) else output
            sums[index] += (1 - functional.cosine_similarity(args[0].float(), after.float(), dim=-1)).sum().item()

        return hook

    handles = [layer.register_forward_hook(measure(i)) for i, layer in enumerate(layers)]
    try:
        for ids in texts:
            with torch.no_grad():
                network.get_decoder()(input_ids=ids.to(network.device), use_cache=False)
            tokens += ids.shape[1]
    finally:
        for handle in handles:
            handle.remove()
    return [total / max(tokens, 1) for total in sums]


def keep_layers(network: Any, kept: Sequence[int]) -> None:
    """Drop all other layers of the network, in place; its configuration follows."""
    layers = decoder_layers(network)
    total = len(layers)
    network.model.layers = torch.nn.ModuleList(layers[i] for i in kept)
    for index, layer in enumerate(network.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # where the cache puts the layer's keys and values
    config = network.config
    for name, value in list(vars(config).items()):
        # One entry a layer, such as layer_types; a model may by chance have as many ids of tokens that end a text.
        if isinstance(value, list) and len(value) == total and not name.endswith("token_id"):
            setattr(config, name, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)


def decoder_layers(network: Any) -> Any:
    """The list of decoder layers.

    Raises:
        InputError: the architecture keeps its layers elsewhere.
    """
    layers = getattr(getattr(network, "model", None), "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise InputError(
            "layers of this architecture cannot be dropped", where="student.shrink.layers", found=type(network).__name__,
            expected="a decoder such as Llama, Qwen, Mistral, Gemma or Phi-3",
        )
    return layers
