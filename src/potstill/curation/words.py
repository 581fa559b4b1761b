"""Rows by the batch, their words hashed once for all rules that compare rows.

A text counts by its words, case and punctuation aside. Words become 64-bit hashes and runs of words hashes of those, a whole
batch in one numpy operation. A hash only ever points to a suspect: rules look at the texts before they say anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from potstill.rows import Row
from potstill.tasks import Task

Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

# An operator before a digit counts as a word: "5 - 3" is not "5 + 3".
_WORD = re.compile(r"\w+|[-+*/^=<>×÷](?=\s*\d)")
_LONGEST_RUN = 13
_KNOWN_WORDS = 200_000  # beyond that the table of hashes starts anew, so that it does not grow with the rows
_ROWS, _CHARACTERS = 1024, 2_000_000  # of a batch
_BASE, _MIX, _PLACE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; of a text without any, such as an emoji, the text."""
    return _WORD.findall(text.lower()) or [text.strip()]


def prompt_of(row: Row, task: Task) -> tuple[str, ...]:
    """A row's instructions, then the parts of what it asks."""
    return ("\n".join(message.content for message in row.messages if message.role == "system"), *task.asked(row))


def hash_text(text: str) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class Vocabulary(dict[str, int]):
    """The hash of each word, computed once while the word is in use."""

    def __missing__(self, word: str) -> int:
        value = self[word] = hash_text(word) or 1  # 0 is padding
        return value

    def hashes(self, text: str) -> list[int]:
        """The hashes of a text's words, at least one, padded with zeros to the longest run."""
        found = list(map(self.__getitem__, words_of(text)))
        return found if len(found) >= _LONGEST_RUN else found + [0] * (_LONGEST_RUN - len(found))


@dataclass(frozen=True)
class Runs:
    """Runs of `n` words, and the whole of shorter parts: the hash of each with its place, and the number of its part."""

    hashes: Hashes
    parts: Ints


@dataclass(frozen=True)
class Words:
    """The words of all parts of a batch, part after part.

    starts: where each part begins in `hashes`. counts: its words, padding aside. rows: the row it is of, by its number in the
    batch. places: its number in that row's prompt.
    """

    hashes: Hashes
    starts: Ints
    counts: Ints
    rows: Ints
    places: Ints

    def runs(self, n: int) -> Runs:
        """All runs of `n` words, up to 13, in order."""
        size = len(self.hashes)
        padded = np.concatenate([self.hashes, np.zeros(n - 1, np.uint64)])
        rolling = np.zeros(size, np.uint64)
        for k in range(n):
            rolling = rolling * _BASE + padded[k : k + size]
        each = np.maximum(1, self.counts - n + 1)
        parts = np.repeat(np.arange(len(each)), each)
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        found = rolling[self.starts[parts] + within] + self.places[parts].astype(np.uint64) * _PLACE
        return Runs(_mixed(found), parts)

    def whole(self, rows: int) -> Hashes:
        """One hash a row of all its words in order, for that many rows."""
        first = np.searchsorted(self.rows, np.arange(rows))
        begin = self.starts[first]
        position = np.arange(len(self.hashes)) - np.repeat(begin, np.diff([*begin, len(self.hashes)]))
        return np.add.reduceat(_mixed(self.hashes + position.astype(np.uint64) * _PLACE), begin)


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a hash depends on every bit of the value (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX
    values = (values ^ (values >> np.uint64(27))) * _PLACE
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Batch:
    """Some rows that follow each other. indices: the number of each among all rows."""

    rows: Sequence[Row]
    indices: Ints
    task: Task
    vocabulary: Vocabulary

    @cached_property
    def prompts(self) -> list[tuple[str, ...]]:
        return [prompt_of(row, self.task) for row in self.rows]

    @cached_property
    def words(self) -> Words:
        """The words of all prompts. Instructions, which mostly are the same in all rows, are read once."""
        if len(self.vocabulary) > _KNOWN_WORDS:
            self.vocabulary.clear()
        hashes, instructions = self.vocabulary.hashes, dict[str, list[int]]()
        flat: list[int] = []
        starts: list[int] = []
        for prompt in self.prompts:
            for place, part in enumerate(prompt):
                starts.append(len(flat))
                if place:
                    flat += hashes(part)
                    continue
                if part not in instructions:
                    instructions[part] = hashes(part)
                flat += instructions[part]
        array, parts = np.array(flat, dtype=np.uint64), [len(prompt) for prompt in self.prompts]
        begin = np.array(starts, dtype=np.int64)
        return Words(
            hashes=array,
            starts=begin,
            counts=np.add.reduceat(array != 0, begin, dtype=np.int64) if starts else begin,
            rows=np.repeat(np.arange(len(parts)), parts),
            places=np.concatenate([np.arange(count) for count in parts]) if parts else begin,
        )


def in_batches(rows: Iterator[Row] | Sequence[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Rows by the batch, each with the number of its first row; a batch of long texts has fewer rows."""
    first, batch, characters = 0, list[Row](), 0
    for row in rows:
        batch.append(row)
        characters += sum(len(message.content) for message in row.messages)
        if len(batch) == _ROWS or characters > _CHARACTERS:
            yield first, batch
            first, batch, characters = first + len(batch), [], 0
    if batch:
        yield first, batch


def groups(hashes: Hashes) -> Ints:
    """For each hash the number of the group of equal ones it is in, -1 where there is no other like it."""
    _, numbers, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return np.where(counts[numbers] > 1, numbers, -1)
