"""Questions that ask the same in other words, which only an embedding model can tell."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from planted import SHARE, Planted, Planter, copies_last, similarity

MOST_ALIKE = 0.5  # of the word 3-grams of a question and another that asks the same
_SAID_OTHERWISE: Mapping[str, tuple[str, ...]] = {
    "how many": ("what number of",), "how much": ("what amount of",), "how much money": ("what sum of money",),
    "in total": ("altogether", "overall"), "altogether": ("in total",), "each": ("every single",), "every": ("each",),
    "twice as many": ("two times as many", "double as many"), "twice as much": ("two times as much",), "half": ("one half",),
    "bought": ("purchased",), "buys": ("purchases",), "buy": ("purchase",), "sold": ("has sold",), "costs": ("is priced at",),
    "cost": ("price",), "money": ("cash",), "dollars": ("bucks",), "store": ("shop",), "shop": ("store",), "house": ("home",),
    "kids": ("children",), "children": ("kids",), "friend": ("pal",), "friends": ("pals",), "people": ("persons",),
    "makes": ("produces",), "make": ("produce",), "made": ("produced",), "gets": ("receives",), "get": ("receive",),
    "got": ("received",), "gave": ("handed",), "gives": ("hands",), "wants": ("wishes",), "want": ("wish",),
    "needs": ("requires",), "need": ("require",), "has": ("owns",), "had": ("owned",), "left": ("remaining",),
    "starts": ("begins",), "started": ("began",), "ends": ("finishes",), "big": ("large",), "large": ("big",),
    "small": ("little",), "new": ("brand-new",), "old": ("aged",), "also": ("as well",), "then": ("afterwards",),
    "after": ("following",), "before": ("prior to",), "during": ("in the course of",), "while": ("whereas",), "if": ("when",),
    "and": ("as well as",), "but": ("however",), "because": ("since",), "so": ("therefore",), "only": ("just",),
    "more than": ("in excess of",), "less than": ("under",), "fewer": ("less",), "total": ("overall",), "number": ("count",),
    "amount": ("quantity",), "car": ("automobile",), "cars": ("automobiles",), "trip": ("journey",), "road": ("street",),
    "job": ("work",), "works": ("labors",), "earns": ("makes",), "earned": ("made",), "pays": ("spends",), "spends": ("pays",),
    "spent": ("paid",), "eats": ("consumes",), "eat": ("consume",), "ate": ("consumed",), "uses": ("employs",),
    "used": ("employed",), "takes": ("needs",), "walks": ("strolls",), "runs": ("jogs",), "goes": ("heads",),
    "went": ("headed",), "decides": ("chooses",), "decided": ("chose",), "picks": ("gathers",), "picked": ("gathered",),
    "puts": ("places",), "put": ("placed",), "mother": ("mom",), "mom": ("mother",), "father": ("dad",),
    "dad": ("father",), "dog": ("hound",),
    "box": ("carton",), "boxes": ("cartons",), "bag": ("sack",), "bags": ("sacks",), "candy": ("sweets",), "gift": ("present",),
    "begin": ("start",), "finish": ("complete",), "same": ("identical",), "different": ("distinct",), "will": ("is going to",),
    "all": ("all of",), "some": ("a few",), "whole": ("entire",), "week": ("seven days",), "now": ("at present",),
    "currently": ("at the moment",), "group": ("bunch",), "student": ("pupil",), "students": ("pupils",), "teacher": ("tutor",),
    "party": ("celebration",), "lunch": ("midday meal",), "picture": ("image",), "pictures": ("images",), "price": ("cost",),
}
_PHRASES = re.compile(
    r"\b(" + "|".join(map(re.escape, sorted(_SAID_OTHERWISE, key=len, reverse=True))) + r")\b", re.IGNORECASE
)


def reworded(text: str, draw: random.Random) -> str:
    """The text with all words and phrases exchanged for which another is known; its numbers and their order stay."""

    def other(found: re.Match[str]) -> str:
        word = draw.choice(_SAID_OTHERWISE[found[0].lower()])
        return word[0].upper() + word[1:] if found[0][0].isupper() else word

    return _PHRASES.sub(other, text)


def plant_reworded(planter: Planter, count: int) -> Planted:
    """So many rows, one in 200 of which asks the same as a row before it, and as many the same about other numbers."""
    each = max(1, count // SHARE)
    pairs, others = [], []
    while len(pairs) < each:
        row = planter.good()
        question = reworded(row.messages[1].content, planter.draw)
        if similarity(question, row.messages[1].content) < MOST_ALIKE:
            pairs.append((row, planter.same_answer(row, question)))
            others.append(planter.same_answer(planter.good(), planter.renumbered(question)))
    rows = [row for pair in pairs for row in pair] + others + [planter.good() for _ in range(count - 3 * each)]
    planter.draw.shuffle(rows)
    faults = {copy.id: "semantic_duplicate" for _, copy in pairs}
    kinds = {other.id: "other numbers" for other in others}
    originals = {copy.id: row.id for row, copy in pairs}
    return Planted(copies_last(rows, originals), planter.held_out, faults, kinds, too_many=0, resembling=0)
