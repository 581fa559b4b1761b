"""A model is what it holds, not where it lies: its identity survives a move, and no change of its content does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.catalog.model import ResolvedModel
from potstill.errors import EndpointError, ModelNotFoundError, PotstillError
from potstill.inference import model_identity
from potstill.inference.endpoint import EndpointEngine
from potstill.inference.identity import local_folder

MIB = 2**20
# Larger than what is read whole, almost all of it a hole in the file, which takes no room on the disk.
LARGE_BYTES = 260 * MIB


def gguf(file: Path) -> ResolvedModel:
    return ResolvedModel("mine", "gguf", path=file)


def sparse_copy(file: Path, copy: Path, longer_by: int = 0) -> Path:
    """The first and the last MiB of a large file with a hole between them, the copy's size being that of the file or more."""
    with file.open("rb") as source, copy.open("wb") as target:
        target.write(source.read(MIB))
        source.seek(-MIB, 2)
        target.seek(file.stat().st_size + longer_by - MIB)
        target.write(source.read(MIB))
    return copy


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "model.gguf"
    with file.open("wb") as target:
        target.write(b"GGUF" + bytes(range(200)))
        target.seek(LARGE_BYTES - 200)
        target.write(bytes(range(200)))
    return file


@pytest.mark.parametrize("place", [0, MIB - 1, -MIB, -1])
def test_one_other_byte_at_either_end_of_a_large_file_is_another_model(large: Path, tmp_path: Path, place: int) -> None:
    copy = sparse_copy(large, tmp_path / "changed.gguf")
    with copy.open("r+b") as file:
        file.seek(place, 2 if place < 0 else 0)
        file.write(b"\xff")
    assert copy.stat().st_size == LARGE_BYTES
    assert model_identity(gguf(copy)) != model_identity(gguf(large))


def test_a_large_file_is_the_same_model_elsewhere_and_longer_another(large: Path, tmp_path: Path) -> None:
    identity = model_identity(gguf(large))
    assert model_identity(gguf(sparse_copy(large, tmp_path / "other name.gguf"))) == identity
    assert model_identity(gguf(sparse_copy(large, tmp_path / "longer.gguf", longer_by=1))) != identity
    told = json.dumps(dict(identity))
    assert large.name not in told
    assert str(large.parent) not in told


@pytest.mark.parametrize("place", [0, 500, 999])
def test_any_byte_of_a_small_file_counts(tmp_path: Path, place: int) -> None:
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    one.write_bytes(bytes(1000))
    other.write_bytes(bytes(place) + b"\1" + bytes(999 - place))
    assert model_identity(gguf(one)) != model_identity(gguf(other))


FILES = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b'{"eos_token_id": 2}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model-00001-of-00002.safetensors": b"first half",
    "model-00002-of-00002.safetensors": b"second half",
}


def folder_of(folder: Path, **changes: bytes) -> ResolvedModel:
    folder.mkdir(parents=True)
    for name, content in {**FILES, **changes}.items():
        (folder / name).write_bytes(content)
    return ResolvedModel(folder.name, "folder", path=folder)


def test_a_folder_is_the_same_model_elsewhere_whatever_lies_beside_it(tmp_path: Path) -> None:
    identity = model_identity(folder_of(tmp_path / "a" / "model"))
    beside = {"README.md": b"read me", ".gitattributes": b"", "trainer_state.json": b"{}"}
    assert model_identity(folder_of(tmp_path / "b" / "other", **beside)) == identity
    assert str(tmp_path) not in json.dumps(dict(identity))
    assert "model" not in json.dumps(dict(identity))


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_folder_that_decides_its_answers_counts(tmp_path: Path, name: str) -> None:
    identity = model_identity(folder_of(tmp_path / "model"))
    assert model_identity(folder_of(tmp_path / "changed", **{name: FILES[name] + b" "})) != identity
    (tmp_path / "model" / name).unlink()
    assert model_identity(ResolvedModel("model", "folder", path=tmp_path / "model")) != identity


def test_halves_that_changed_places_are_another_model(tmp_path: Path) -> None:
    first, second = list(FILES)[-2:]
    swapped = folder_of(tmp_path / "swapped", **{first: FILES[second], second: FILES[first]})
    assert model_identity(swapped) != model_identity(folder_of(tmp_path / "model"))


def test_a_model_of_the_hub_is_its_name_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--someone--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    snapshot = cached / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    model = ResolvedModel("tiny", "hub", model="someone/tiny")
    assert model_identity(model) == {"hub": "someone/tiny", "commit": commit}
    assert local_folder(model) == snapshot


@pytest.mark.parametrize(("hub_id", "kind"), [("someone/absent", EndpointError), ("not a hub id", ModelNotFoundError)])
def test_a_model_the_hub_does_not_give_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_id: str, kind: type[PotstillError]
) -> None:
    """A hub that cannot be asked is not the user's mistake, a name that can be none of its is."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(kind) as caught:
        model_identity(ResolvedModel("absent", "hub", model=hub_id))
    assert caught.value.where == hub_id


async def test_an_endpoint_is_its_address_and_model_and_never_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-secret-0123456789abcdef"
    monkeypatch.setenv("SOME_API_KEY", key)
    model = ResolvedModel("deep", "endpoint", model="deepseek-chat", endpoint="https://host/v1", api_key_env="SOME_API_KEY")
    identity = model_identity(model)
    told = json.dumps(dict(identity))
    assert key not in told
    assert "SOME_API_KEY" not in told
    assert "deepseek-chat" in told
    engine = EndpointEngine("https://host/v1", "deepseek-chat", key)
    assert engine.identity == identity
    await engine.aclose()
    others = [
        ResolvedModel("deep", "endpoint", model="deepseek-reasoner", endpoint="https://host/v1"),
        ResolvedModel("deep", "endpoint", model="deepseek-chat", endpoint="https://elsewhere/v1"),
    ]
    assert all(model_identity(other) != identity for other in others)


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_model_that_is_gone(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        model_identity(ResolvedModel("gone", kind, path=tmp_path / "gone"))  # type: ignore[arg-type]
    assert caught.value.where == str(tmp_path / "gone")
