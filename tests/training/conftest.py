"""The tiny student's tokenizer and template, and rows to train it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from potstill.rows import Message, Row
from potstill.templates import ChatTemplate


@pytest.fixture(scope="session")
def tokenizer(tiny_student: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_student)


@pytest.fixture(scope="session")
def template(tiny_student: Path) -> ChatTemplate:
    return ChatTemplate.from_folder(tiny_student)


def answer_row(index: int, answer: str) -> Row:
    """A row with a question of its own length."""
    question = "please " * (1 + index % 5) + f"help with order {index}"
    return Row(f"r{index}", (Message("user", question), Message("assistant", answer)))


@pytest.fixture(scope="session")
def make_row() -> Callable[[int, str], Row]:
    return answer_row


@pytest.fixture(scope="session")
def rows() -> tuple[list[Row], list[Row]]:
    """21 rows to train on (so that no batch size divides them) and 5 to validate on, with like answers."""
    made = [answer_row(i, f"I will look into order {i} for you." + " Thank you." * (i % 3)) for i in range(26)]
    return made[:21], made[21:]
