"""Pitfall: tokenizers of equal width are not equal; the maps from tokens to ids are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from potstill.errors import InputError
from potstill.signals.vocabulary import require_same_vocabulary, same_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tiny_student: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_student)


def test_a_tokenizer_is_like_its_copy(tokenizer: PreTrainedTokenizerFast, tiny_student: Path) -> None:
    assert same_vocabulary(tokenizer, AutoTokenizer.from_pretrained(tiny_student)) is None


def test_two_tokens_that_changed_places(tokenizer: PreTrainedTokenizerFast, tiny_student: Path) -> None:
    text = (tiny_student / "tokenizer.json").read_text()
    backend = Tokenizer.from_str(text)
    first, second = backend.id_to_token(500), backend.id_to_token(501)
    swapped = text.replace(f'"{first}": 500', f'"{first}": 501').replace(f'"{second}": 501', f'"{second}": 500')
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(swapped))
    assert len(other.get_vocab()) == len(tokenizer.get_vocab())
    difference = same_vocabulary(tokenizer, other)
    assert difference == f"token 500 is {first!r} on one side and {second!r} on the other (2 differ)"
    with pytest.raises(InputError, match="not the student's"):
        require_same_vocabulary(tokenizer, other, where="student")


def test_one_token_more(tokenizer: PreTrainedTokenizerFast, tiny_student: Path) -> None:
    other = AutoTokenizer.from_pretrained(tiny_student)
    other.add_tokens(["<|more|>"])
    assert same_vocabulary(tokenizer, other) == "token 49152 is nothing on one side and '<|more|>' on the other (1 differ)"
