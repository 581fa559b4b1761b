"""Rules on how an answer is written: in circles, or in another language than the one it was asked in."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from potstill.curation.rules import Fetch, answers_of, preview
from potstill.curation.words import Batch
from potstill.rows import Row
from potstill.tasks import Task


class Repetitive:
    """The answer goes round in circles, as models do that lost their thread; unless the gold answer does too.

    It does where most of its word 4-grams stand in it before (Rae et al. 2021, arXiv:2112.11446, appendix A, count repeated
    n-grams so; loops of a model go far beyond what they allow), where the same words come three more times in a row and are 24
    or more, where most of its lines are one and the same, or, of long texts and words without spaces, where they shrink to
    almost nothing when packed.
    """

    name = "repetitive"
    WORDS, SHARE = 24, 0.5  # of an answer that is judged; of its 4-grams that are repeated
    LINES = 4
    PACKED_CHARACTERS, PACKED_SHARE = 200, 0.2

    def __init__(self, task: Task) -> None:
        self._task = task

    def reject(self, row: Row) -> str | None:
        for text in answers_of(row, self._task):
            found = self.circles(text)
            if found is not None and not any(self.circles(gold) for gold in row.references):
                return found
        return None

    def circles(self, text: str) -> str | None:
        """What is repeated in a text, in words; None where nothing is to speak of."""
        words = text.split()
        if len(words) >= self.WORDS:
            grams = list(zip(words, words[1:], words[2:], words[3:], strict=False))
            share = 1 - len(set(grams)) / len(grams)
            if share > self.SHARE or (share * len(grams) >= self.WORDS and self._loops(grams)):
                most, times = Counter(grams).most_common(1)[0]
                return f"{share:.0%} of its word 4-grams are repeated, {preview(' '.join(most))} {times} times"
        lines = [line for line in map(str.strip, text.split("\n")) if len(line) > 3]
        line, times = Counter(lines).most_common(1)[0] if lines else ("", 0)
        if times >= self.LINES and times > len(lines) / 2:
            return f"{times} of its {len(lines)} lines are {preview(line)}"
        for unbroken in (max(words, key=len, default=""), text if len(words) < self.WORDS else ""):
            if len(unbroken) >= self.PACKED_CHARACTERS and any(map(str.isalnum, unbroken)):  # "-----" is a line that is drawn
                raw = unbroken.encode(errors="surrogatepass")
                share = len(zlib.compress(raw, 1)) / len(raw)
                if share < self.PACKED_SHARE:
                    return f"it repeats itself: packed it has {share:.0%} of its size"
        return None


    def _loops(self, grams: Sequence[tuple[str, ...]]) -> bool:
        """Whether the same words follow each other again and again: each gram as far from its last place as the one before."""
        last: dict[tuple[str, ...], int] = {}
        period = length = 0
        for place, gram in enumerate(grams):
            distance = place - last.get(gram, place)
            last[gram] = place
            length = length + 1 if distance and distance == period else int(distance > 0)
            period = distance
            if length >= max(self.WORDS, 3 * period):
                return True
        return False


# What the identifier takes for one another in short texts, or what one reads as the other.
_ALIKE = (
    "no nn da sv", "bs hr sr sl mk bg", "id ms jv", "gl pt es", "cs sk", "ru uk be bg", "zh wuu yue ja", "af nl", "lb de",
    "ca oc es", "fr wa gcr gcf ht", "it lij vec", "hi mr ne sa", "ar ary arz fa ur", "en pcm", "kk ky tt ba", "he hbo",
    "el grc",
)
# Written in scripts of their own.
_OTHER_SCRIPTS = ("el grc ru uk be bg mk", "zh wuu yue ja ko", "ar ary arz fa ur he hbo", "hi mr ne sa th ka hy am")
_NEVER_ASCII = frozenset(chain.from_iterable(alike.split() for alike in _OTHER_SCRIPTS))
_NAMES = {
    "ar": "arabic", "bg": "bulgarian", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german deutsch", "el": "greek",
    "en": "english", "es": "spanish español", "fa": "persian farsi", "fi": "finnish", "fr": "french français", "he": "hebrew",
    "hi": "hindi", "hr": "croatian", "hu": "hungarian", "id": "indonesian", "it": "italian italiano", "ja": "japanese",
    "ko": "korean", "la": "latin", "nl": "dutch nederlands", "no": "norwegian", "pl": "polish", "pt": "portuguese português",
    "ro": "romanian", "ru": "russian", "sv": "swedish", "th": "thai", "tr": "turkish", "uk": "ukrainian", "vi": "vietnamese",
    "zh": "chinese mandarin",
}
_TRANSLATE = re.compile(
    r"\btranslate(?:\s+(?:this|these|the\s+following|it|that|into|to|from)\b|\s*:)|\btranslation\s*:|\bübersetze|\btradui[st]|\btraduc[ei]",
    re.IGNORECASE,
)
_NO_PROSE = re.compile(r"```.*?(?:```|$)|`[^`\n]*`|https?://\S+|\S+@\S+|[\d\W_]+(?=\s|$)", re.DOTALL)
_LETTERS, _CERTAIN, _READ = 40, 0.9, 240  # letters and confidence that are needed; characters that are read
_SHARED, _HEAD = 5, 600  # small words in common that tell one language; characters they are looked for in


def language_of(text: str) -> str | None:
    """The language of a text by ISO 639; None where it is too short or too much else than prose to tell."""
    prose = _NO_PROSE.sub(" ", text[: 3 * _READ])[:_READ]
    letters = sum(map(str.isalpha, prose))
    if letters < (_LETTERS if prose.isascii() else _LETTERS // 2) or letters < len(prose) / 2:
        return None
    code, certainty = _identifier().classify(prose)
    if certainty < _CERTAIN or code == "zxx" or (prose.isascii() and code in _NEVER_ASCII):
        return None
    return str(code)


def _alike(left: str, right: str) -> bool:
    """Whether two texts share so many small words that they are in one language; tells most rows without the identifier."""
    shared = set(left[:_HEAD].lower().split()) & set(right[:_HEAD].lower().split())
    return sum(2 <= len(word) <= 4 and word.isalpha() for word in shared) >= _SHARED


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class ForeignLanguage:
    """The answer is in a language that it was not wanted in.

    Wanted are the languages that the job names; where it names none, that of the prompt, of any gold answer, and any where the
    prompt asks for a translation or an answer in it. Where one language answers another in more than a twentieth of the rows,
    that is what the rows are about, and nothing is said against it.
    """

    name = "foreign_language"
    USUAL = 0.05

    def __init__(self, task: Task, wanted: Sequence[str] | None) -> None:
        self._task, self._wanted = task, wanted
        self._found: dict[int, tuple[str, str]] = {}
        self._seen = 0

    def observe(self, batch: Batch) -> None:
        for index, row in zip(batch.indices.tolist(), batch.rows, strict=True):
            if self._task.choices(row):
                continue
            self._seen += 1
            said = "\n".join(answers_of(row, self._task))
            given = "\n".join(message.content for message in self._task.given(row) if message.role != "system")
            if self._wanted is None and _alike(given, said):
                continue
            answer = language_of(said)
            if self._wanted is not None:
                if answer is not None and not _accepts(self._wanted, answer):
                    self._found[index] = ("", answer)
                continue
            asked = language_of(given) if answer is not None else None
            if answer is not None and asked is not None and not _accepts([asked], answer) and not self._excused(row, answer):
                self._found[index] = (asked, answer)

    def _excused(self, row: Row, answer: str) -> bool:
        prompt = "\n".join(message.content for message in row.messages if message.role != "assistant").lower()
        names = "|".join(_NAMES.get(answer, "nothing").split())
        wanted = re.search(rf"\b(?:in|into|to|auf|en|al)\s+(?:{names})\b", prompt) or _TRANSLATE.search(prompt)
        return wanted is not None or _accepts([code for code in map(language_of, row.references) if code], answer)

    def settle(self, fetch: Fetch) -> None:
        if self._wanted is None:
            pairs = Counter(self._found.values())
            most = max(2, self.USUAL * self._seen)
            self._found = {index: pair for index, pair in self._found.items() if pairs[pair] <= most}
        self._fetch = fetch

    def reject(self, index: int) -> str | None:
        if index not in self._found:
            return None
        asked, answer = self._found[index]
        text = preview("\n".join(answers_of(self._fetch(index), self._task)))
        wanted = f"the prompt is in '{asked}'" if asked else f"wanted: {', '.join(self._wanted or ())}"
        return f"the answer is in '{answer}', {wanted}: {text}"

    def keep(self, index: int) -> None: ...


def _accepts(wanted: Iterable[str], code: str) -> bool:
    return any(code == want or any({code, want} <= set(alike.split()) for alike in _ALIKE) for want in wanted)


