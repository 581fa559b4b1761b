"""Which token stands for which bytes, by the vocabularies of both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from exporting.gguf_support import TEXTS, byte_level_tokenizer, sentencepiece_tokenizer
from potstill.errors import InputError
from potstill.quiet import quiet_transformers
from potstill.signals.token_bytes import TokenBytes


def joined(tokens: TokenBytes, ids: list[int]) -> bytes:
    return b"".join(tokens.of(token_id) or b"" for token_id in ids)


@pytest.fixture(scope="module", params=["smollm2", "llama-bpe"])
def byte_level(request: pytest.FixtureRequest, tiny_student: Path) -> Any:
    if request.param == "llama-bpe":
        return byte_level_tokenizer("llama-bpe")
    with quiet_transformers():
        return AutoTokenizer.from_pretrained(tiny_student)


def test_the_bytes_of_a_texts_tokens_are_the_text(byte_level: Any) -> None:
    tokens = TokenBytes(byte_level)
    for text in TEXTS:
        assert joined(tokens, byte_level(text, add_special_tokens=False).input_ids) == text.encode()


def test_every_token_is_found_by_its_bytes(byte_level: Any) -> None:
    tokens = TokenBytes(byte_level)
    for token_id in range(len(byte_level)):
        data = tokens.of(token_id)
        assert data is not None
        assert tokens.id_of(data) == token_id
    assert (tokens.of(len(byte_level)), tokens.of(-1), tokens.id_of(b"no such token")) == (None, None, None)
    end = byte_level.convert_tokens_to_ids("<|im_end|>")
    assert (tokens.of(end), tokens.is_added(end), tokens.is_added(len(byte_level) // 2)) == (b"<|im_end|>", True, False)


def test_sentencepiece_writes_a_space_before_a_text_and_lone_bytes_by_their_number() -> None:
    tokenizer = sentencepiece_tokenizer()
    tokens = TokenBytes(tokenizer)
    for text in TEXTS:
        if not text.startswith(("/", "\n", "\t", " ")):
            assert joined(tokens, tokenizer(text, add_special_tokens=False).input_ids) == b" " + text.encode()
    piece = tokenizer.convert_tokens_to_ids("e")
    assert tokens.of(tokenizer.convert_tokens_to_ids("<0x65>")) == b"e"
    assert tokens.id_of(b"e") == piece  # a piece goes before what stands in for a lone byte
    assert tokens.id_of(b"\xf0") == tokenizer.convert_tokens_to_ids("<0xF0>")
    assert tokens.id_of(b"<|end|>") == tokenizer.convert_tokens_to_ids("<|end|>")


def test_another_kind_of_tokenizer_is_refused_by_name() -> None:
    words = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    with pytest.raises(InputError, match="byte-level BPE"):
        TokenBytes(PreTrainedTokenizerFast(tokenizer_object=words))
    with pytest.raises(InputError, match="cannot be told"):
        TokenBytes(object())
