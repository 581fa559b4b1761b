"""How large a model is: its parameters, layers and files, read from headers alone.

What goes in: a resolved model. What it costs: milliseconds; no weight is read. gguf's own reader decodes every token of the
vocabulary, which takes seconds, so the header is walked here. An endpoint has neither figure.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from potstill.catalog.model import ResolvedModel
from potstill.errors import CorruptFileError
from potstill.gguf_metadata import read_metadata

_MAX_HEADER = 256 * 2**20
_FLOATING = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
# Bytes of each scalar type of GGUF metadata; 8 is a string, 9 an array
# (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
_GGUF_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING, _GGUF_ARRAY = 8, 9
# Tables that the export computes from the configuration; nothing in them was learnt.
_GGUF_COMPUTED = ("rope_freqs", "rope_factors_")


def count_parameters(model: ResolvedModel) -> int | None:
    """The number of weights, or None where it cannot be told (endpoints, packed quantised or pickled weights).

    Raises:
        CorruptFileError: a weight file has no readable header, or ends before its weights do.
    """
    if model.kind == "endpoint":
        return None
    if model.kind == "gguf":
        return _gguf_parameters(_existing_path(model))
    folder = _folder(model)
    shards = sorted(folder.glob("*.safetensors")) if folder else []
    counts = [_safetensors_parameters(shard) for shard in shards]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def count_layers(model: ResolvedModel) -> int | None:
    """The number of decoder layers, from config.json or the GGUF header; None where that does not tell, and for the hub."""
    return _told_size(model, "block_count", "num_hidden_layers")


def hidden_width(model: ResolvedModel) -> int | None:
    """The width of what a layer hands on, as `count_layers`."""
    return _told_size(model, "embedding_length", "hidden_size")


def _told_size(model: ResolvedModel, in_gguf: str, in_config: str) -> int | None:
    if model.path is None:
        return None
    if model.kind == "gguf":
        family = read_metadata(model.path, {"general.architecture"}).get("general.architecture")
        size = read_metadata(model.path, {f"{family}.{in_gguf}"}).get(f"{family}.{in_gguf}")
    else:
        config = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
        nested = config.get("text_config")  # of models that see as well as read
        size = {**(nested if isinstance(nested, dict) else {}), **config}.get(in_config)
    return size if isinstance(size, int) else None


def measure_disk_bytes(model: ResolvedModel) -> int | None:
    """Bytes of the files needed to run the model; None for endpoints. A folder's training checkpoints do not count."""
    if model.kind == "endpoint":
        return None
    if model.kind == "gguf":
        return _existing_path(model).stat().st_size
    folder = _folder(model)
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder else None


def _existing_path(model: ResolvedModel) -> Path:
    if model.path is None or not model.path.exists():
        raise CorruptFileError("the model is not where it was", where=str(model.path or model.name))
    return model.path


def _folder(model: ResolvedModel) -> Path | None:
    """The model's folder; for a model of the hub the copy that loading it has left on this machine."""
    if model.kind == "folder":
        return _existing_path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(model.model), local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _safetensors_parameters(path: Path) -> int | None:
    """Sum of the tensors' sizes."""
    tensors = _tensors(path).values()
    # Integer tensors are packed quantised weights: several parameters share an element.
    if any(entry["dtype"] not in _FLOATING for entry in tensors):
        return None
    return sum(int(math.prod(entry["shape"])) for entry in tensors)


def _tensors(path: Path) -> dict[str, dict[str, Any]]:
    """What the JSON header of a safetensors file says of each tensor (https://huggingface.co/docs/safetensors)."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MAX_HEADER:
                raise CorruptFileError("the header of a weight file is too long", where=str(path), found=f"{size} bytes")
            header = json.loads(file.read(size))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = 8 + size + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFileError("a weight file has no readable header", where=str(path), found=error) from error
    if path.stat().st_size < end:
        raise CorruptFileError(
            "a weight file was cut off", where=str(path), found=f"{path.stat().st_size} bytes", expected=f"{end} bytes"
        )
    return tensors


def tensor_names(folder: Path) -> list[str]:
    """The names of all weights of a folder in the hub's layout, by the hub's naming.

    Raises:
        CorruptFileError: a weight file has no readable header.
    """
    return [name for shard in sorted(folder.glob("*.safetensors")) for name in _tensors(shard)]


def _gguf_parameters(path: Path) -> int:
    try:
        with path.open("rb") as file:
            magic, version, tensor_count, entry_count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                raise CorruptFileError("this is no GGUF file of version 2 or 3", where=str(path), found=f"{magic!r}")
            for _ in range(entry_count):
                _skip_string(file)
                _skip_value(file, _number(file, "<I"))
            tensors = [_tensor(file) for _ in range(tensor_count)]
            end = file.tell() + max((offset for _, offset in tensors), default=0)
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise CorruptFileError("the GGUF header is cut off or broken", where=str(path), found=error) from error
    size = path.stat().st_size
    if size <= end:
        raise CorruptFileError(
            "the GGUF file was cut off", where=str(path), found=f"{size} bytes", expected=f"more than {end} bytes"
        )
    return sum(count for count, _ in tensors)


def _tensor(file: BinaryIO) -> tuple[int, int]:
    """How many weights a tensor holds, and where its data begin, counted from the end of the header."""
    name = file.read(_number(file, "<Q")).decode()
    shape = [_number(file, "<Q") for _ in range(_number(file, "<I"))]
    file.seek(4, 1)  # its type
    offset = _number(file, "<Q")
    return 0 if name.startswith(_GGUF_COMPUTED) else math.prod(shape), offset


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _GGUF_STRING:
        _skip_string(file)
    elif kind == _GGUF_ARRAY:
        element, length = struct.unpack("<IQ", file.read(12))
        if element in _GGUF_SCALAR_BYTES:
            file.seek(_GGUF_SCALAR_BYTES[element] * length, 1)
        else:
            for _ in range(length):
                _skip_value(file, element)
    else:
        file.seek(_GGUF_SCALAR_BYTES[kind], 1)


def _skip_string(file: BinaryIO) -> None:
    file.seek(_number(file, "<Q"), 1)


def _number(file: BinaryIO, layout: str) -> int:
    (value,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
    return int(value)
