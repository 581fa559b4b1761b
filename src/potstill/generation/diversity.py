"""How near a text is to those that are there: the Jaccard similarity of their sets of word 3-grams, computed exactly.

A number counts as a number, whichever it is: a problem told again with other figures is no new one. What it costs: memory for
the 3-grams of every text, and time for those texts that share one with the text asked about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

# Chinese and Japanese leave no spaces between words: there a character counts as one.
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[\u3040-\u30ff\u3400-\u9fff]|[^\W\d\u3040-\u30ff\u3400-\u9fff]+")


class Diversity:
    """The texts that are there, each with a name."""

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._having: dict[str, list[int]] = {}
        for name, text in texts:
            self.add(name, text)

    def nearest(self, text: str) -> tuple[float, str | None]:
        """The similarity to the nearest text, from 0 to 1, and that text's name; None where none has anything in common."""
        wanted = shingles(text)
        shared = Counter(number for shingle in wanted for number in self._having.get(shingle, ()))
        if not shared:
            return 0.0, None
        similarity, earlier = max(
            (count / (len(wanted) + self._sizes[number] - count), -number) for number, count in shared.items()
        )
        return similarity, self._names[-earlier]

    def add(self, name: str, text: str) -> None:
        own = shingles(text)
        for shingle in own:
            self._having.setdefault(shingle, []).append(len(self._names))
        self._names.append(name)
        self._sizes.append(len(own))


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text, the whole of a shorter one; of a text without words, the text."""
    words = ["0" if word[0].isdigit() else word for word in _WORD.findall(text.lower())] or [text.strip()]
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))
