"""Mathematical problems with their answers, some of which have a fault that one rule of curation is there for.

Good rows are put together from the sentences of real problems, in other company and with other numbers: they read like rows and
make no sense, which no rule looks at. Everything goes by a seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from string import ascii_letters

from potstill.curation.words import words_of
from potstill.rows import Message, Row
from potstill.spec import BalanceSpec, CurationSpec

SPEC = CurationSpec(
    min_agreement=0.5, min_judge_score=3.0, personal_data="drop", balance=BalanceSpec(by="topic", ratio=2.0)
)
SHARE = 200  # one row in so many has a fault of each rule
TOPICS = ("shops", "trips", "farms", "schools", "sports", "kitchens", "gardens", "savings")  # the smaller groups
SYSTEM = Message("system", "Solve the problem step by step. End with a line that has #### and then the final number.")
_NUMBER = re.compile(r"\d+")
REFUSALS = (
    "I'm sorry, but I can't help with that.", "I cannot assist with this request.", "Sorry, I can't answer that question.",
    "As an AI language model, I cannot solve problems like this one.", "Unfortunately, I am unable to help you with this task.",
    "I'm afraid I can't do that.", "I apologize, but I am not able to provide that information.", "I must decline.",
    "I won't be able to help with this.", "I can’t help with that request.", "I am not able to answer this question.",
    "I'm unable to assist with that.", "I’m sorry, I cannot comply with this request.", "I can't provide that.",
    "I'm not allowed to answer this.", "I cannot fulfill your request.",
)
NO_NUMBERS = (
    "It depends on what was sold before.", "First add what each of them has, then take away what was given.", "",
    "The answer follows from the amounts in the question.", "####", "Let us think about it step by step:", "\\boxed{}",
)
FOREIGN = (  # each with room for one number
    "Primero sumamos lo que tiene cada persona y después restamos los {} que regalaron a sus amigos durante la semana.",
    "On additionne d'abord ce que chacun possède, puis on retire les {} qu'ils ont donnés à leurs amis cette semaine.",
    "Zuerst zählen wir zusammen, was jeder von ihnen hat, und ziehen dann die {} ab, die sie verschenkt haben.",
    "Prima sommiamo quello che ciascuno possiede e poi sottraiamo i {} che hanno regalato agli amici questa settimana.",
    "Najpierw dodajemy to, co każdy z nich posiada, a potem odejmujemy {} sztuk, które oddali swoim przyjaciołom.",
    "Сначала сложим всё, что есть у каждого из них, а затем вычтем те {} штук, которые они подарили друзьям.",
    "まず、それぞれが持っている数をすべて足してから、今週友達にあげた{}個を引き算して答えを求めます。それが答えになります。",
)


@dataclass(frozen=True)
class Planted:
    """Rows, and what is the matter with which.

    rows: what a teacher answered. held_out: what must not be learnt from. faults: by id, the rule that is to find it. kinds: by
    id, what is special about that fault. too_many: rows of a frequent group beyond what `SPEC` lets it have; which of them go
    is not planted. resembling: rows that share 8 to 11 words in a row with a held-out one, which is noted and no fault.
    """

    rows: list[Row]
    held_out: list[Row]
    faults: dict[str, str]
    kinds: dict[str, str]
    too_many: int
    resembling: int


class Planter:
    """Makes rows of the sentences of these problems; `held_out` are rows as a job prepares them."""

    def __init__(self, problems: Sequence[Row], held_out: Sequence[Row], seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.held_out = list(held_out)
        told = [re.split(r"(?<=[.?!])\s+", problem.messages[-1].content.strip()) for problem in problems]
        self._statements = [sentence for sentences in told for sentence in sentences[:-1]]
        self._questions = [sentences[-1] for sentences in told]
        self._lines = [line for problem in problems for line in problem.references[0].split("\n")[:-1]]
        self._made = 0

    def rows(self, count: int) -> Planted:
        """So many rows, one in 200 of them with a fault of each rule, in random order."""
        each = max(1, count // SHARE)
        planters: dict[str, Callable[[Row, int], tuple[Row, str]]] = {
            "refused": self._refused, "truncated": self._truncated, "unparsable": self._unparsable,
            "contradicts_gold": self._wrong, "low_agreement": self._doubted, "low_judge_score": self._badly_judged,
            "repetitive": self._circles, "personal_data": self._private, "foreign_language": self._foreign,
            "length_outlier": self._long_or_short, "contaminated": self._seen,
        }
        faulty, faults, kinds = list[Row](), dict[str, str](), dict[str, str]()
        for rule, plant in planters.items():
            for number in range(each):
                row, kind = plant(self.good(), number)
                faulty.append(row)
                faults[row.id], kinds[row.id] = rule, kind
        resembling = [self._resembling(self.good()) for _ in range(each)]
        good = [self.good() for _ in range(count - len(faulty) - 3 * each)]
        base = (len(good) - each) // (len(TOPICS) + 2)
        topics = [topic for topic in TOPICS for _ in range(base)] + ["common"] * (2 * base + each)
        self.draw.shuffle(good)
        good = [row.with_meta(topic=topic) for row, topic in zip(good, topics, strict=False)] + good[len(topics) :]
        copies = [(row, self.copy(row)) for row in self.draw.sample(good, each)]
        near = [(row, *self.nearly(row, number)) for number, row in enumerate(self.draw.sample(good, each))]
        faults |= {copy.id: "exact_duplicate" for _, copy in copies} | {copy.id: "near_duplicate" for _, copy, _ in near}
        kinds |= {copy.id: kind for _, copy, kind in near}
        rows = [*good, *resembling, *faulty, *(copy for _, copy in copies), *(copy for _, copy, _ in near)]
        self.draw.shuffle(rows)
        return Planted(
            copies_last(rows, {copy.id: row.id for row, copy, *_ in [*copies, *near]}),
            self.held_out, faults, kinds, too_many=each, resembling=each,
        )

    def good(self, least: int = 2) -> Row:
        """A row without a fault, whose question has so many sentences at least beside the last."""
        self._made += 1
        statements = self.draw.sample(self._statements, self.draw.randint(least, 4))
        question = self.renumbered(" ".join([*statements, self.draw.choice(self._questions)]))
        lines = self.renumbered("\n".join(self.draw.sample(self._lines, self.draw.randint(2, 5))))
        number = self.draw.randint(2, 999)
        return Row(
            f"row-{self._made}", (SYSTEM, Message("user", question), Message("assistant", f"{lines}\n#### {number}")),
            f"#### {number}",
            {"finish_reasons": ["stop"], "agreement": self.draw.uniform(0.5, 1), "judge_score": self.draw.randint(3, 5)},
        )

    def copy(self, row: Row) -> Row:
        """The same question in other case and white space, with an answer of its own."""
        question = row.messages[1].content
        altered = [question, question.upper(), question.replace(" ", "  "), f"\n{question} ", question.lower()]
        return self.same_answer(row, self.draw.choice(altered))

    def nearly(self, row: Row, number: int) -> tuple[Row, str]:
        """A question that differs in one word, or in as many as leave it a similarity of 0.92 or 0.85."""
        question, words = row.messages[1].content, row.messages[1].content.split()
        least, altered = (1.0, 0.92, 0.85)[number % 3], f"Please {question}"
        for place in self.draw.sample(range(len(words)), len(words)):
            if words[place].isalpha():
                words[place] = self.draw.choice(("perhaps", "indeed", "maybe", "surely"))
                if similarity(" ".join(words), question) < least:
                    break
                altered = " ".join(words)
        return self.same_answer(row, altered), f"similarity {similarity(altered, question):.1f}"

    def same_answer(self, row: Row, question: str) -> Row:
        """A row with another question and solution, and the same number in the end."""
        return asked(answered(replace(self.good(), reference=row.reference), _body(self.good())), question)

    def renumbered(self, text: str) -> str:
        return _NUMBER.sub(lambda found: str(self.draw.randint(2, 99)), text)

    def _refused(self, row: Row, number: int) -> tuple[Row, str]:
        if number % 10 == 0:
            return row.with_meta(finish_reasons=["refused"]), "by the endpoint"
        text = REFUSALS[number % len(REFUSALS)]
        return said(row, text), text

    def _truncated(self, row: Row, number: int) -> tuple[Row, str]:
        answer = row.messages[-1].content
        return said(row, answer[: self.draw.randint(20, len(answer) - 8)]).with_meta(finish_reasons=["length"]), ""

    def _unparsable(self, row: Row, number: int) -> tuple[Row, str]:
        text = NO_NUMBERS[number % len(NO_NUMBERS)]
        return said(row, text), text

    def _wrong(self, row: Row, number: int) -> tuple[Row, str]:
        right = int(row.references[0].split()[-1])
        kind, wrong = list({
            "one more": f"{right + 1}", "ten times": f"{right}0", "negative": f"-{right}", "a half more": f"{right}.5",
            "a digit less": f"{right}"[:-1] or "0",
        }.items())[number % 5]
        return said(row, f"{_body(row)}\n#### {wrong}"), kind

    def _doubted(self, row: Row, number: int) -> tuple[Row, str]:
        return row.with_meta(agreement=self.draw.choice((0.25, 0.4, 1 / 3, 0.0))), ""

    def _badly_judged(self, row: Row, number: int) -> tuple[Row, str]:
        return row.with_meta(judge_score=self.draw.choice((1, 2, 2.5))), ""

    def _circles(self, row: Row, number: int) -> tuple[Row, str]:
        lines = _body(row).split("\n")
        words = lines[-1].split()
        unit = "".join(words[:3])
        kind, loop = list({
            "a line": "\n".join([lines[-1]] * 12), "a phrase": " ".join((words[:6] * 60)[:90]), "a word": "so " * 60,
            "two lines": "\n".join([lines[0], lines[1]] * 8), "no spaces": unit * (300 // len(unit)),
        }.items())[number % 5]
        return answered(row, f"{_body(row)}\n{loop}"), kind

    def _private(self, row: Row, number: int) -> tuple[Row, str]:
        values = list(self.private_values().items())
        kind, value = values[number % len(values)]
        sentence = self.draw.choice(("Write to {} for more.", "It is {}, as she said.", "Use {}", "({})")).format(value)
        if number % 2:
            return asked(row, f"{sentence} {row.messages[1].content}"), kind
        return answered(row, f"{sentence}\n{_body(row)}"), kind

    def private_values(self) -> dict[str, str]:
        """A piece of personal data of each kind that is looked for, right in its check digits."""
        digits, letters = partial(self._letters, "23456789"), partial(self._letters, ascii_letters)
        dni, nir, card = digits(8), f"2 85 05 78 006 {digits(3)}", luhn(f"4{digits(14)}")
        return {
            "email": f"{letters(6).lower()}.{letters(4).lower()}@{letters(5).lower()}.example.org",
            "phone US": f"+1 212 736 {digits(4)}", "phone US, as written there": f"(212) 736-{digits(4)}",
            "phone GB": f"+44 20 7946 {digits(4)}", "phone DE": f"+49 30 {digits(8)}",
            "phone FR": f"01 42 68 {digits(2)} 53",
            "card": card, "card, spaced": " ".join(card[place : place + 4] for place in range(0, 16, 4)),
            "iban": iban("DE", digits(18)), "iban, spaced": " ".join(re.findall(".{1,4}", iban("DE", digits(18)))),
            "ssn": f"{self.draw.choice(('219', '523', '401'))}-{digits(2)}-{digits(4)}",
            "dni": dni + "TRWAGMYFPDXBNJZSQVHLCKE"[int(dni) % 23],
            "nir": f"{nir} {97 - int(nir.replace(' ', '')) % 97:02d}",
            "ip": f"8.{digits(2)}.{digits(2)}.{digits(1)}", "ip 6": f"2a00:1450:4001:{digits(3)}::{digits(4)}",
            "key": f"sk-proj-{letters(40)}", "github": f"ghp_{letters(36)}", "aws": f"AKIA{letters(16).upper()}",
            "password": f"password: {letters(12)}{digits(6)}",
        }

    def _letters(self, alphabet: str, count: int) -> str:
        return "".join(self.draw.choices(alphabet, k=count))

    def _foreign(self, row: Row, number: int) -> tuple[Row, str]:
        """An answer in another language than its question, which is long enough for its language to be told."""
        row, text = self.good(least=4), FOREIGN[number % len(FOREIGN)]
        return answered(row, text.format(self.draw.randint(2, 99))), text[:20]

    def _long_or_short(self, row: Row, number: int) -> tuple[Row, str]:
        if number % 2:
            return answered(row, self.renumbered("\n".join(self.draw.sample(self._lines, 120)))), "long"
        return said(row, row.references[0].removeprefix("#### ")), "short"

    def _seen(self, row: Row, number: int) -> tuple[Row, str]:
        """A held-out question in other case, or 13 to 20 of its words in another question."""
        other = self.draw.choice(self.held_out).messages[-1].content
        if number % 4 == 0:
            return asked(row, other.lower()), "whole"
        return asked(row, self._with_words_of(row, other, self.draw.randint(13, 20))), "in part"

    def _resembling(self, row: Row) -> Row:
        other = self.draw.choice(self.held_out).messages[-1].content
        return asked(row, self._with_words_of(row, other, self.draw.randint(8, 11)))

    def _with_words_of(self, row: Row, other: str, count: int) -> str:
        """The question with so many words in a row of another one in its middle."""
        theirs, mine = words_of(other), row.messages[1].content.split()
        start = self.draw.randrange(max(1, len(theirs) - count))
        middle = len(mine) // 2
        return " ".join([*mine[:middle], "Thus", *theirs[start : start + count], "indeed.", *mine[middle:]])


def said(row: Row, text: str) -> Row:
    """The row with another answer."""
    return replace(row, messages=(*row.messages[:-1], Message("assistant", text)))


def asked(row: Row, text: str) -> Row:
    """The row with another question."""
    return replace(row, messages=(row.messages[0], Message("user", text), row.messages[-1]))


def answered(row: Row, body: str) -> Row:
    """The row with another way to the right number."""
    return said(row, f"{body}\n{row.references[0]}")


def _body(row: Row) -> str:
    return row.messages[-1].content.rpartition("\n")[0]


def copies_last(rows: list[Row], originals: dict[str, str]) -> list[Row]:
    """The rows, each copy behind its original."""
    place = {row.id: number for number, row in enumerate(rows)}
    for copy, original in originals.items():
        if place[copy] < place[original]:
            place[copy], place[original] = place[original], place[copy]
    return sorted(rows, key=lambda row: place[row.id])


def similarity(left: str, right: str) -> float:
    """The Jaccard similarity of the word 3-grams of two texts, told the long way."""
    one, two = ({" ".join(words[i : i + 3]) for i in range(len(words) - 2)} for words in (words_of(left), words_of(right)))
    return len(one & two) / max(1, len(one | two))


def luhn(digits: str) -> str:
    """The digits with the check digit that makes them a card number."""
    total = sum(sum(divmod(int(digit) * factor, 10)) for digit, factor in zip(reversed(digits), cycle((2, 1)), strict=False))
    return f"{digits}{-total % 10}"


def iban(country: str, account: str) -> str:
    """An account number with its two check digits."""
    number = int(account + "".join(str(ord(letter) - 55) for letter in country) + "00")
    return f"{country}{98 - number % 97:02d}{account}"
