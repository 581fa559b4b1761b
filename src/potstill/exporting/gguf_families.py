"""What llama.cpp must be told about a model of each family: its sizes, its rotary embedding, its tensors' names.

One `Family` is one architecture of a hub `config.json`. Everything else here is read from the configuration, so a model
with layers dropped or its vocabulary trimmed is described as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

from potstill.errors import ExportError

Config = Mapping[str, Any]
FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Family:
    """One supported architecture.

    Args:
        arch: llama.cpp's name for it.
        rotates_neighbours: llama.cpp rotates rows 2i and 2i+1 of a head together where the hub's layout rotates row i
            with row i + d/2, so the rows of q and k have to be interleaved.
        rope_kinds: The rotary scalings that llama.cpp computes for this architecture as transformers does.
        square_attention: llama.cpp takes heads x head_dim to be the hidden size.
    """

    arch: gguf.MODEL_ARCH
    rotates_neighbours: bool
    rope_kinds: frozenset[str]
    square_attention: bool = False


_SCALINGS = frozenset({"default", "linear", "yarn"})
_YARN_AS_LLAMA_CPP: Mapping[str, Any] = {
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
}

FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family(gguf.MODEL_ARCH.LLAMA, True, _SCALINGS | {"llama3"}),
    "Qwen2ForCausalLM": Family(gguf.MODEL_ARCH.QWEN2, False, _SCALINGS),
    "Qwen3ForCausalLM": Family(gguf.MODEL_ARCH.QWEN3, False, _SCALINGS),
    "Phi3ForCausalLM": Family(gguf.MODEL_ARCH.PHI3, False, frozenset({"default", "longrope"}), square_attention=True),
}


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a decoder, in units of the hub's configuration (positions, rows, heads)."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rms_epsilon: float
    tied_embeddings: bool
    sliding_window: int | None


@dataclass(frozen=True)
class Rope:
    """The rotary position embedding: `settings` are the scaling's own numbers, by the hub's names."""

    kind: str
    theta: float
    rotated: int
    original_context: int
    settings: Mapping[str, Any]


def family_of(config: Config) -> Family:
    """The family of a configuration.

    Raises:
        ExportError: The architecture is not one of `FAMILIES`, or its activation is not the one llama.cpp computes.
    """
    names = config.get("architectures") or []
    for name in names:
        if name in FAMILIES:
            break
    else:
        raise ExportError(
            "this architecture cannot be exported to GGUF",
            where="config.json: architectures",
            found=", ".join(names) or "nothing",
            expected=", ".join(FAMILIES),
        )
    if config.get("hidden_act", "silu") not in {"silu", "swish"}:
        raise ExportError(
            f"llama.cpp computes {name} with the activation 'silu' only",
            where="config.json: hidden_act",
            found=config["hidden_act"],
            expected="silu",
        )
    return FAMILIES[name]


def read_dimensions(config: Config, family: Family) -> Dimensions:
    """The sizes a configuration states.

    Raises:
        ExportError: A size is missing, or the head size is one that llama.cpp does not take for this family.
    """
    required = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    missing = [key for key in (*required, "max_position_embeddings") if config.get(key) is None]
    if missing:
        raise ExportError("the configuration is incomplete", where="config.json", expected=", ".join(missing))
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    if family.square_attention and heads * head_dim != hidden:
        raise ExportError(
            f"llama.cpp reads {family.arch.name.lower()} with heads x head size equal to the hidden size only",
            where="config.json",
            found=f"{heads} x {head_dim}",
            expected=str(hidden),
        )
    windowed = config.get("use_sliding_window", True)
    return Dimensions(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        feed_forward=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        context=int(config["max_position_embeddings"]),
        rms_epsilon=float(config.get("rms_norm_eps", 1e-6)),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        sliding_window=config.get("sliding_window") if windowed else None,
    )


def read_rope(config: Config, dimensions: Dimensions, family: Family) -> Rope:
    """The rotary embedding of a configuration, whether it stands under `rope_parameters` (transformers 5) or under
    `rope_scaling` and `rope_theta` (before).

    Raises:
        ExportError: The scaling is one that llama.cpp does not compute for this family.
    """
    settings = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    kind = str(settings.get("rope_type") or settings.get("type") or "default")
    if family.arch is gguf.MODEL_ARCH.PHI3 and kind in {"su", "yarn"}:
        kind = "longrope"  # what Phi-3's first configurations called it; transformers renames them so too
    if kind not in family.rope_kinds:
        raise ExportError(
            f"llama.cpp does not compute this rotary scaling for {family.arch.name.lower()}",
            where="config.json: rope_parameters.rope_type",
            found=kind,
            expected=", ".join(sorted(family.rope_kinds)),
        )
    for key, usual in (_YARN_AS_LLAMA_CPP if kind == "yarn" else {}).items():
        if settings.get(key) not in (None, usual):
            raise ExportError(
                "llama.cpp computes YaRN with the paper's own settings only",
                where=f"config.json: rope_parameters.{key}",
                found=settings[key],
                expected="nothing" if usual is None else str(usual),
            )
    partial = float(settings.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0)
    original = settings.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    return Rope(
        kind=kind,
        theta=float(settings.get("rope_theta", config.get("rope_theta")) or 10_000.0),
        rotated=int(dimensions.head_dim * partial),
        original_context=int(original or dimensions.context),
        settings=settings,
    )


def describe(writer: gguf.GGUFWriter, dimensions: Dimensions, rope: Rope, vocabulary_size: int) -> None:
    """Write the sizes and the rotary embedding as metadata of the file."""
    writer.add_context_length(dimensions.context)
    writer.add_embedding_length(dimensions.hidden)
    writer.add_block_count(dimensions.layers)
    writer.add_feed_forward_length(dimensions.feed_forward)
    writer.add_head_count(dimensions.heads)
    writer.add_head_count_kv(dimensions.kv_heads)
    writer.add_key_length(dimensions.head_dim)
    writer.add_value_length(dimensions.head_dim)
    writer.add_layer_norm_rms_eps(dimensions.rms_epsilon)
    writer.add_vocab_size(vocabulary_size)
    if dimensions.sliding_window:
        writer.add_sliding_window(int(dimensions.sliding_window))
    writer.add_rope_dimension_count(rope.rotated)
    writer.add_rope_freq_base(rope.theta)
    if rope.kind in {"linear", "yarn"}:
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope.kind.upper()])
        writer.add_rope_scaling_factor(_setting(rope, "factor"))
    if rope.kind in {"yarn", "longrope"}:
        writer.add_rope_scaling_orig_ctx_len(rope.original_context)
    if rope.kind == "longrope":
        writer.add_rope_scaling_attn_factors(longrope_attention_factor(rope, dimensions.context))


def rope_tensors(rope: Rope) -> dict[str, FloatArray]:
    """The frequency divisors that llama.cpp reads as tensors, by tensor name; each of shape [rotated / 2], float32.

    Raises:
        ExportError: A list of factors has another length.
    """
    if rope.kind == "llama3":
        return {"rope_freqs.weight": llama3_divisors(rope)}
    if rope.kind != "longrope":
        return {}
    tensors = {}
    for term in ("long", "short"):
        factors = np.asarray(rope.settings.get(f"{term}_factor") or [], dtype=np.float32)
        if factors.shape != (rope.rotated // 2,):
            raise ExportError(
                f"LongRoPE needs one {term} factor for each pair of rotated rows",
                where=f"config.json: rope_parameters.{term}_factor",
                found=f"{factors.size} factors",
                expected=f"{rope.rotated // 2}",
            )
        tensors[f"rope_factors_{term}.weight"] = factors
    return tensors


def longrope_attention_factor(rope: Rope, context: int) -> float:
    """What LongRoPE multiplies the rotated vectors by, unless the configuration states it: sqrt(1 + ln s / ln L) for a
    context grown s-fold from L positions (as in Microsoft's Phi-3 and in transformers; Ding et al. 2024,
    arXiv:2402.13753)."""
    stated = rope.settings.get("attention_factor")
    if stated is not None:
        return float(stated)
    scale = float(rope.settings.get("factor") or context / rope.original_context)
    return 1.0 if scale <= 1.0 else math.sqrt(1.0 + math.log(scale) / math.log(rope.original_context))


def llama3_divisors(rope: Rope) -> FloatArray:
    """The divisor of each rotary frequency in Llama 3.1's scaling; shape [rotated / 2].

    A wavelength below L / high_freq_factor is kept, one above L / low_freq_factor is stretched by `factor`, and
    between the two the frequency is interpolated (Meta's `apply_scaling` in llama-models, L being the original
    context).
    """
    factor, low, high = (_setting(rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    exponents = np.arange(0, rope.rotated, 2, dtype=np.float64) / rope.rotated
    wavelengths = 2 * math.pi * rope.theta**exponents
    turns = rope.original_context / wavelengths
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: FloatArray = (1.0 / ((1.0 - kept) / factor + kept)).astype(np.float32)
    return divisors


def _setting(rope: Rope, key: str) -> float:
    value = rope.settings.get(key)
    if value is None:
        raise ExportError(f"the rotary scaling '{rope.kind}' needs '{key}'", where="config.json: rope_parameters", expected=key)
    return float(value)


def tensor_names(family: Family, dimensions: Dimensions, hub_names: Iterable[str]) -> dict[str, str]:
    """llama.cpp's names of the tensors of a checkpoint, by the hub's.

    Raises:
        ExportError: The checkpoint has a tensor that the family does not.
    """
    table = gguf.get_tensor_name_map(family.arch, dimensions.layers)
    names = {hub_name: table.get_name(hub_name, try_suffixes=(".weight", ".bias")) for hub_name in hub_names}
    for hub_name, name in names.items():
        if name is None:
            raise ExportError(
                "the checkpoint holds a tensor that its architecture does not have",
                where="model.safetensors",
                found=hub_name,
                expected=f"the tensors of {family.arch.name.lower()} with {dimensions.layers} layers",
            )
    return {hub_name: name for hub_name, name in names.items() if name is not None}


def interleave_halves(rows: FloatArray, heads: int) -> FloatArray:
    """Reorder the rows of q or k, shape [heads * d, ...], so that row i and row i + d/2 of a head become neighbours."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
