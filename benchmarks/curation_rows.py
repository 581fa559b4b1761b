"""Rows for benchmarks/curation.py: good ones built from real sentences, and among them faults of every rule, each marked."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from potstill.curation.words import words_of
from potstill.rows import Message, Row

FIELDS = {
    "qa/squad": "context", "summarization/scitldr": "document", "summarization/mts_dialog": "document",
    "math/gsm8k": "question",
}
TOPICS = 8
FLOOD = "topic 0"  # the topic with far more rows than the others
RATIO = 1.5  # that a topic may have of the smallest
PLANTED = 400  # of each fault
FLOODED = 12_000
HELD_OUT = 2000
_ENDS = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_RUN = 8

# Of six languages, four sentences each, of which three make an answer.
FOREIGN = (
    ("Zuerst rechnen wir zusammen, wie viele Äpfel in den beiden Körben liegen.", "Danach ziehen wir ab, was verkauft wurde.",
     "Am Ende bleibt nur noch der Rest, den wir durch die Zahl der Tage teilen.", "Deshalb ist das Ergebnis leicht zu sehen."),
    ("D'abord nous comptons combien de pommes se trouvent dans les deux paniers.", "Ensuite nous retirons ce qui a été vendu.",
     "À la fin il ne reste que ce que nous devons partager entre les jours.", "C'est pourquoi le résultat est facile à voir."),
    ("Primero contamos cuántas manzanas hay en las dos cestas que tenemos.", "Después restamos todo lo que ya se ha vendido.",
     "Al final solo queda lo que tenemos que dividir entre los días.", "Por eso el resultado es muy fácil de ver."),
    ("Prima contiamo quante mele ci sono nei due cesti che abbiamo davanti.", "Poi togliamo tutto quello che è stato venduto.",
     "Alla fine rimane soltanto quello che dobbiamo dividere per i giorni.", "Per questo il risultato è facile da vedere."),
    ("Сначала посчитаем, сколько яблок лежит в обеих корзинах.", "Потом вычтем то, что уже было продано на рынке.",
     "В конце остаётся только то, что нужно разделить на число дней.", "Поэтому результат увидеть совсем легко."),
    ("まず、二つのかごに入っているりんごの数を数えます。", "次に、もう売れてしまった分を引きます。",
     "最後に、残ったものを日数で割らなければなりません。", "ですから、結果はすぐにわかります。"),
)
REFUSALS = (
    "I'm sorry, but I can't help with that.", "I cannot assist with this request.", "I'm unable to answer that question.",
    "As an AI language model, I cannot do that.", "Unfortunately, I can't provide that information.",
)
PERSONAL = (
    "Write to {word}.{n}@mail.example.org for the rest.", "Call +44 20 7946 0{n:03d} for the rest.",
    "Call (212) 664-7{n:03d} for it.", "The card is 4111 1111 1111 1111, as before.",
    "Pay into DE89 3704 0044 0532 0130 00, please.", "Her number is 536-90-4{n:03d}.",
    "The machine answers at 8.8.{m}.{m}, mostly.", "Use the key sk-proj-{word}abcdefghijklmnop{n:03d} for it.",
)


@dataclass(frozen=True, slots=True)
class Marked:
    """A row and the rule that has to reject it; None where it is good."""

    row: Row
    fault: str | None


def held_out_and_rows(data: Path, good: int, seed: int = 0) -> tuple[list[Row], list[Marked]]:
    """Held-out rows, and `good` good rows with `PLANTED` faults of each rule among them, in an order of their own."""
    planter = Planter(data, seed)
    return planter.held_out, planter.rows(good)


class Planter:
    """Builds rows: five real sentences are a question, and an answer is two to five others and a number."""

    def __init__(self, data: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._sentences = _sentences(data, "train")
        known = {run for sentence in self._sentences for run in _runs(sentence)}
        others = [sentence for sentence in _sentences(data, "test") if not known & _runs(sentence)]
        self.held_out = [
            Row(f"held-out-{number}", (Message("user", self._join(others, 5)),), "1") for number in range(HELD_OUT)
        ]

    def _join(self, sentences: list[str], count: int) -> str:
        return " ".join(self._random.sample(sentences, count))

    def _good(self, number: int, topic: str | None = None) -> Row:
        value = self._random.randint(2, 99_999)
        answer = f"{self._join(self._sentences, self._random.randint(2, 5))}\n#### {value}"
        messages = (Message("user", self._join(self._sentences, 5)), Message("assistant", answer))
        topic = topic or f"topic {self._random.randrange(TOPICS)}"
        meta = {"finish_reasons": ["stop"], "topic": topic, "agreement": 1.0, "judge_score": 5}
        return Row(f"row-{number}", messages, f"#### {value}", meta)

    def rows(self, good: int) -> list[Marked]:
        placed: list[tuple[float, Marked]] = []
        for number in range(good):
            placed.append((self._random.random(), Marked(self._good(number), None)))
        originals = [entry for entry in placed if entry[1].row.meta["topic"] != FLOOD]
        for number in range(FLOODED):
            placed.append((self._random.random(), Marked(self._good(good + number, FLOOD), "unbalanced")))
        for fault, spoil in self._alone().items():
            for number in range(PLANTED):
                row = spoil(self._good(0), number)
                placed.append((self._random.random(), Marked(replace(row, id=f"{fault}-{number}"), fault)))
        for fault, copy in (("exact_duplicate", self._copied), ("near_duplicate", self._nearly_copied)):
            for number in range(PLANTED):
                place, original = self._random.choice(originals)
                row = replace(copy(original.row), id=f"{fault}-{number}")
                placed.append((self._random.uniform(place, 1), Marked(row, fault)))
        return [marked for _, marked in sorted(placed, key=lambda entry: entry[0])]

    def _alone(self) -> dict[str, Callable[[Row, int], Row]]:
        """How each fault that shows in the row itself, or beside held-out rows, is made."""
        return {
            "refused": lambda row, n: _answered(row, REFUSALS[n % len(REFUSALS)]),
            "truncated": lambda row, n: _answered(row, _answer(row)[:-20]).with_meta(finish_reasons=["length"]),
            "unparsable": lambda row, n: _answered(row, re.sub(r"\d", "", _answer(row)).replace("#", "")),
            "contradicts_gold": lambda row, n: _answered(row, f"{_answer(row).rpartition('#### ')[0]}#### {100_000 + n}"),
            "low_agreement": lambda row, n: row.with_meta(agreement=0.25),
            "low_judge_score": lambda row, n: row.with_meta(judge_score=1 + n % 2),
            "repetitive": self._looped,
            "personal_data": self._personal,
            "foreign_language": self._foreign,
            "length_outlier": self._long_or_short,
            "contaminated": self._contaminated,
        }

    def _before_number(self, row: Row, text: str) -> Row:
        said, _, number = _answer(row).rpartition("\n#### ")
        return _answered(row, f"{said} {text}\n#### {number}")

    def _looped(self, row: Row, number: int) -> Row:
        words = _answer(row).split()[: 5 + number % 20]
        return self._before_number(row, f"{' '.join(words)} " * (10 + number % 30))

    def _personal(self, row: Row, number: int) -> Row:
        word = re.sub(r"[^a-z]", "", self._random.choice(self._sentences).lower())[:12]
        piece = PERSONAL[number % len(PERSONAL)].format(n=100 + number % 800, m=number % 200, word=word)
        return self._before_number(row, piece)

    def _foreign(self, row: Row, number: int) -> Row:
        sentences = self._random.sample(FOREIGN[number % len(FOREIGN)], 3)
        return _answered(row, f"{' '.join(sentences)}\n#### {_answer(row).rpartition('#### ')[2]}")

    def _long_or_short(self, row: Row, number: int) -> Row:
        value = _answer(row).rpartition("#### ")[2]
        return _answered(row, f"#### {value}") if number % 2 else self._before_number(row, self._join(self._sentences, 150))

    def _contaminated(self, row: Row, number: int) -> Row:
        """The question holds 13 words or more of a held-out one, or is all of it."""
        other = self.held_out[number].messages[0].content
        words = other.split()
        start = self._random.randrange(max(1, len(words) - 20))
        part = " ".join(words[start : start + 20])
        asked = other.upper() if number % 3 == 0 else f"{row.messages[0].content} {part} {self._join(self._sentences, 1)}"
        return replace(row, messages=(Message("user", asked), row.messages[1]))

    def _copied(self, row: Row) -> Row:
        return replace(row, messages=(Message("user", f"  {row.messages[0].content.upper()}\n"), row.messages[1]))

    def _nearly_copied(self, row: Row) -> Row:
        """One word that is no number is another one; of about 100 words, so that 0.9 and more of the 3-grams are the same."""
        words = row.messages[0].content.split()
        places = [place for place, word in enumerate(words) if word.isalpha()]
        words[self._random.choice(places)] = "otherwise"
        return replace(row, messages=(Message("user", " ".join(words)), row.messages[1]))


def _answer(row: Row) -> str:
    return row.messages[-1].content


def _answered(row: Row, answer: str) -> Row:
    return replace(row, messages=(*row.messages[:-1], Message("assistant", answer)))


def _sentences(data: Path, split: str) -> list[str]:
    """The sentences of 8 to 60 words of four data sets, each once."""
    found: dict[str, None] = {}
    for name, field in FIELDS.items():
        with (data / f"{name}.{split}.jsonl").open("rb") as lines:
            for entry in map(orjson.loads, lines):
                for sentence in _ENDS.split(" ".join(str(entry[field]).split())):
                    if 8 <= len(sentence.split()) <= 60:
                        found[sentence] = None
    return list(found)


def _runs(sentence: str) -> set[tuple[str, ...]]:
    words = words_of(sentence)
    return {tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}

