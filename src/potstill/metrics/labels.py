"""Answers that name one label of a closed set: finding the label, and scoring the labels found.

An answer that names no label, or several, is unparsed (None) and counts as wrong.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Tokens = tuple[str, ...]

# A sign belongs to the number after it and + or # to the letter before it, so that the labels "-1" and "1", and "C",
# "C++" and "C#", stay apart. Underscores, hyphens, spaces and other punctuation separate.
_TOKEN = re.compile(r"(?<!\w)[-\u2212]\d+|[^\W_]+(?:[+#]+(?!\w))?")
_JSON_OBJECT = re.compile(r"\{[^{}]*\}")
_JSON_KEYS = ("label", "answer", "class", "category", "intent", "prediction", "classification")
_NAMING = r"(?:label|answer|class|category|intent|prediction|classification|relation(?:ship)?)"
_NAMED = re.compile(rf"\b{_NAMING}\b[\s*_\"']*(?::|=|\bis\b)[\s*_\"'`:]*", re.IGNORECASE)
# Where the first statement of an answer ends: "Entailment. Because ...", "neutral (it ...", "neutral because ..."
_STATEMENT_END = re.compile(
    r"[.!?,;:)\]](?=\s|[\"'*`]|$)|[\n(\[\u2013\u2014]|\s-+\s|\b(?:because|since|as the|as it)\b", re.IGNORECASE
)
_NEGATIONS = frozenset({"not", "isn", "t", "neither", "nor", "never", "cannot", "without"})

_WORDS_BEFORE_NAMING = 3  # "The most likely label is ..."


@dataclass(frozen=True)
class _LabelSet:
    """A closed set of labels, prepared for look-up."""

    verbatim: Mapping[str, str]  # casefolded label -> label
    joined: Mapping[str, str]  # tokens without separators -> label
    by_first_token: Mapping[str, tuple[tuple[Tokens, str], ...]]  # the longest label first


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the one label of `labels` that an answer names, as it is spelled there, or None.

    Tried in this order, case, punctuation, underscores, hyphens and spaces aside:
    the whole answer is a label; a JSON object in it has a label under "label" or a like key; its first statement is a
    label ("Entailment. Because ..."); the last "label: x" or "answer is x" in it names one; exactly one label occurs
    in it as whole words. There a label inside a longer one that matches does not count ("not_entailment" is not
    "entailment"), nor does one that is denied ("not a contradiction").
    """
    known = _prepare(tuple(labels))
    stated = text.strip()
    return (
        _whole(stated, known)
        or _from_json(stated, known)
        or _whole(_first_statement(stated), known)
        or _from_last_naming(stated, known)
        or _only_label_within(stated, known)
    )


def accuracy(golds: Sequence[str], predictions: Sequence[str | None]) -> float:
    """Return the share of rows whose prediction is the gold label; None (unparsed) is wrong, no rows give 0.0.

    Raises:
        ValueError: golds and predictions differ in number.
    """
    _check_lengths(golds, predictions)
    hits = sum(gold == prediction for gold, prediction in zip(golds, predictions, strict=True))
    return hits / len(golds) if golds else 0.0


def macro_f1(golds: Sequence[str], predictions: Sequence[str | None], labels: Sequence[str]) -> float:
    """Return the unweighted mean over classes of F1 = 2TP / (2TP + FP + FN), from 0 to 1.

    The mean runs over the classes that occur among the golds or the predictions, as scikit-learn's
    `f1_score(average="macro")` does; a class that occurs in neither has no F1. A prediction of None or outside `labels`
    is a miss for its gold class and a false alarm for none. No rows give 0.0.

    Raises:
        ValueError: golds and predictions differ in number.
    """
    _check_lengths(golds, predictions)
    allowed = {*labels, *golds}
    named = [prediction if prediction in allowed else None for prediction in predictions]
    actual = Counter(golds)
    predicted = Counter(prediction for prediction in named if prediction is not None)
    hits = Counter(gold for gold, prediction in zip(golds, named, strict=True) if gold == prediction)
    classes = actual.keys() | predicted.keys()
    # 2TP + FP + FN is the number of times the class is gold plus the number of times it is predicted.
    scores = [2 * hits[name] / (actual[name] + predicted[name]) for name in sorted(classes)]
    return sum(scores) / len(scores) if scores else 0.0


