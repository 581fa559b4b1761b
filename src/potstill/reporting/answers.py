"""Test rows with every model's answer, side by side, turn by turn.

In: the test rows and the predictions of every model. Out: what the template shows. Rows are taken at equal distances from the
first to the last, so that nobody picks them. Texts are cut for the page; the run folder has them whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORT_CHARACTERS = 700
LONG_CHARACTERS = 6_000


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A text as the page shows it: at once, on demand, and how many characters are left out even then."""

    text: str
    rest: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """Who said it (reference or a model's label), and what; `failure` where an answer is missing."""

    who: str
    excerpt: Excerpt
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What was asked, and everyone's answer to it."""

    asked: Excerpt
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One test row. system: its system prompt, None where all rows shown have the same."""

    id: str
    system: Excerpt | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The rows shown, the system prompt that they share, and how they were chosen."""

    rows: tuple[Shown, ...]
    system: Excerpt | None
    chosen: str


def side_by_side(
    report: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    count: int,
) -> SideBySide:
    """`count` test rows, or all where there are fewer."""
    chosen = [rows[index] for index in spread(len(rows), count)]
    by_id = {label: {entry["id"]: entry for entry in entries} for label, entries in predictions.items()}
    systems = {_system(row) for row in chosen}
    shared = systems.pop() if len(systems) == 1 else None
    conversation = report["task"] == "conversation"
    shown = tuple(
        Shown(
            row["id"],
            excerpt(_system(row)) if shared is None and _system(row) else None,
            _turns(row, {label: entries.get(row["id"]) for label, entries in by_id.items()}, conversation),
        )
        for row in chosen
    )
    return SideBySide(shown, excerpt(shared) if shared else None, _how_chosen(len(chosen), len(rows)))


def spread(total: int, count: int) -> list[int]:
    """`count` indices at equal distances from the first to the last of `total`."""
    if count >= total or count < 2:
        return list(range(min(total, count)))
    return [round(index * (total - 1) / (count - 1)) for index in range(count)]


def excerpt(text: str) -> Excerpt:
    if len(text) <= SHORT_CHARACTERS:
        return Excerpt(text)
    cut = text.rfind(" ", SHORT_CHARACTERS // 2, SHORT_CHARACTERS) + 1 or SHORT_CHARACTERS
    return Excerpt(text[:cut], text[cut:LONG_CHARACTERS], max(0, len(text) - LONG_CHARACTERS))


def _how_chosen(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total} test rows, in their order."
    return f"{shown} of {total} test rows, at equal distances from the first to the last, so that nobody picked them."


def _system(row: Mapping[str, Any]) -> str:
    return next((message["content"] for message in row["messages"] if message["role"] == "system"), "")


def _turns(row: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any] | None], conversation: bool) -> tuple[Turn, ...]:
    """A conversation turn by turn; of another task the whole dialogue is the question."""
    asked = [message["content"] for message in row["messages"] if message["role"] == "user"]
    if not conversation:
        dialogue = [message for message in row["messages"] if message["role"] != "system"]
        told = asked[0] if len(dialogue) == 1 else "\n\n".join(f"{entry['role']}: {entry['content']}" for entry in dialogue)
        asked = [told]
    references = _references(row["reference"], conversation)
    return tuple(
        Turn(
            excerpt(question),
            (
                Said("reference", excerpt(references[turn] if turn < len(references) else "")),
                *(_said(label, entry, turn) for label, entry in entries.items()),
            ),
        )
        for turn, question in enumerate(asked)
    )


def _references(reference: str | list[str] | None, conversation: bool) -> list[str]:
    """By turn; several accepted answers to one question are shown together."""
    if reference is None or isinstance(reference, str):
        return [reference or ""]
    return reference if conversation else [" | ".join(reference)]


def _said(label: str, entry: Mapping[str, Any] | None, turn: int) -> Said:
    if entry is None:
        return Said(label, Excerpt(""), "not asked")
    given = entry["prediction"]
    turns = [given] if isinstance(given, str) else given
    text = turns[turn] if turn < len(turns) else ""
    return Said(label, excerpt(text), (entry["failure"] or "an empty answer") if not text.strip() else None)
