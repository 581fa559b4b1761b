"""Stage 1, prepare: the user's files to rows.

In: data files. Out: rows/{train,validation,test}.jsonl. Where validation or test are not given they are cut from train, a tenth
each and at least 8 rows, by the hash of a row's content, so that order does not matter. When rows are added later, a row once
held out stays held out, and what more has to be held out comes from the new rows: what one version of a student was trained on
must never be the next one's test, nor the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from potstill.curation import MIN_KEPT_ROWS
from potstill.digests import file_digest
from potstill.errors import InputError
from potstill.pipeline.stage import SPLITS, Context
from potstill.rows import Row, content_hash, read_rows, write_rows
from potstill.tasks import get_task
from potstill.tasks.reading import RowsRead, read_rows_of

MIN_HELD_OUT = 8
SHARE_HELD_OUT = 0.1


class Prepare:
    """Reads, checks and splits the rows."""

    name = "prepare"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        data = context.job.data
        return {
            "task": context.job.task,
            "on_bad_row": data.on_bad_row,
            "data": {split: self._source_digest(context, split) for split in SPLITS},
        }

    def _source_digest(self, context: Context, split: str) -> str | None:
        """A file's digest; in a run folder that was moved without its sources, the digest they had."""
        source = getattr(context.job.data, split)
        if source is None:
            return None
        path = Path(source)
        if path.is_file():
            return file_digest(path)
        finished = context.events.last_finished(self.name)
        known = finished["inputs"]["data"].get(split) if finished else None
        return known if path.is_absolute() else content_hash(source)

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        read = read_job_rows(context.job)
        splits = split_rows({name: part.rows for name, part in read.items()}, splits_before(context))
        task = get_task(context.job.task).with_rows([row for rows in splits.values() for row in rows])
        for name, rows in splits.items():
            write_rows(context.folder.rows / f"{name}.jsonl", map(task.settled, rows))
        dropped = [f"{bad.where}: {bad.why}" for part in read.values() for bad in part.dropped]
        context.progress.say(
            f"rows: {len(splits['train'])} train, {len(splits['validation'])} validation, {len(splits['test'])} test"
            + (f"; {len(dropped)} bad rows dropped, the first: {dropped[0]}" if dropped else "")
        )
        counts = {name: len(rows) for name, rows in splits.items()}
        return {"rows": counts, "dropped": dropped[:100], "dropped_count": len(dropped)}

    def outputs(self, context: Context) -> Iterable[Path]:
        return [context.folder.rows / f"{split}.jsonl" for split in SPLITS]


def read_job_rows(job: Any) -> dict[str, RowsRead]:
    """The rows of each data file that a job names.

    Raises:
        InputError: a file is missing or wrong.
    """
    task = get_task(job.task)
    sources = {split: getattr(job.data, split) for split in SPLITS}
    return {
        split: read_rows_of(source, task, on_bad_row=job.data.on_bad_row)
        for split, source in sources.items()
        if source is not None
    }


def planned_splits(read: Mapping[str, RowsRead]) -> dict[str, list[Row]]:
    """The splits that a first run makes of these rows.

    Raises:
        InputError: too few rows.
    """
    return split_rows({name: part.rows for name, part in read.items()}, {split: set() for split in SPLITS})


def splits_before(context: Context) -> dict[str, set[str]]:
    """The content keys of the rows of each split that an earlier prepare of this run made."""
    files = {split: context.folder.rows / f"{split}.jsonl" for split in SPLITS}
    return {split: {row_key(row) for row in read_rows(path)} if path.is_file() else set() for split, path in files.items()}


def row_key(row: Row) -> str:
    """What a row asks, as a hash: the same for the same content under another id."""
    return content_hash([message.as_dict() for message in row.messages])


def split_rows(given: Mapping[str, Sequence[Row]], before: Mapping[str, set[str]]) -> dict[str, list[Row]]:
    """Cut the splits that are not given from train.

    Raises:
        InputError: too few rows are left to train on.
    """
    rest = list(given["train"])
    splits = {name: list(rows) for name, rows in given.items()}
    missing = [name for name in ("test", "validation") if name not in given]
    total = len(rest)
    for name in missing:
        wanted = max(MIN_HELD_OUT, math.ceil(total * SHARE_HELD_OUT))
        ranked = sorted(rest, key=partial(_rank, before=before, split=name))
        chosen = {row.id for row in ranked[:wanted]}
        splits[name] = [row for row in rest if row.id in chosen]
        rest = [row for row in rest if row.id not in chosen]
    if len(rest) < MIN_KEPT_ROWS:
        held_out = f", of which {total - len(rest)} were held out for {' and '.join(missing)}" if missing else ""
        raise InputError(
            "too few rows",
            where="data.train",
            found=f"{total}{held_out}",
            expected=f"at least {MIN_KEPT_ROWS} left to train on, and many more to learn from",
        )
    splits["train"] = rest
    return {name: splits[name] for name in SPLITS}


def _rank(row: Row, *, before: Mapping[str, set[str]], split: str) -> tuple[bool, bool, str]:
    """Held out first: what this split held before, then rows that were not trained on, in the order of their hashes."""
    key = row_key(row)
    return key not in before[split], any(key in others for others in before.values()), content_hash([split, key])
