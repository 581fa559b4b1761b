"""Texts become vectors: at an endpoint, through the client and its journal, and by a model on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embeddings_endpoint import DIMENSIONS, EmbeddingEndpoint, vector
from loopback import serve_in_thread
from potstill.catalog import Price, resolve
from potstill.errors import BudgetError, EndpointError, InputError
from potstill.inference.account import Account
from potstill.inference.budget import Budget, Ledger
from potstill.inference.embeddings import open_embedder
from potstill.spec import ModelSpec

TEXTS = ["Where is my parcel?", "Where is my package?", "Who won?", "Where is my parcel?"]


def say(messages: object) -> str:
    return "yes"


def at(server: EmbeddingEndpoint) -> ModelSpec:
    return ModelSpec(model="embedder", endpoint=server.base_url)


def embedded(spec: ModelSpec, folder: Path, texts: list[str], ledger: Ledger | None = None) -> np.ndarray:
    model = resolve(spec)
    with open_embedder(model, folder, Account(ledger or Ledger(), Price(1.0, 1.0))) as embedder:
        return embedder.embed(texts)


def test_vectors_have_length_one_and_equal_texts_are_asked_for_once(tmp_path: Path) -> None:
    with serve_in_thread(say, EmbeddingEndpoint) as server:
        found = embedded(at(server), tmp_path, TEXTS)
    assert found.shape == (4, DIMENSIONS)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)
    expected = np.array(vector(TEXTS[2])) / np.linalg.norm(vector(TEXTS[2]))
    assert found[2] == pytest.approx(expected, abs=1e-6)
    assert found[0] @ found[1] == pytest.approx(1.0)
    assert sorted(server.embedded) == sorted(set(TEXTS))


def test_what_the_journal_holds_is_not_asked_for_again(tmp_path: Path) -> None:
    with serve_in_thread(say, EmbeddingEndpoint) as server:
        before = embedded(at(server), tmp_path, TEXTS[:2])
        asked = len(server.embedded)
        after = embedded(at(server), tmp_path, [TEXTS[2], *TEXTS[:2]])
        assert server.embedded[asked:] == [TEXTS[2]]
    assert (after[1:] == before).all()


def test_a_fault_is_asked_again(tmp_path: Path) -> None:
    with serve_in_thread(say, EmbeddingEndpoint, fails=1) as server:
        assert embedded(at(server), tmp_path, TEXTS[:1]).shape == (1, DIMENSIONS)


@pytest.mark.parametrize("body", [{"data": []}, {"data": [{"embedding": [0.0, 0.0]}]}, {"data": [{"embedding": "AAAA"}]}])
def test_a_reply_without_a_vector_ends_it(tmp_path: Path, body: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.inference.retry.FIRST_WAIT_S", 0.01)
    with serve_in_thread(say, EmbeddingEndpoint, says=body) as server, pytest.raises(EndpointError, match="cannot be embedded"):
        embedded(at(server), tmp_path, TEXTS[:1])


def test_the_budget_holds_for_embeddings_too(tmp_path: Path) -> None:
    with serve_in_thread(say, EmbeddingEndpoint) as server:
        ledger = Ledger(Budget(tokens=400))
        embedded(at(server), tmp_path, TEXTS[:1], ledger)
        assert ledger.spent_tokens == 4, "by the endpoint's own count"
        with pytest.raises(BudgetError, match="used up"):
            embedded(at(server), tmp_path, ["x " * 300], ledger)
        assert len(server.embedded) == 1


def test_a_key_goes_into_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_KEY", "a-very-secret-key-indeed")
    with serve_in_thread(say, EmbeddingEndpoint) as server:
        embedded(at(server).model_copy(update={"api_key_env": "EMBEDDING_KEY"}), tmp_path, TEXTS)
        assert server.keys == {"Bearer a-very-secret-key-indeed"}
    assert all(b"a-very-secret" not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_a_model_of_this_machine_gives_the_mean_of_its_last_states(tiny_student: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = [*TEXTS, "word " * 40]
    found = embedded(ModelSpec(path=str(tiny_student)), tmp_path, texts)
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    network = AutoModel.from_pretrained(tiny_student, dtype=torch.float32)
    for text, row in zip(texts, found, strict=True):
        with torch.inference_mode():
            mean = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert row == pytest.approx((mean / mean.norm()).numpy(), abs=1e-4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "place"), [("pooling_mode_cls_token", 0), ("pooling_mode_lasttoken", -1)])
def test_the_models_own_way_of_pooling_is_heeded(tiny_student: Path, tmp_path: Path, key: str, place: int) -> None:
    import shutil

    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_student, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(f'{{"{key}": true}}')
    found = embedded(ModelSpec(path=str(folder)), tmp_path, TEXTS[1:3])
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    for text, row in zip(TEXTS[1:3], found, strict=True):
        with torch.inference_mode():
            state = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, place]
        assert row == pytest.approx((state / state.norm()).numpy(), abs=1e-4)


def test_a_folder_that_holds_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="embedding model cannot be opened"):
        embedded(ModelSpec(path=str(tmp_path)), tmp_path / "journal", TEXTS)
