"""Whether two tokenizers mean the same by an id: only then can a student learn a teacher's distributions token by token."""

from __future__ import annotations

from typing import Any

from potstill.errors import InputError


def same_vocabulary(tokenizer_a: Any, tokenizer_b: Any) -> str | None:
    """None where both have the same map from tokens to ids; else the difference at the lowest id, in words.

    The maps are compared, not their sizes: tokenizers of one width may number their tokens differently. Heads may be wider
    than the map, by padding, and differ in that.
    """
    a, b = ({index: token for token, index in tokenizer.get_vocab().items()} for tokenizer in (tokenizer_a, tokenizer_b))
    differing = [index for index in a.keys() | b.keys() if a.get(index) != b.get(index)]
    if not differing:
        return None
    first = min(differing)
    sides = f"{_named(a.get(first))} on one side and {_named(b.get(first))} on the other"
    return f"token {first} is {sides} ({len(differing)} differ)"


def require_same_vocabulary(teacher: Any, student: Any, *, where: str) -> None:
    """Refuse a teacher whose distributions the student cannot learn; both are tokenizers.

    Raises:
        InputError: their maps from tokens to ids differ.
    """
    difference = same_vocabulary(teacher, student)
    if difference is not None:
        raise InputError(
            "the teacher's tokens are not the student's", where=where, found=difference,
            expected="a student with the teacher's tokenizer", hint="train on the teacher's text alone: training.method: sft",
        )


def _named(token: str | None) -> str:
    return "nothing" if token is None else repr(token)
