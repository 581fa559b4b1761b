"""A text's key is its content, the teacher's and the template's, and nothing else."""

from __future__ import annotations

import pytest

from potstill.signals.keys import TextKeys

IDENTITY = {"gguf": "ab" * 16}
TEXT = ((1, 2, 70_000), (False, True, True))


def test_a_key_is_32_hexadecimal_digits_whatever_comes_before_it() -> None:
    keys = TextKeys(IDENTITY, "{{ messages }}")
    other = ((9,), (False,))
    alone, after = keys.of([TEXT])[0], keys.of([other, TEXT])[1]
    assert alone == after == TextKeys(dict(IDENTITY), "{{ messages }}").of([([1, 2, 70_000], [0, 1, 1])])[0]
    assert len(bytes.fromhex(alone)) == 16


@pytest.mark.parametrize("changed", [
    TextKeys(IDENTITY, "{{ messages }}").of([((1, 2, 70_001), TEXT[1])]),
    TextKeys(IDENTITY, "{{ messages }}").of([(TEXT[0], (False, False, True))]),
    TextKeys({"gguf": "ac" * 16}, "{{ messages }}").of([TEXT]),
    TextKeys(IDENTITY, "{{ messages }} ").of([TEXT]),
])
def test_every_part_of_the_content_counts(changed: tuple[str, ...]) -> None:
    assert changed != TextKeys(IDENTITY, "{{ messages }}").of([TEXT])


def test_a_mask_of_another_length_is_no_text() -> None:
    with pytest.raises(ValueError, match="2 tokens, but a mask of 3"):
        TextKeys(IDENTITY, "").of([((1, 2), (False, True, True))])
