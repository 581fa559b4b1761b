"""How close a free-text answer is to its reference: exact match, token F1, ROUGE, BLEU, chrF and length.

Every score is a float from 0 to 1 (length ratios aside), an empty prediction scores 0, and where a row has several
references the best one counts. The formulas are the field's own implementations: SQuAD's evaluation script, rouge-score
and sacrebleu. Those two libraries are imported on first use.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

References = str | Sequence[str]
"""One reference, or several of which the best counts."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNICODE_WORD = re.compile(
    # Scripts written without spaces count one character a word: kana, CJK ideographs, Thai, Lao, Khmer, Myanmar.
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"
)


def normalise_answer(text: str) -> str:
    """Lower-case the text and drop ASCII punctuation, the articles a, an and the, and extra spaces.

    As in SQuAD's evaluation script (Rajpurkar et al. 2016, arXiv:1606.05250, evaluate-v1.1.py).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: References) -> float:
    """Return 1.0 where the prediction equals one of the references after `normalise_answer`, else 0.0 (SQuAD)."""
    if not prediction.strip():
        return 0.0
    answer = normalise_answer(prediction)
    return float(any(answer == normalise_answer(reference) for reference in _several(references)))


def token_f1(prediction: str, references: References) -> float:
    """Return the harmonic mean of precision and recall over the words of prediction and reference, as bags (SQuAD).

    Where normalising leaves no word on either side, the score is 1.0 if both are left empty, as in SQuAD 2.0.
    """
    if not prediction.strip():
        return 0.0
    words = normalise_answer(prediction).split()
    return max(_bag_f1(words, normalise_answer(reference).split()) for reference in _several(references))


def rouge_1(prediction: str, references: References) -> float:
    """Return the F measure of ROUGE-1 (single words in common; Lin 2004, "ROUGE"), words stemmed; see `rouge_l`."""
    return _rouge("rouge1", prediction, references)


def rouge_2(prediction: str, references: References) -> float:
    """Return the F measure of ROUGE-2 (pairs of words in common; Lin 2004, "ROUGE"), words stemmed; see `rouge_l`."""
    return _rouge("rouge2", prediction, references)


def rouge_l(prediction: str, references: References) -> float:
    """Return the F measure of ROUGE-L (longest common subsequence of words; Lin 2004, "ROUGE"), words stemmed.

    Computed by rouge-score with its own tokenizer, which knows ASCII letters and digits only. Where most letters of the
    references are others, words are cut at Unicode boundaries instead (one character a word for Chinese, Japanese and
    other scripts without spaces), since every such text would score 0 otherwise. The choice depends on the references
    alone, so that all models of a comparison are scored alike.
    """
    return _rouge("rougeL", prediction, references)


def bleu(prediction: str, references: References) -> float:
    """Return sentence BLEU from 0 to 1: up to 4-grams, exponential smoothing, effective order.

    Papineni et al. 2002 as computed by sacrebleu (Post 2018, arXiv:1804.08771), tokenizer 13a. The effective order
    leaves out n-grams that a short prediction cannot have. The mean over rows is not corpus BLEU; see `corpus_bleu`.
    """
    if not prediction.strip():
        return 0.0
    return _fraction(_bleu(effective_order=True).sentence_score(prediction, _several(references)).score)


def corpus_bleu(predictions: Sequence[str], references: Sequence[References]) -> float:
    """Return BLEU over a whole corpus from 0 to 1, the n-gram counts pooled before they are divided (sacrebleu).

    Rows may have different numbers of references. No rows give 0.0.

    Raises:
        ValueError: predictions and references differ in number, or a row has no reference.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} rows of references")
    if not predictions:
        return 0.0
    rows = [_several(of_row) for of_row in references]
    # sacrebleu wants one stream a reference position; None fills the rows that have fewer.
    most = max(len(row) for row in rows)
    streams = [[row[i] if i < len(row) else None for row in rows] for i in range(most)]
    return _fraction(_bleu(effective_order=False).corpus_score(list(predictions), streams).score)


def chrf(prediction: str, references: References) -> float:
    """Return sentence chrF2 from 0 to 1: the F score, recall weighted twice, over character 1- to 6-grams.

    Popović 2015, "chrF", as computed by sacrebleu with its defaults.
    """
    if not prediction.strip():
        return 0.0
    return _fraction(_chrf().sentence_score(prediction, _several(references)).score)


def length_ratio(prediction: str, references: References) -> float:
    """Return the words of the prediction over those of the reference (of several, the one closest in length).

    Words are what spaces separate. 1.0 means equally long; 0.0 also where no reference has a word.
    """
    words = len(prediction.split())
    lengths = [length for length in (len(reference.split()) for reference in _several(references)) if length]
    return words / min(lengths, key=lambda length: abs(length - words)) if lengths else 0.0


def within_length(prediction: str, max_words: int) -> float:
    """Return 1.0 for a prediction of 1 to `max_words` words (what spaces separate), else 0.0."""
    return float(1 <= len(prediction.split()) <= max_words)


def _several(references: References) -> list[str]:
    """Return the references as a list; a lone string is one reference, not a sequence of characters."""
    several = [references] if isinstance(references, str) else list(references)
    if not several:
        raise ValueError("no reference to score against")
    return several


def _bag_f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    shared = (Counter(words) & Counter(reference)).total()
    # 2PR / (P + R) with P = shared / len(words) and R = shared / len(reference)
    return 2 * shared / (len(words) + len(reference))


RougeType = Literal["rouge1", "rouge2", "rougeL"]


def _rouge(kind: RougeType, prediction: str, references: References) -> float:
    targets = _several(references)
    if not prediction.strip():
        return 0.0
    scorer = _rouge_scorer(kind, _mostly_outside_ascii("".join(targets)))
    return float(scorer.score_multi(targets, prediction)[kind].fmeasure)


def _mostly_outside_ascii(text: str) -> bool:
    letters = [character for character in text if character.isalpha()]
    return sum(not letter.isascii() for letter in letters) * 2 > len(letters)


class _UnicodeTokenizer:
    """Words of any script, lower-cased; the interface is that of rouge-score's tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        return _UNICODE_WORD.findall(text.lower())


@cache
def _rouge_scorer(kind: RougeType, unicode_words: bool) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    if unicode_words:
        return RougeScorer([kind], tokenizer=_UnicodeTokenizer())
    return RougeScorer([kind], use_stemmer=True)


@cache
def _bleu(effective_order: bool) -> BLEU:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=effective_order, force=True)  # force: no warning that the text looks tokenized


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _fraction(percent: float) -> float:
    """Sacrebleu's percentage as a fraction; its geometric means can end a rounding step above 100."""
    return min(float(percent) / 100, 1.0)
