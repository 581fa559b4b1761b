"""What a student learns by heart: the curated rows as the dialogues that a training reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from potstill.pipeline.stage import Context
from potstill.rows import Row, read_rows
from potstill.training.rationales import answer_rows, rationale_rows


@dataclass(frozen=True, slots=True)
class Lessons:
    """Dialogues that end with what is to be learnt: answers to train and to validate on, and reasoning beside them.

    all_turns: every assistant turn of the answers is learnt; of reasoning it is always the last.
    """

    train: list[Row]
    validation: list[Row]
    rationale: list[Row]
    all_turns: bool

    def __iter__(self) -> Iterator[tuple[Row, bool]]:
        """Every row, and whether all of its turns are learnt."""
        for rows, all_turns in ((self.train, self.all_turns), (self.validation, self.all_turns), (self.rationale, False)):
            yield from ((row, all_turns) for row in rows)


def lessons_of(context: Context) -> Lessons:
    """Those of a job whose rows are curated."""
    curated, rationale, task = context.folder.curated, context.job.generation.rationale, context.task()
    train, validation = (list(read_rows(curated / f"{split}.jsonl")) for split in ("train", "validation"))
    return Lessons(
        answer_rows(train, rationale, task), answer_rows(validation, rationale, task), rationale_rows(train, rationale, task),
        all_turns=context.job.task == "conversation",
    )
