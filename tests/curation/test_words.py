"""Words hashed by the batch: equal runs have equal hashes wherever they stand, others have others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from potstill.curation.words import Batch, groups, in_batches, words_of
from potstill.rows import Row
from potstill.tasks import Task

Make = Callable[..., Row]


def runs_of(rows: list[Row], task: Task, n: int) -> list[dict[int, int]]:
    """For each row, how often each hash of a run stands in what it asks."""
    words = Batch(rows, np.arange(len(rows)), task).words
    found = words.runs(n)
    counted: list[dict[int, int]] = [{} for _ in rows]
    for value, part in zip(found.hashes.tolist(), found.parts.tolist(), strict=True):
        if words.places[part] == 1:
            row = counted[words.rows[part]]
            row[value] = row.get(value, 0) + 1
    return counted


def test_runs_are_the_same_as_those_of_the_words_themselves(text: Task, generated: Make) -> None:
    prompts = [
        "a b c d e a b c", "b c d", "x", "a b", "c d e f g h i j k l m n o p q", "A, b; c - d! e", "5 - 3", "5 + 3",
        "x=-  7 / y -", "١ + ٢ Ünïcode ﬁ 日本 😀 a\0b", "  ... ", "👍🏽", "", "İstanbul ß",
    ]
    rows = [generated(prompt, system="Be kind." if place % 2 else "") for place, prompt in enumerate(prompts)]
    for n in (3, 8, 13):
        found = runs_of(rows, text, n)
        spelt = [
            [tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))] for words in map(words_of, prompts)
        ]
        for values, runs in zip(found, spelt, strict=True):
            assert sum(values.values()) == len(runs)
            assert len(values) == len(set(runs))
        known = {run for runs in spelt for run in runs}
        assert len({value for values in found for value in values}) == len(known)


def test_whole_prompts_are_equal_where_all_their_words_are(text: Task, generated: Make) -> None:
    equal = [generated("One two.", id="1"), generated("one TWO", id="2")]
    rows = [*equal, generated("two one"), generated("One two.", system="x")]
    words = Batch(rows, np.arange(4), text).words
    assert groups(words.whole(4)).tolist()[2:] == [-1, -1]
    assert len(set(groups(words.whole(4)).tolist()[:2])) == 1


def test_batches_hold_all_rows_in_order_and_few_of_long_ones(text: Task, generated: Make) -> None:
    rows = [generated("x" * (1_500_000 if n in (3, 4) else 1), id=str(n)) for n in range(3000)]
    batches = list(in_batches(rows))
    assert [row.id for _, batch in batches for row in batch] == [str(n) for n in range(3000)]
    assert [first for first, _ in batches] == [0, 4, 5, 517, 1029, 1541, 2053, 2565]
