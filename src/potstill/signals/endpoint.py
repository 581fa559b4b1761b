"""Signals that cost nothing: the log-probabilities that a teacher told with the answers it wrote.

What goes in: rows with the keys of the replies they came from, their texts as the student will read them, and the journal. What
comes out: a top-k signal for each text that the teacher wrote in the student's own tokens; the others are counted by reason. A
teacher may have answered another prompt than the student is trained on (a task's own, with examples): then its view is the one
it had with that prompt. What it costs: no request, and the reading of each reply.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar

from potstill.inference import Journal
from potstill.inference.completion import parse_completion
from potstill.inference.protocol import Reply, TokenLogprobs, ToldToken
from potstill.rows import Row
from potstill.signals.signal import TopK
from potstill.signals.token_bytes import TokenBytes
from potstill.signals.top_entries import Entries, drawn, top_signal

NO_KEY = "the row does not say which reply it came from"
NOT_KEPT = "the journal does not hold the reply"
NOT_TOLD = "no log-probabilities were told with the reply"
CUT_OFF = "the answer was cut off or refused"
OTHER_TEXT = "the text to learn is not the reply's own"
OTHER_TOKENS = "the teacher wrote the answer in other tokens than the student's"
NOT_ONE = "the probabilities told sum to more than 1"


class Text(Protocol):
    """A text as the student reads it: its tokens, and which of them it is to predict."""

    @property
    def input_ids(self) -> tuple[int, ...]: ...

    @property
    def target_mask(self) -> tuple[bool, ...]: ...


T = TypeVar("T", bound=Text)


def signals_of(
    journal: Journal, rows: Iterable[tuple[Row, Sequence[T]]], tokens: TokenBytes, without: Counter[str]
) -> Iterator[tuple[T, TopK]]:
    """The texts that have a signal, each with it: one distribution a target, in order, at temperature 1.

    Args:
        journal: Where the replies are.
        rows: Generated rows (`request_keys` in their meta), each with its texts.
        tokens: Of the student's tokenizer.
        without: Counts the other texts by the reason why they have none.
    """
    for row, texts in rows:
        keys = iter(_keys(row, sum(len(_turns(text)) for text in texts)))
        for text in texts:
            turns = [(target, next(keys)) for target in _turns(text)]
            found = _signal(journal, turns, tokens)
            if isinstance(found, TopK):
                yield text, found
            else:
                without[found] += 1


def answer_places(target: Sequence[int], reply: Reply, tokens: TokenBytes) -> list[Entries] | str:
    """What a reply tells of each token of a turn, its end included, or the reason why it tells nothing.

    Args:
        target: The answer in the student's tokens, and the one token that ends the turn. Most servers that leave that one out
            tell that the answer ended; then it counts as drawn.
    """
    if reply.logprobs is None:
        return NOT_TOLD
    if reply.finish_reason != "stop":
        return CUT_OFF
    places = _aligned(target, reply.logprobs, tokens)
    if places is None or len(places) < len(target) - 1:
        return OTHER_TOKENS if _text(target[:-1], tokens) == reply.text.strip() else OTHER_TEXT
    return places if len(places) == len(target) else [*places, drawn(target[-1])]


def _signal(journal: Journal, turns: Sequence[tuple[Sequence[int], str | None]], tokens: TokenBytes) -> TopK | str:
    places: list[Entries] = []
    for target, key in turns:
        if key is None:
            return NO_KEY
        raw = journal.reply(key)
        if raw is None:
            return NOT_KEPT
        found = answer_places(target, parse_completion(raw, logprobs=True), tokens)
        if isinstance(found, str):
            return found
        places += found
    return top_signal(places) or NOT_ONE


def _keys(row: Row, turns: int) -> list[str | None]:
    """The keys of the last so many turns; None for those before the first that the teacher wrote."""
    told = row.meta.get("request_keys")
    keys = [key for key in told if isinstance(key, str)] if isinstance(told, list) else []
    return [*[None] * (turns - len(keys)), *keys[max(0, len(keys) - turns) :]]


def _turns(text: Text) -> list[list[int]]:
    """The tokens of each turn to learn; between two stands at least one that is not."""
    pairs = groupby(zip(text.target_mask, text.input_ids, strict=True), key=lambda pair: pair[0])
    return [[token_id for _, token_id in group] for is_target, group in pairs if is_target]


def _aligned(target: Sequence[int], told: Sequence[TokenLogprobs], tokens: TokenBytes) -> list[Entries] | None:
    """The entries of each token of `target` from its first on; None where the teacher wrote another."""
    places: list[Entries] = []
    for token in told:
        taken = _taken(target[len(places) :], token.written, tokens)
        if not taken:
            return None
        places += [drawn(token_id) for token_id in taken[:-1]]
        places.append(_entries(taken[-1], token, tokens))
    return places


def _taken(target: Sequence[int], written: ToldToken, tokens: TokenBytes) -> Sequence[int]:
    """The tokens at the start of `target` that a told one covers, none where it is another.

    Some servers have no text for the token that ends a turn, and the teacher may have ended its turn by another than the one
    that the template writes: what it expected at that place is told all the same. llama.cpp tells of a character in several
    tokens its last token, with the bytes of all. Ids need not be the student's own, whose vocabulary may be a part of the
    teacher's.
    """
    if not target:
        return ()
    data = tokens.of(target[0])
    if written.data is None and written.id is None:  # parts of a character, whose text is no text
        return target[:1] if data is not None and not _is_text(data) else ()
    if not written.data:
        ends = len(target) == 1 and (written.id is None or tokens.is_added(written.id))
        return target[:1] if ends or written.id == target[0] else ()
    if data == written.data and (written.id in (None, target[0]) or data[0] < 0x80):  # no end of a character told by its last
        return target[:1]
    joined = b""
    for count, token_id in enumerate(target, 1):
        joined += tokens.of(token_id) or b""
        if joined == written.data and token_id == written.id:
            return target[:count]
        if not written.data.startswith(joined):
            break
    return ()


def _entries(token_id: int, told: TokenLogprobs, tokens: TokenBytes) -> Entries:
    """Log-probabilities by the student's ids: the written token's own, and each other's that is one token of the student's.

    What cannot be named, or is named a second time, stays in the tail.
    """
    own_id = token_id if told.written.data or told.written.id is None else told.written.id
    own = {} if told.written.logprob == -math.inf else {own_id: told.written.logprob}
    found: dict[int, float] = {}
    for other in told.top:
        named = _id_of(other, token_id, tokens)
        if named is not None:
            found.setdefault(named, other.logprob)
    return found | own


def _id_of(told: ToldToken, written_id: int, tokens: TokenBytes) -> int | None:
    if not told.data:
        return told.id if told.id is not None and tokens.of(told.id) is not None else None
    likely = (token_id for token_id in (told.id, written_id) if token_id is not None and tokens.of(token_id) == told.data)
    return next(likely, tokens.id_of(told.data))


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(target: Sequence[int], tokens: TokenBytes) -> str:
    return b"".join(tokens.of(token_id) or b"" for token_id in target).decode(errors="replace").strip()
