"""The quickstart's prompts are many, spread over topics, and not repeated in other words between the splits."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest

SPLITS = ("train", "validation", "test")
SYSTEM_PROMPT = (
    "You are a helpful assistant of an online shop. Tell the customer what to do, in at most two short sentences."
)
MAX_TRIGRAM_JACCARD = 0.3  # the closest two questions of different splits reach 0.12
SHARED_RUN_WORDS = 8  # a shared run this long is a copied sentence

Row = dict[str, Any]


def question(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def ngrams(text: str, size: int) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[start : start + size]) for start in range(len(words) - size + 1))


def jaccard(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> float:
    return len(left & right) / max(1, len(left | right))


@pytest.fixture(scope="module")
def rows_of() -> dict[str, list[Row]]:
    folder = files("potstill") / "quickstart"
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        for split in SPLITS
    }


def test_there_are_enough_rows_and_topics_with_every_topic_in_every_split(rows_of: dict[str, list[Row]]) -> None:
    topics = {split: {row["meta"]["topic"] for row in rows} for split, rows in rows_of.items()}
    assert len(rows_of["train"]) >= 300
    assert len(topics["train"]) >= 25
    assert topics["validation"] == topics["train"]
    assert topics["test"] == topics["train"]


def test_ids_and_questions_are_unique(rows_of: dict[str, list[Row]]) -> None:
    rows = [row for split in SPLITS for row in rows_of[split]]
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({question(row).lower() for row in rows}) == len(rows)


def test_every_row_has_the_same_system_prompt_and_one_question_without_an_answer(
    rows_of: dict[str, list[Row]],
) -> None:
    for row in (row for split in SPLITS for row in rows_of[split]):
        assert [message["role"] for message in row["messages"]] == ["system", "user"], row["id"]
        assert row["messages"][0]["content"] == SYSTEM_PROMPT, row["id"]
        assert 6 <= len(question(row).split()) <= 35, row["id"]


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_splits_hold_no_near_copies_of_each_other(rows_of: dict[str, list[Row]], one: str, other: str) -> None:
    prepared = {
        split: [
            (row["id"], ngrams(question(row), 3), ngrams(question(row), SHARED_RUN_WORDS)) for row in rows_of[split]
        ]
        for split in (one, other)
    }
    near_copies = [
        (left_id, right_id)
        for left_id, left_trigrams, left_runs in prepared[one]
        for right_id, right_trigrams, right_runs in prepared[other]
        if jaccard(left_trigrams, right_trigrams) >= MAX_TRIGRAM_JACCARD or left_runs & right_runs
    ]
    assert near_copies == []


def test_the_near_copy_measure_catches_a_swapped_word() -> None:
    written = "Where can I download the invoice for order 77213?"
    swapped = "Where can I download the invoice for order 40817?"
    assert jaccard(ngrams(written, 3), ngrams(swapped, 3)) >= MAX_TRIGRAM_JACCARD
    assert ngrams(written, SHARED_RUN_WORDS) & ngrams(swapped, SHARED_RUN_WORDS)
