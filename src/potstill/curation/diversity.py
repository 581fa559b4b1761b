"""How diverse the kept rows are, measured on a sample of theirs.

The sample goes by the hash of a row's id: it does not depend on order, and a row that is added changes little of it. What it
costs: the texts of the sample in memory, and about a second.
"""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.curation.rules import answers_of
from potstill.curation.words import hash_text, words_of
from potstill.rows import Row
from potstill.tasks import Task

SAMPLE = 1000  # rows
SELF_BLEU_SAMPLE = 50  # texts: each is compared with all others
CLUSTERS, CLUSTER_ROWS = 50, 10  # the most clusters; the rows that each needs
_DIMENSIONS = 64


class Diversity:
    """Collects a sample of all answered rows, then measures the kept ones in it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._sample: list[tuple[int, int, str, str, bool]] = []
        self._seen = 0

    def add(self, row: Row, *, kept: bool) -> None:
        """Look at a row as the teacher answered it."""
        self._seen += 1
        entry = -hash_text(row.id), self._seen
        if len(self._sample) == SAMPLE and entry < self._sample[0][:2]:
            return
        push = heapq.heappushpop if len(self._sample) == SAMPLE else heapq.heappush
        asked, answered = "\n".join(self._task.asked(row)), "\n".join(answers_of(row, self._task))
        push(self._sample, (*entry, asked, answered, kept))

    def figures(self) -> dict[str, Any]:
        """What is measured, for what is asked (prompts) and what is answered (answers); None where too little was kept.

        distinct_1, distinct_2: the share of different words and of different pairs of words among all (Li et al. 2016,
        arXiv:1510.03055). self_bleu: the mean BLEU of a text against all others of a sample, from 0 to 1; the lower, the more
        diverse (Zhu et al. 2018, arXiv:1802.01886). clusters: how many the sampled prompts fall into; cluster_coverage: the
        share of them in which a row was kept; cluster_evenness: the entropy of the kept rows over them as a share of the most
        that is possible.
        """
        rows = sorted(self._sample, reverse=True)
        kept = [(asked, answered) for _, _, asked, answered, was_kept in rows if was_kept]
        return {
            "sampled": len(kept),
            "prompts": _of_texts([asked for asked, _ in kept]),
            "answers": _of_texts([answered for _, answered in kept]),
            **_clusters([asked for _, _, asked, _, _ in rows], [was_kept for *_, was_kept in rows]),
        }


def _of_texts(texts: Sequence[str]) -> dict[str, float | None]:
    words = [words_of(text) for text in texts]
    pairs = [list(pairwise(each)) for each in words]
    return {"distinct_1": _distinct(words), "distinct_2": _distinct(pairs), "self_bleu": self_bleu(texts[:SELF_BLEU_SAMPLE])}


def _distinct(texts: Sequence[Sequence[Any]]) -> float | None:
    every = [element for text in texts for element in text]
    return round(len(set(every)) / len(every), 4) if every else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """The mean sentence BLEU of each text against all the others, from 0 to 1; None for fewer than two."""
    from sacrebleu.metrics import BLEU

    if len(texts) < 2:
        return None
    bleu = BLEU(effective_order=True)
    scores = [bleu.sentence_score(text, [*texts[:place], *texts[place + 1 :]]).score for place, text in enumerate(texts)]
    return round(float(np.mean(scores)) / 100, 4)


def _clusters(texts: Sequence[str], kept: Sequence[bool]) -> dict[str, Any]:
    from scipy.cluster.vq import kmeans2

    none = {"clusters": None, "cluster_coverage": None, "cluster_evenness": None}
    if len(texts) < 2 * CLUSTER_ROWS or not any(kept):
        return none
    vectors = _vectors(texts)
    wanted = min(CLUSTERS, len(texts) // CLUSTER_ROWS, len(np.unique(vectors.round(9), axis=0)))
    if wanted < 2:
        return none
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a cluster may lose all its members
        _, found = kmeans2(vectors, wanted, minit="++", seed=0)
    present = np.unique(found)
    counts = np.bincount(found[np.asarray(kept)], minlength=wanted)[present]
    shares = counts[counts > 0] / counts.sum()
    evenness = float(-(shares * np.log(shares)).sum() / np.log(len(present))) if len(present) > 1 else 1.0
    return {
        "clusters": len(present),
        "cluster_coverage": round(float((counts > 0).mean()), 4),
        "cluster_evenness": round(abs(evenness), 4),
    }


def _vectors(texts: Sequence[str]) -> NDArray[np.float64]:
    """One vector of length 1 a text: its words, rare ones more, thrown together by a random projection that hashes seed."""
    words = [set(words_of(text)) for text in texts]
    frequency: dict[str, int] = {}
    for each in words:
        for word in each:
            frequency[word] = frequency.get(word, 0) + 1
    directions = {word: np.random.default_rng(hash_text(word)).standard_normal(_DIMENSIONS) for word in sorted(frequency)}
    weights = {word: np.log(1 + len(texts) / count) for word, count in frequency.items()}
    vectors = np.array([np.sum([weights[word] * directions[word] for word in sorted(each)], axis=0) for each in words])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12))
