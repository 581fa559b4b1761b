"""How an answer is scored against a reference, and how sure the average of such scores is.

Pure functions over strings and floats. scipy, sacrebleu, rouge-score and math-verify are imported on first use.
"""

from __future__ import annotations

from potstill.metrics.labels import accuracy, macro_f1, parse_label
from potstill.metrics.numeric import numbers_equal, parse_final_answer
from potstill.metrics.statistics import PairedDifference, bootstrap_ci, paired_difference, proportion_ci
from potstill.metrics.text import (
    bleu,
    chrf,
    corpus_bleu,
    exact_match,
    length_ratio,
    normalise_answer,
    rouge_1,
    rouge_2,
    rouge_l,
    token_f1,
    within_length,
)

__all__ = [
    "PairedDifference",
    "accuracy",
    "bleu",
    "bootstrap_ci",
    "chrf",
    "corpus_bleu",
    "exact_match",
    "length_ratio",
    "macro_f1",
    "normalise_answer",
    "numbers_equal",
    "paired_difference",
    "parse_final_answer",
    "parse_label",
    "proportion_ci",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "token_f1",
    "within_length",
]
