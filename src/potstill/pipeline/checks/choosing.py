"""Several answers and several teachers: whether every row finds a teacher, and whether answers can be chosen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from potstill.errors import InputError
from potstill.generation import route_of
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.teachers import assignment_of, is_told_by_gold, selection_of
from potstill.rows import Row

_SHOWN = 5


def look_at_choosing(seen: Seen) -> Iterator[Told]:
    """Who answers how many rows; nothing where one teacher answers each row once."""
    generation, teachers = seen.job.generation, seen.teachers
    rows = [row for split in ("train", "validation") for row in seen.splits[split]]
    if generation.strategy == "route":
        _check_routes(seen, rows)
    how = selection_of(generation)
    judged = seen.job.evaluation.judge is not None
    if generation.mode == "prompts" and how == "best" and not seen.task.labels and not judged:
        raise InputError("new prompts have no gold answers, so which answer is best cannot be told", where=_key(seen, "best"),
                         found="best, and mode: prompts", expected="a judge (evaluation.judge), vote, or all")
    if how == "vote" and not seen.task.votes:
        raise InputError(
            f"answers of the task {seen.task.name} cannot be voted on: no two are alike", where=_key(seen, "vote"),
            found="vote", expected="best, or all",
        )
    if how == "best":
        _check_best(seen, rows)
    if len(teachers) > 1:
        assignment = assignment_of(seen.job.teachers, teachers, generation)
        shares = Counter(teacher.name for row in rows for teacher in assignment.teachers(row))
        yield ", ".join(f"{teacher.name} answers {shares[teacher.name]} rows" for teacher in teachers)
    if generation.samples > 1 or how != "all":
        kept = {"all": "all that differ are kept", "best": "the best is kept", "vote": "the one most agree on is kept"}[how]
        asked = generation.samples * (len(teachers) if generation.strategy in ("best", "vote") else 1)
        yield f"{asked} answers a row, of which {kept}"


def _check_routes(seen: Seen, rows: list[Row]) -> None:
    """Every row has a teacher.

    Raises:
        InputError: some have none; the values that no teacher takes are named.
    """
    field = str(seen.job.generation.route_by)
    if any(teacher.routes is None for teacher in seen.job.teachers):
        return
    if seen.job.generation.mode == "prompts":
        raise InputError("new prompts have no field to route by", where="key 'generation.route_by' of the job file",
                         found=field, expected="one teacher without routes, which takes them")
    taken = {value for teacher in seen.job.teachers for value in teacher.routes or ()}
    lost = [(row, value) for row in rows if (value := route_of(row, field)) not in taken]
    if lost:
        values = Counter("no value" if value is None else repr(value) for _, value in lost)
        shown = ", ".join(f"{value} ({count} rows)" for value, count in values.most_common(_SHOWN))
        raise InputError(
            f"{len(lost)} of {len(rows)} rows have no teacher, the first is row {lost[0][0].id}",
            where="key 'generation.route_by' of the job file", found=f"{field}: {shown}",
            expected=f"one of {', '.join(sorted(taken))}",
            hint="add the value to a teacher's routes, or give one teacher no routes: it takes the rest of the rows",
        )


def _check_best(seen: Seen, rows: list[Row]) -> None:
    """The best answer to every row can be told.

    Raises:
        InputError: it cannot.
    """
    untold = [row for row in rows if not is_told_by_gold(row, seen.task)]
    if untold and seen.job.evaluation.judge is None:
        raise InputError(
            f"which answer is best cannot be told for {len(untold)} of {len(rows)} rows, the first is row {untold[0].id}",
            where=_key(seen, "best"), found="no gold answer that an answer could be compared with",
            expected="nli, classification, qa or math with a gold answer in every row, or a judge",
            hint="add gold answers, name a judge (evaluation.judge), choose by vote, or keep all",
        )


def _key(seen: Seen, how: str) -> str:
    return f"key 'generation.{'strategy' if seen.job.generation.strategy == how else 'select'}' of the job file"
