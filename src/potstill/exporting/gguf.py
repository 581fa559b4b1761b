"""Write a student as one GGUF file: what llama.cpp, Ollama and LM Studio run.

In: a folder in the hub's layout (config.json, safetensors, tokenizer.json). Out: one file with the weights, the
tokenizer and the chat template. Weights are read, converted and written one tensor at a time, so the memory needed is
that of the largest tensor, in float32. Matrices are stored in half precision or in blocks of 32 eight-bit weights,
vectors in float32.

Known differences to transformers, all of llama.cpp's making: it takes no notice of Phi-3's and Qwen2's sliding
window; it chooses between LongRoPE's short and long factors by the context it was opened with, not by the length of
the prompt; and by GPT-4o's rule (Phi-4-mini) it cuts words of scripts with combining marks, as Hindi and Thai, into
more tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from potstill.errors import CorruptFileError, ExportError, MissingExtraError

try:
    import gguf
    import numpy as np
    from safetensors import SafetensorError, safe_open
except ModuleNotFoundError as error:
    raise MissingExtraError("export", error.name or "gguf") from error

from potstill.exporting import gguf_families as families
from potstill.exporting.gguf_tokenizer import read_vocabulary
from potstill.gguf_metadata import read_metadata

Quantization = Literal["f16", "q8_0"]

DOWN_PROJECTIONS = ("ffn_down",)
"""What suffers most from 8 bits: llama.cpp rounds to 8 bits what such a matrix is multiplied by too, and the products inside a
gated feed-forward part, which are what these read, have outliers. Of a student of 8 layers that was little trained, the file
lost 0.035 nats a token, and 0.003 with these in half precision, 11 % larger."""

_FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
_Q8_0_BLOCK = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]


@dataclass(frozen=True)
class GGUFExport:
    """A file that was written: its size in bytes, how many tensors it holds and how its matrices are stored."""

    path: Path
    size_bytes: int
    tensors: int
    quantization: Quantization


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the file to be: its name, shape and type, and how to get its values in float32."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    read: Callable[[], families.FloatArray]

    def bytes_on_disk(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape) // block * size)


def export_gguf(
    model_dir: Path,
    out_file: Path,
    quantization: Quantization,
    *,
    name: str,
    chat_template: str | None = None,
    in_half: Collection[str] = (),
) -> GGUFExport:
    """Write the model of a folder as one GGUF file.

    Args:
        model_dir: A folder in the hub's layout.
        out_file: The file to write; it appears only when it is complete.
        quantization: How matrices are stored. `q8_0` leaves those whose rows are no multiple of 32 in half precision.
        name: What the file calls the model.
        chat_template: The Jinja template to store; by default the folder's own.
        in_half: Kinds of matrices that stay in half precision, such as `DOWN_PROJECTIONS`.

    Raises:
        ExportError: The architecture, its rotary scaling or its tokenizer is none that llama.cpp computes alike, the
            folder is incomplete, or a weight is not finite in half precision. Nothing is left behind.
        CorruptFileError: The weights cannot be read.
    """
    config = read_config(model_dir)
    family, dimensions, rope = check_architecture(config)
    with ExitStack() as open_files:
        weights = _open_weights(model_dir, open_files)
        tensors = list(_plan(weights, family, dimensions, rope, quantization, in_half))
        rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
        vocabulary = read_vocabulary(model_dir, config, rows, chat_template)
        unfinished = out_file.with_name(f".{out_file.name}.{os.getpid()}.part")
        try:
            writer = gguf.GGUFWriter(unfinished, gguf.MODEL_ARCH_NAMES[family.arch])
            _describe(writer, vocabulary.display_name(name), quantization)
            families.describe(writer, dimensions, rope, rows)
            vocabulary.describe(writer)
            _write(writer, tensors)
            unfinished.replace(out_file)
        finally:
            unfinished.unlink(missing_ok=True)
    return GGUFExport(out_file, out_file.stat().st_size, len(tensors), quantization)


def check_architecture(config: families.Config) -> tuple[families.Family, families.Dimensions, families.Rope]:
    """What a configuration says about a model that can be exported.

    Raises:
        ExportError: The architecture or its rotary scaling is none that llama.cpp computes alike.
    """
    family = families.family_of(config)
    dimensions = families.read_dimensions(config, family)
    return family, dimensions, families.read_rope(config, dimensions, family)


def check_exportable(model_dir: Path) -> None:
    """Whether `export_gguf` can write the model of a folder, told from its configuration, headers and tokenizer alone.

    Raises:
        ExportError: See `export_gguf`.
        CorruptFileError: The weights cannot be read.
    """
    config = read_config(model_dir)
    family, dimensions, rope = check_architecture(config)
    with ExitStack() as open_files:
        tensors = list(_plan(_open_weights(model_dir, open_files), family, dimensions, rope, "f16"))
        rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    read_vocabulary(model_dir, config, rows, None)


def check_family(gguf_file: Path) -> None:
    """Whether a student that comes as a GGUF file is of an architecture that can be written again.

    Raises:
        ExportError: It is not.
    """
    known = [gguf.MODEL_ARCH_NAMES[family.arch] for family in families.FAMILIES.values()]
    name = read_metadata(gguf_file, {"general.architecture"}).get("general.architecture")
    if name not in known:
        raise ExportError(
            "this architecture cannot be exported to GGUF", where=str(gguf_file), found=name, expected=", ".join(known)
        )


def read_config(model_dir: Path) -> families.Config:
    """The configuration of a folder in the hub's layout.

    Raises:
        ExportError: There is none, or it is no JSON object.
    """
    path = model_dir / "config.json"
    if not path.is_file():
        raise ExportError("this is no model folder", where=str(model_dir), expected="config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError("the configuration is not JSON", where=str(path), found=error) from error
    if not isinstance(config, dict):
        raise ExportError("the configuration is no JSON object", where=str(path), found=type(config).__name__)
    return config


def _open_weights(model_dir: Path, open_files: ExitStack) -> dict[str, Any]:
    """Every tensor name of the checkpoint, with the open safetensors file it is in."""
    index = model_dir / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        shards = ["model.safetensors"]
    weights = {}
    for shard in shards:
        path = model_dir / shard
        if not path.is_file():
            raise ExportError("the weights are missing", where=str(model_dir), expected=shard)
        try:
            file = open_files.enter_context(safe_open(path, framework="pt"))
        except SafetensorError as error:
            raise CorruptFileError("a weight file cannot be read", where=str(path), found=error) from error
        weights.update(dict.fromkeys(file.keys(), file))
    return weights


def _plan(
    weights: dict[str, Any],
    family: families.Family,
    dimensions: families.Dimensions,
    rope: families.Rope,
    quantization: Quantization,
    in_half: Collection[str] = (),
) -> Iterator[_Tensor]:
    """The tensors of the file, in the order of the checkpoint, none of them read yet."""
    _check_complete(weights, dimensions)
    for name, values in families.rope_tensors(rope).items():
        yield _Tensor(name, values.shape, gguf.GGMLQuantizationType.F32, partial(np.asarray, values))
    left_out = {"lm_head.weight"} if dimensions.tied_embeddings else set()  # the embedding serves as output
    left_out |= {name for name in weights if name.endswith("rotary_emb.inv_freq")}  # llama.cpp computes it
    stored = [hub_name for hub_name in weights if hub_name not in left_out]
    for hub_name, name in families.tensor_names(family, dimensions, stored).items():
        file = weights[hub_name]
        shape = tuple(file.get_slice(hub_name).get_shape())
        heads = _heads_to_interleave(hub_name, dimensions) if family.rotates_neighbours else None
        stored_as = _storage_type(shape, "f16" if any(kind in name.split(".") for kind in in_half) else quantization)
        yield _Tensor(name, shape, stored_as, _reader(file, hub_name, heads))


def _check_complete(weights: dict[str, Any], dimensions: families.Dimensions) -> None:
    required = ["model.embed_tokens.weight", "model.norm.weight"]
    required += [] if dimensions.tied_embeddings else ["lm_head.weight"]
    required += [f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(dimensions.layers)]
    missing = [name for name in required if name not in weights]
    if missing:
        raise ExportError(
            "the weights are incomplete", where="model.safetensors", found=f"no {missing[0]}", expected="what config.json says"
        )


def _heads_to_interleave(hub_name: str, dimensions: families.Dimensions) -> int | None:
    if ".q_proj." in hub_name:
        return dimensions.heads
    return dimensions.kv_heads if ".k_proj." in hub_name else None


def _storage_type(shape: tuple[int, ...], quantization: Quantization) -> gguf.GGMLQuantizationType:
    if len(shape) < 2:
        return gguf.GGMLQuantizationType.F32
    if quantization == "q8_0" and shape[-1] % _Q8_0_BLOCK == 0:
        return gguf.GGMLQuantizationType.Q8_0
    return gguf.GGMLQuantizationType.F16


def _reader(file: Any, hub_name: str, heads: int | None) -> Callable[[], families.FloatArray]:
    def read() -> families.FloatArray:
        values: families.FloatArray = file.get_tensor(hub_name).float().numpy()
        if not np.all(np.abs(values) <= np.finfo(np.float16).max):
            raise ExportError("a weight is not finite, or too large for half precision", where=f"model.safetensors: {hub_name}")
        return values if heads is None else families.interleave_halves(values, heads)

    return read


def _describe(writer: gguf.GGUFWriter, name: str, quantization: Quantization) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write(writer: gguf.GGUFWriter, tensors: list[_Tensor]) -> None:
    for tensor in tensors:
        # the type of the values handed in decides nothing here: raw_dtype does
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes_on_disk(), raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(gguf.quants.quantize(tensor.read(), tensor.type))
    writer.close()
