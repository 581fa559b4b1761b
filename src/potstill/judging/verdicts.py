"""What a judge's reply says: a score, or which place is better.

Replies are read leniently: the JSON that was asked for, mended where it is broken, else the last verdict that the text states
in so many words. What states none, or one that the scale does not have, is unreadable; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from potstill.judging.rubric import Scale

Place = Literal["first", "second", "tie"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict(Generic[T]):
    """value: what was decided, None where that cannot be read, and then `unread` says why. reason: the judge's own words."""

    value: T | None
    reason: str | None = None
    unread: str | None = None


_NUMBER = r"-?\d+(?:\.\d+)?"
_OUT_OF = rf"({_NUMBER})(?:\s*(?:/|out of)\s*({_NUMBER}))?(?![\d.]*\d|\s*(?:to|-|–|or)\s*\d)"
_SCORE_VALUE = re.compile(rf"\s*{_OUT_OF}\s*\.?\s*")
_MARKUP = r"[\s\"'*_`\[\](){}:=]*"
_SCORE_STATED = re.compile(
    rf"(?:\b(?:score|rating|grade|verdict)\b{_MARKUP}(?:(?:is|of|would be){_MARKUP})?|\[\[\s*){_OUT_OF}", re.IGNORECASE
)
_SCORE_ALONE = re.compile(rf"{_MARKUP}{_OUT_OF}{_MARKUP}\.?{_MARKUP}")
_PLACE = r"(A|B|[Tt]ie|TIE)"
_PLACE_STATED = re.compile(
    rf"(?:(?i:\b(?:winner|verdict|better(?:\s+(?:answer|one))?)\b){_MARKUP}(?:is{_MARKUP})?(?:[Aa]nswer\s+)?"
    rf"|\[\[\s*){_PLACE}(?!\w)|\b[Aa]nswer ([AB]) (?:is (?:the )?(?:clearly |slightly |much )?(?:better|winner)|wins)\b"
)
_PLACE_ALONE = re.compile(rf"{_MARKUP}(?:[Aa]nswer\s+)?{_PLACE}{_MARKUP}\.?{_MARKUP}")
_PLACES: Mapping[str, Place] = {
    "a": "first", "answer a": "first", "b": "second", "answer b": "second", "tie": "tie", "draw": "tie", "equal": "tie",
}  # fmt: skip


def read_score(text: str, scale: Scale) -> Verdict[float]:
    """The score that a reply gives."""
    for found in _objects(text):
        if "score" in found:
            value = _as_score(found["score"], scale)
            return Verdict(value, _reason(found), None if value is not None else _none_of_scale(found["score"], scale))
    stated = _last(text, _SCORE_STATED, _SCORE_ALONE)
    if stated is None:
        return Verdict(None, None, _no_verdict(text, "score"))
    value = _in_scale(stated[1], stated[2], scale)
    return Verdict(value, text.strip(), None if value is not None else _none_of_scale(stated[0].strip(), scale))


def read_winner(text: str) -> Verdict[Place]:
    """The place that a reply prefers."""
    for found in _objects(text):
        if "winner" in found:
            place = _PLACES.get(str(found["winner"]).strip(" \"'[]().").casefold())
            told = f"the winner is {found['winner']!r}, which is none of A, B and tie"
            return Verdict(place, _reason(found), None if place is not None else told)
    stated = _last(text, _PLACE_STATED, _PLACE_ALONE)
    if stated is None:
        return Verdict(None, None, _no_verdict(text, "winner"))
    return Verdict(_PLACES[next(group for group in stated.groups() if group).casefold()], text.strip())


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a reply, the last one first, their keys in small letters."""
    if "{" not in text:
        return
    import json_repair

    found = json_repair.loads(text)
    for entry in reversed(found if isinstance(found, list) else [found]):
        if isinstance(entry, dict):
            yield {str(key).casefold(): value for key, value in entry.items()}


def _last(text: str, stated: re.Pattern[str], alone: re.Pattern[str]) -> re.Match[str] | None:
    """The verdict that the last line is, else the last one that the text states."""
    lines = [line for line in text.splitlines() if line.strip(" \t`")]
    whole = alone.fullmatch(lines[-1]) if lines else None
    return whole or next(reversed(list(stated.finditer(text))), None)


def _as_score(value: Any, scale: Scale) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if scale.holds(value) else None
    match = _SCORE_VALUE.fullmatch(value) if isinstance(value, str) else None
    return _in_scale(match[1], match[2], scale) if match else None


def _in_scale(number: str, out_of: str | None, scale: Scale) -> float | None:
    if out_of is not None and float(out_of) != scale.high:
        return None
    return float(number) if scale.holds(float(number)) else None


def _reason(found: Mapping[str, Any]) -> str | None:
    reason = found.get("reason")
    return reason.strip() if isinstance(reason, str) and reason.strip() else None


def _none_of_scale(found: Any, scale: Scale) -> str:
    return f"the score is {_shown(str(found))}, which is not on the scale {scale.name}"


def _no_verdict(text: str, kind: str) -> str:
    return f"the reply states no {kind}: {_shown(text)}" if text.strip() else "the reply is empty"


def _shown(text: str, limit: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
