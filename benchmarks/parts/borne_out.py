"""Whether the claim of a rejection is true, told by brute force."""

from __future__ import annotations

import re

from planted import similarity
from potstill.curation import Rejection
from potstill.rows import Row
from potstill.tasks import Task


def borne_out(entry: Rejection, by_id: dict[str, Row], task: Task) -> str:
    """Whether the claim of a rejection is true, false or doubtful, by other means than the rule's. A gold answer is never
    refused, in circles, in the wrong language or of the wrong length: what a rule says of it by itself is taken for false."""
    named = re.search(r"row (\S+)(?: \(|$)", entry.reason)
    if named is None or entry.rule not in ("exact_duplicate", "near_duplicate", "contaminated"):
        return "false"
    mine, theirs = (_plain(" ".join(task.asked(row))) for row in (entry.row, by_id[named[1]]))
    if mine == theirs:
        return "true"
    if entry.rule == "near_duplicate":
        return "true" if similarity(mine, theirs) >= 0.8 else "false"
    if entry.rule == "exact_duplicate" or not _grams(mine, 13) & _grams(theirs, 13):
        return "false"
    shared, every = set(mine.split()) & set(theirs.split()), set(mine.split()) | set(theirs.split())
    return "true" if len(shared) >= len(every) / 2 else "doubtful"


def _plain(text: str) -> str:
    return " ".join("".join(character if character.isalnum() else " " for character in text.lower()).split())


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[start : start + n]) for start in range(max(1, len(words) - n + 1))}
