"""The best constant answer: what a student that has only learnt to say one thing would reach.

What goes in: the answers that training read, and the test rows. What comes out: the one answer that is most like all the others
by the task's main metric (for labels and numbers: the most frequent), and the distilled model compared with it row by row. What
it costs: a second; the choice looks at 200 answers at most, drawn with a fixed seed.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from potstill.metrics import rouge_l, token_f1

MAX_ANSWERS = 200
_EXACT_CANDIDATES = 8
_SEED = 0
_WORD = re.compile(r"\w+")
_SIMILARITIES: dict[str, Callable[[str, str], float]] = {"rouge_l": rouge_l, "token_f1": token_f1}


def best_constant(answers: Sequence[str], main_metric: str) -> str | None:
    """The answer with the highest mean main metric to the others, the most frequent one where that is right or wrong.

    ROUGE-L takes about a millisecond a pair, so all pairs are first compared by a fast version of it (no stemming), and only
    the eight best of that by the metric itself. None without answers.
    """
    answers = [answer.strip() for answer in answers if answer.strip()]
    if not answers:
        return None
    similarity = _SIMILARITIES.get(main_metric)
    if similarity is None:
        return Counter(answers).most_common(1)[0][0]
    sample = answers if len(answers) <= MAX_ANSWERS else random.Random(_SEED).sample(answers, MAX_ANSWERS)
    return max(_shortlist(sample), key=lambda candidate: sum(similarity(candidate, other) for other in sample))


def _shortlist(answers: Sequence[str]) -> list[str]:
    """The distinct answers with the highest mean fast similarity to all."""
    words = [_WORD.findall(answer.lower()) for answer in answers]
    totals: dict[str, float] = {}
    for answer, own in zip(answers, words, strict=True):
        if answer not in totals:
            positions = _positions(own)
            totals[answer] = sum(_f_measure(positions, len(own), other) for other in words)
    return sorted(totals, key=lambda answer: -totals[answer])[:_EXACT_CANDIDATES]


def _positions(words: Sequence[str]) -> dict[str, int]:
    """For each word the set of its positions, as the bits of a number."""
    positions: dict[str, int] = {}
    for index, word in enumerate(words):
        positions[word] = positions.get(word, 0) | 1 << index
    return positions


def _f_measure(positions: dict[str, int], length: int, other: Sequence[str]) -> float:
    """Twice the longest common subsequence over the words of both.

    The subsequence by bit-parallel rows (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): a zero bit of `row`
    marks a position where it grows.
    """
    if not length or not other:
        return 0.0
    full = (1 << length) - 1
    row = full
    for word in other:
        matches = row & positions.get(word, 0)
        row = (row + matches | row - matches) & full
    return 2 * (length - row.bit_count()) / (length + len(other))
