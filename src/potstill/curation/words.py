"""Rows by the batch, their words hashed once for all rules that compare rows.

A text counts by its words, case and punctuation aside. Words become 64-bit hashes and runs of words hashes of those, a whole
batch in a few numpy operations, none of them a loop over words (about 10 microseconds for a hundred). A hash only ever points
to a suspect: rules look at the texts before they say anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
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
_ROWS, _CHARACTERS = 512, 300_000  # of a batch: its arrays fit the processor's cache
_OPERATORS = "-+*/^=<>×÷"
_WORD_KIND, _DIGIT_KIND, _SPACE_KIND, _OPERATOR_KIND = 1, 2, 4, 8
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

    @cached_property
    def prompts(self) -> list[tuple[str, ...]]:
        return [prompt_of(row, self.task) for row in self.rows]

    @cached_property
    def words(self) -> Words:
        """The words of all prompts."""
        parts = [part for prompt in self.prompts for part in prompt]
        hashes, part_of = _hashed_words(parts)
        counts = np.bincount(part_of, minlength=len(parts))
        each = np.maximum(counts, _LONGEST_RUN)
        starts = np.cumsum(each) - each
        flat = np.zeros(int(each.sum()), np.uint64)
        flat[starts[part_of] + np.arange(len(part_of)) - (np.cumsum(counts) - counts)[part_of]] = hashes
        sizes = np.array([len(prompt) for prompt in self.prompts])
        rows = np.repeat(np.arange(len(sizes)), sizes)
        return Words(flat, starts, counts, rows, np.arange(len(parts)) - (np.cumsum(sizes) - sizes)[rows])


def _hashed_words(texts: Sequence[str]) -> tuple[Hashes, Ints]:
    """The hash of each word of the texts, in order, and the number of the text it is of: the words that `words_of` finds.

    A word's hash is the sum of its characters times powers of an odd number, taken from one running sum over all texts.
    """
    lower = [text.lower() for text in texts]
    ends = np.cumsum([len(text) + 1 for text in lower])
    codes = np.frombuffer("\0".join([*lower, ""]).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    begin, end = _word_bounds(_kinds(codes))
    powers, inverse = _powers(len(codes))
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers[: len(codes)])])
    hashes = _mixed((running[end] - running[begin]) * inverse[begin])
    part_of = np.searchsorted(ends, begin, side="right")
    bare = np.flatnonzero(np.bincount(part_of, minlength=len(texts)) == 0)
    if len(bare):
        own = {text: hash_text(text) for text in {texts[number].strip() for number in bare.tolist()}}
        hashes = np.concatenate([hashes, np.array([own[texts[number].strip()] for number in bare.tolist()], np.uint64)])
        order = np.argsort(np.concatenate([part_of, bare]), kind="stable")
        hashes, part_of = hashes[order], np.concatenate([part_of, bare])[order]
    return hashes | np.uint64(1), part_of


def _word_bounds(kinds: NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Where each word begins and ends: runs of letters and digits, and operators that a digit follows, spaces between."""
    is_word = np.zeros(len(kinds) + 2, bool)
    np.not_equal(kinds & _WORD_KIND, 0, out=is_word[1:-1])
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    begin, end = edges[::2], edges[1::2]
    operators = np.flatnonzero(kinds & _OPERATOR_KIND)  # the last character is none: it separates texts
    following = operators + 1
    while len(spaces := np.flatnonzero(kinds[following] & _SPACE_KIND)):
        following[spaces] += 1
    operators = operators[(kinds[following] & _DIGIT_KIND) > 0]
    if len(operators):
        places = np.searchsorted(begin, operators)
        begin, end = np.insert(begin, places, operators), np.insert(end, places, operators + 1)
    return begin, end


def _kinds(codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """What each character is, as regular expressions have it."""
    found = _known_kinds()[np.minimum(codes, 0xFFFF)]
    for code in np.unique(codes[codes > 0xFFFF]).tolist():
        found[codes == code] = _kind(chr(code))
    return found


@cache
def _known_kinds() -> NDArray[np.uint8]:
    return np.fromiter(map(_kind, map(chr, range(0x10000))), np.uint8, 0x10000)


def _kind(character: str) -> int:
    word = _WORD_KIND if character.isalnum() or character == "_" else 0
    operator = _OPERATOR_KIND if character in _OPERATORS else 0
    return word | operator | (_DIGIT_KIND if character.isdecimal() else 0) | (_SPACE_KIND if character.isspace() else 0)


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """The first powers of an odd number and of its inverse, modulo 2 to the 64th."""
    return _first_powers(1 << (size - 1).bit_length())


@lru_cache(maxsize=1)
def _first_powers(size: int) -> tuple[Hashes, Hashes]:
    odd, inverse = int(_BASE), pow(int(_BASE), -1, 2**64)
    powers = [np.cumprod(np.concatenate([[np.uint64(1)], np.full(size - 1, base, np.uint64)])) for base in (odd, inverse)]
    return powers[0], powers[1]


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
