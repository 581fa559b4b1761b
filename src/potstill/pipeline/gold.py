"""Gold answers as texts to learn: what a teacher is tuned on before it teaches.

In: prepared rows. Out: those with a gold answer, as dialogues that open as the teacher is asked and end in that answer. Rows
that curation would keep a student from, because they overlap with held-out rows or hold personal data, are left out here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from potstill.curation import MIN_KEPT_ROWS, curate
from potstill.errors import InputError
from potstill.pipeline.curate import HELD_OUT
from potstill.pipeline.prepare import MIN_HELD_OUT
from potstill.rows import Message, Row
from potstill.spec import CurationSpec
from potstill.tasks import Task

REASONING_WORDS = 5  # "12 / 3 = 4" is some, "3 apples" is none
NEEDED = {"train": MIN_KEPT_ROWS, "validation": MIN_HELD_OUT}


@dataclass(frozen=True, slots=True)
class Gold:
    """Dialogues that end in the gold answer, and how many of these answers lack the reasoning that the teacher is asked for."""

    rows: tuple[Row, ...]
    bare: int = 0


def gold_of(rows: Iterable[Row], task: Task, *, chain_of_thought: bool) -> Gold:
    """The rows with a gold answer that the teacher can be tuned on, each with that answer as its last turn.

    A teacher that is to write its reasoning would unlearn it from bare answers: they are counted and left out.
    """
    found: list[Row] = []
    bare = 0
    for row in rows:
        text = task.gold_text(row)
        if text is None:
            continue
        if _asks_for_reasoning(row, task, chain_of_thought) and _is_bare(text, task):
            bare += 1
        else:
            found.append(replace(row, messages=(*row.messages, Message("assistant", text))))
    return Gold(tuple(found), bare)


def _asks_for_reasoning(row: Row, task: Task, chain_of_thought: bool) -> bool:
    """Whether the teacher is told to reason: by the job, or by the row's own prompt, as those of mathematics do."""
    return chain_of_thought or (task.reasons and task.worked_messages(row) == row.messages)


def _is_bare(text: str, task: Task) -> bool:
    """Whether a gold answer comes without reasoning."""
    return len((task.split_worked(text).rationale or "").split()) < REASONING_WORDS


def learnable(
    gold: Mapping[str, Gold], held_out: Mapping[str, Iterable[Row]], task: Task, spec: CurationSpec
) -> dict[str, Gold]:
    """What of the gold rows of each split may be learnt, by the job's rules on held-out rows and on personal data alone.

    held_out: the prepared rows of validation and test.
    """
    rules = CurationSpec(
        decontaminate=spec.decontaminate, personal_data=spec.personal_data, deduplicate="none", verify="none", language="any",
        length="any", repetition="any",
    )
    others = {split: list(rows) for split, rows in held_out.items()}
    kept = {}
    for split, part in gold.items():
        away = [row for other in HELD_OUT[split] for row in others[other]]
        kept[split] = Gold(tuple(curate(part.rows, split=split, spec=rules, task=task, held_out=away).kept), part.bare)
    return kept


def as_asked(rows: Iterable[Row], task: Task, *, chain_of_thought: bool) -> Iterator[Row]:
    """The dialogues as the teacher meets them: with the task's instructions, as it is asked when it teaches."""
    for row in rows:
        prepared = replace(row, messages=row.messages[:-1])
        asked = task.worked_messages(prepared) if chain_of_thought else task.teacher_messages(prepared)
        yield replace(row, messages=(*asked, row.messages[-1]))


def check_gold(gold: Mapping[str, Gold]) -> None:
    """Whether there are enough gold answers to tune a teacher on, and to choose the best epoch by.

    Raises:
        InputError: there are not.
    """
    for split, needed in NEEDED.items():
        part = gold[split]
        if len(part.rows) < needed:
            bare = f", and {part.bare} without the reasoning that the teacher is asked for" if part.bare else ""
            what_to_do = "write the reasoning into the gold answers" if part.bare else "add gold answers"
            raise InputError(
                f"too few {split} rows have a gold answer to correct the teacher by",
                where="key 'teacher.correct' of the job file", found=f"{len(part.rows)} that may be learnt{bare}",
                expected=f"at least {needed}", hint=f"{what_to_do}, or leave 'correct' out",
            )
