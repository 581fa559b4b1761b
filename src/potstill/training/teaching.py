"""The teacher of a training: how it reads a row, and where its signals come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from potstill.rows import Row
from potstill.signals.keys import TextKeys
from potstill.signals.source import LayerSource, SignalSource
from potstill.templates import ChatTemplate
from potstill.training.collator import TokenisedRow, texts_of


@dataclass(frozen=True, slots=True)
class TeacherView:
    """How the teacher reads a row: with a template and a tokenizer of its own; `keys` names what it then has read."""

    template: ChatTemplate
    tokenizer: Any
    keys: TextKeys

    @property
    def vocabulary(self) -> int:
        """The number of real tokens; a head may have more rows, as padding."""
        return max(self.tokenizer.get_vocab().values(), default=-1) + 1

    def texts(self, row: Row, *, all_turns: bool) -> list[TokenisedRow]:
        """The texts of a row as the teacher meets them, each with its key.

        Raises:
            InputError: the template cannot render the row.
        """
        texts = texts_of(row, self.template, self.tokenizer, all_turns=all_turns)
        keys = self.keys.of([(text.input_ids, text.target_mask) for text in texts])
        return [replace(text, key=key) for text, key in zip(texts, keys, strict=True)]


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a student learns from beside its answers.

    source: the teacher's signals. view: how it reads a row. knows: whether the source has signals for a key. vocabulary: the
    tokens that both know; heads may have more rows. layers: what there is of the teacher's layers, where they are learnt from
    too. kept: the teacher's layers that the student was made of, where that is so.
    """

    source: SignalSource
    view: TeacherView
    knows: Callable[[str], bool]
    vocabulary: int
    layers: LayerSource | None = None
    kept: tuple[int, ...] | None = None

    def keys(self, row: Row, texts: Sequence[TokenisedRow], *, all_turns: bool) -> list[str] | None:
        """The keys of a row's signals, one for each of the student's texts; None where it has not all of them.

        The two may frame a dialogue differently, as long as what they write in it is the same, token by token.
        """
        theirs = self.view.texts(row, all_turns=all_turns)
        if [text.targets for text in theirs] != [text.targets for text in texts]:
            return None
        keys = [text.key for text in theirs]
        return keys if all(map(self.knows, keys)) else None
