"""The data files: each bad row with its line, splits that are one file, labels, rows too long for the student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from potstill.catalog import ResolvedModel
from potstill.curation import MIN_KEPT_ROWS
from potstill.errors import InputError, PotstillError
from potstill.pipeline.checks.seen import Seen, Told
from potstill.pipeline.prepare import planned_splits, row_key
from potstill.pipeline.stage import SPLITS
from potstill.rows import Row
from potstill.tasks import get_task
from potstill.tasks.label import LabelTask
from potstill.tasks.reading import RowsRead, bad_row_error, no_rows_error, scan_rows_of
from potstill.templates import ChatTemplate

BAD_ROWS_TOLD = 20
_TRIED_ROWS = 16  # the shortest: if none of these fits, none does


def look_at_data(seen: Seen) -> Iterator[Told]:
    """Every file, and what the rows come to together."""
    job = seen.job
    sources = {split: source for split in SPLITS if (source := getattr(job.data, split)) is not None}
    read: dict[str, RowsRead] = {}
    wrong = False
    for split, source in sources.items():
        try:
            read[split] = scan_rows_of(source, get_task(job.task))
        except PotstillError as error:
            wrong = True
            yield error
            continue
        for told in _bad_rows(read[split], source, drop=job.data.on_bad_row == "drop"):
            wrong = True
            yield told
    for told in _same_files(sources):
        wrong = True
        yield told
    if not wrong:
        yield from _together(seen, read)


def _bad_rows(read: RowsRead, source: str, *, drop: bool) -> Iterator[PotstillError]:
    bad = [] if drop else read.dropped
    for number, record in enumerate(bad[:BAD_ROWS_TOLD], 1):
        yield bad_row_error(record, others=len(bad) - 1 if number == 1 else 0)
    if len(bad) > BAD_ROWS_TOLD:
        yield InputError(f"{len(bad) - BAD_ROWS_TOLD} more rows cannot be read", where=source)
    if not read.rows and not bad:
        yield no_rows_error(source, read.dropped)


def _same_files(sources: dict[str, str]) -> Iterator[PotstillError]:
    """What a student was trained on must never be what it is measured on."""
    first: dict[Path, str] = {}
    for split, source in sources.items():
        path = Path(source).resolve()
        if path in first:
            yield InputError(
                f"the same file is given twice, as {first[path]} and as {split}", where=f"data.{split}", found=source,
                expected="other rows", hint=f"leave data.{split} out, and rows of data.train are held out for it",
            )
        first.setdefault(path, split)


def _together(seen: Seen, read: dict[str, RowsRead]) -> Iterator[Told]:
    splits = planned_splits(read)
    task = get_task(seen.job.task).with_rows([row for rows in splits.values() for row in rows])
    if isinstance(task, LabelTask) and len(task.labels) == 1:
        yield InputError(
            "all rows have the same label, so there is nothing to learn", where="data.train", found=task.labels[0],
            expected="rows of two labels at least, or all labels in 'meta': {'labels': [...]} of one row",
        )
    held_out = {row_key(row) for split in ("validation", "test") for row in splits[split]}
    shared = sum(row_key(row) in held_out for row in splits["train"])
    if shared and len(splits["train"]) - shared < MIN_KEPT_ROWS:
        yield InputError(
            "too few rows are in train alone", where="data.train",
            found=f"{shared} of {len(splits['train'])} are in validation or test too",
            expected=f"at least {MIN_KEPT_ROWS} that are not",
        )
    yield _told(read, splits, shared)


def _told(read: dict[str, RowsRead], splits: dict[str, list[Row]], shared: int) -> str:
    rows = [row for part in read.values() for row in part.rows]
    gold = sum(row.reference is not None for row in rows)
    dropped = sum(len(part.dropped) for part in read.values())
    counts = ", ".join(f"{len(part)} {split}" for split, part in splits.items())
    return (
        f"{counts} rows, {gold} of {len(rows)} with a gold answer"
        + (f", {dropped} dropped" if dropped else "")
        + (f", {shared} train rows are held out too" if shared else "")
    )


def look_at_lengths(seen: Seen) -> Iterator[Told]:
    """Whether the student's chat template takes the rows, and whether any is short enough to learn from."""
    model, rows = seen.student_files, seen.splits["train"]
    if model is None or model.path is None:
        yield "unknown until the student is downloaded"
        return
    template = ChatTemplate.from_gguf(model.path) if model.kind == "gguf" else ChatTemplate.from_folder(model.path)
    for row in _one_of_each_shape(rows):
        template.render(row.messages, add_generation_prompt=True)
    limit = min((value for value in (seen.job.training.max_length, model.context_window) if value), default=None)
    if limit is not None:
        tried = sorted(rows, key=lambda row: sum(len(message.content) for message in row.messages))[:_TRIED_ROWS]
        texts = [template.render(row.messages, add_generation_prompt=True) for row in tried]
        shortest = min(_least_tokens(texts, model))
        if shortest >= limit:
            yield InputError(
                "every row is longer than the student may read", where="training.max_length", found=f"{limit} tokens",
                expected=f"more than {shortest}, which the shortest prompt has without its answer",
            )
            return
    yield f"the student's template takes them; the longest text may have {limit} tokens" if limit else "no limit is known"


def _one_of_each_shape(rows: Sequence[Row]) -> list[Row]:
    """A row of each sequence of roles: what a template refuses, it refuses by that."""
    return list({tuple(message.role for message in row.messages): row for row in rows}.values())


def _least_tokens(texts: Sequence[str], model: ResolvedModel) -> list[int]:
    """Tokens of each text; where the tokenizer is not at hand, its words, of which no token spans two."""
    path = model.path / "tokenizer.json" if model.kind == "folder" and model.path is not None else None
    if path is None or not path.is_file() or find_spec("tokenizers") is None:
        return [len(text.split()) for text in texts]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