def _check_lengths(golds: Sequence[str], predictions: Sequence[str | None]) -> None:
    if len(golds) != len(predictions):
        raise ValueError(f"{len(golds)} gold labels but {len(predictions)} predictions")


def _tokens(text: str) -> Tokens:
    return tuple(token.replace("\u2212", "-") for token in _TOKEN.findall(text.casefold()))


@lru_cache(maxsize=64)
def _prepare(labels: tuple[str, ...]) -> _LabelSet:
    """Index the labels; those that differ by case or punctuation alone can only be told apart verbatim."""
    distinct = list(dict.fromkeys(labels))
    spelled = Counter("".join(_tokens(label)) for label in distinct)
    joined, by_first_token = {}, dict[str, list[tuple[Tokens, str]]]()
    for label in distinct:
        tokens = _tokens(label)
        if tokens and spelled["".join(tokens)] == 1:
            joined["".join(tokens)] = label
            by_first_token.setdefault(tokens[0], []).append((tokens, label))
    folded = Counter(label.strip().casefold() for label in distinct)
    return _LabelSet(
        verbatim={label.strip().casefold(): label for label in distinct if folded[label.strip().casefold()] == 1}
        | {label.strip(): label for label in distinct},
        joined=joined,
        by_first_token={
            first: tuple(sorted(entries, key=lambda entry: -len(entry[0]))) for first, entries in by_first_token.items()
        },
    )


def _whole(text: str, known: _LabelSet) -> str | None:
    """Return the label that the whole text is."""
    bare = text.strip().strip("\"'`*")
    verbatim = known.verbatim.get(bare) or known.verbatim.get(bare.casefold())
    return verbatim or known.joined.get("".join(_tokens(text)))


def _first_statement(text: str) -> str:
    naming = _NAMED.search(text)
    # "The label is neutral." and "Label: neutral, because ..." open with what they name, not with the label.
    opens = naming is not None and len(_tokens(text[: naming.start()])) <= _WORDS_BEFORE_NAMING
    return _statement(text, naming.end() if naming and opens else 0)


def _statement(text: str, start: int) -> str:
    """Return the statement that begins at `start`, past opening brackets and quotes: the B of "(B) Paris"."""
    while start < len(text) and text[start] in "([\"'`*_# \n":
        start += 1
    end = _STATEMENT_END.search(text, start)
    return text[start : end.start()] if end else text[start:]


def _from_json(text: str, known: _LabelSet) -> str | None:
    for candidate in _JSON_OBJECT.findall(text):
        try:
            fields = json.loads(candidate)
        except json.JSONDecodeError:
            continue
        lowered = {key.casefold(): value for key, value in fields.items()}
        for key in _JSON_KEYS:
            value = lowered.get(key)
            label = _whole(str(value), known) if isinstance(value, (str, int)) else None
            if label is not None:
                return label
    return None


def _from_last_naming(text: str, known: _LabelSet) -> str | None:
    """Return the label right after the last "label:" or "answer is" that one follows."""
    for naming in reversed(list(_NAMED.finditer(text))):
        label = _whole(_statement(text, naming.end()), known)
        if label is not None:
            return label
    return None


def _only_label_within(text: str, known: _LabelSet) -> str | None:
    found = set(_labels_within(_tokens(text), known))
    return found.pop() if len(found) == 1 else None


def _labels_within(words: Tokens, known: _LabelSet) -> Iterator[str]:
    """Yield the labels that occur as whole words and are not denied, longer labels before those inside them."""
    position = 0
    while position < len(words):
        for tokens, label in known.by_first_token.get(words[position], ()):
            if words[position : position + len(tokens)] == tokens:
                if not _is_denied(words, position):
                    yield label
                position += len(tokens)
                break
        else:
            position += 1


def _is_denied(words: Tokens, position: int) -> bool:
    """Say whether the label at `position` is denied by the word before it, or the one before its article."""
    last = position - 1
    if last > 0 and words[last] in {"a", "an"}:
        last -= 1
    return last >= 0 and words[last] in _NEGATIONS
