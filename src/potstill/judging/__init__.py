"""A model as a judge: scores by a rubric, comparisons of two answers, and how far both can be trusted.

`score_answers` and `compare_answers` ask any model through an `inference.Client`; `tally`, `position_bias` and `agreement` say
what the verdicts come to. A judge never sees a gold answer, nor who wrote what it judges.
"""

from __future__ import annotations

from potstill.judging.agreement import Agreement, agreement
from potstill.judging.asking import ENDPOINT_TOKENS, LOCAL_TOKENS
from potstill.judging.pairwise import Comparison, PositionBias, Tally, compare_answers, position_bias, tally
from potstill.judging.prompts import is_whole
from potstill.judging.rubric import SCALES, Rubric, Scale, make_rubric
from potstill.judging.scoring import Judgement, score_answer, score_answers

__all__ = [
    "ENDPOINT_TOKENS", "LOCAL_TOKENS", "SCALES", "Agreement", "Comparison", "Judgement", "PositionBias", "Rubric", "Scale",
    "Tally", "agreement", "compare_answers", "is_whole", "make_rubric", "position_bias", "score_answer", "score_answers",
    "tally",
]
