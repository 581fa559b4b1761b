"""Rows to splits: by content, so that order does not matter and what was held out once is never trained on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from potstill.curation import MIN_KEPT_ROWS
from potstill.errors import DataError, InputError
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.prepare import MIN_HELD_OUT, Prepare, row_key, split_rows
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import SPLITS, Context
from potstill.rows import Message, Row, read_rows
from potstill.spec import parse_job

NOTHING: dict[str, set[str]] = {split: set() for split in SPLITS}


def questions(count: int, start: int = 0) -> list[Row]:
    return [Row(f"id-{number}", (Message("user", f"Question {number}?"),)) for number in range(start, start + count)]


def keys(splits: Mapping[str, Sequence[Row]]) -> dict[str, set[str]]:
    return {split: {row_key(row) for row in rows} for split, rows in splits.items()}


@pytest.mark.parametrize(
    ("count", "sizes"), [(32, (16, 8, 8)), (40, (24, 8, 8)), (80, (64, 8, 8)), (81, (63, 9, 9)), (200, (160, 20, 20))]
)
def test_a_tenth_each_is_held_out_and_at_least_eight_rows(count: int, sizes: tuple[int, int, int]) -> None:
    rows = questions(count)
    splits = split_rows({"train": rows}, NOTHING)
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == sizes
    assert sorted(row.id for part in splits.values() for row in part) == sorted(row.id for row in rows)


def test_neither_order_nor_ids_matter() -> None:
    rows = questions(60)
    shuffled = [replace(row, id=f"other-{place}") for place, row in enumerate(random.Random(3).sample(rows, len(rows)))]
    assert keys(split_rows({"train": shuffled}, NOTHING)) == keys(split_rows({"train": rows}, NOTHING))


def test_within_a_split_the_rows_keep_their_order() -> None:
    for rows in split_rows({"train": questions(60)}, NOTHING).values():
        numbers = [int(row.id.removeprefix("id-")) for row in rows]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("start", range(100, 1000, 100))
def test_when_rows_are_added_no_row_changes_sides(start: int) -> None:
    """Ninety rows and then ten: each split needs one row more, and takes it from the new ones."""
    old, new = questions(90), questions(10, start)
    before = keys(split_rows({"train": old}, NOTHING))
    after = keys(split_rows({"train": [*new, *old]}, before))
    assert [len(after[split]) for split in SPLITS] == [80, 10, 10]
    for split in SPLITS:
        assert before[split] <= after[split]


def test_without_the_earlier_splits_rows_would_change_sides() -> None:
    """What the memory of the run folder is for: the hash alone does not keep a row where it was."""
    before = keys(split_rows({"train": questions(90)}, NOTHING))
    afresh = keys(split_rows({"train": questions(400)}, NOTHING))
    assert (before["test"] | before["validation"]) & afresh["train"]


def test_given_files_are_left_as_they_are() -> None:
    given = {"train": questions(16), "validation": questions(2, 100), "test": questions(1, 200)}
    assert split_rows(given, NOTHING) == given


def test_only_what_is_missing_is_cut() -> None:
    given = {"train": questions(40), "test": questions(3, 100)}
    splits = split_rows(given, NOTHING)
    assert splits["test"] == given["test"]
    assert [len(splits[split]) for split in SPLITS] == [32, 8, 3]


def test_too_few_rows() -> None:
    """Curation keeps no more rows than there are, and fails under 16: that is said before the teacher is asked."""
    with pytest.raises(InputError, match="too few rows") as error:
        split_rows({"train": questions(MIN_KEPT_ROWS + 2 * MIN_HELD_OUT - 1)}, NOTHING)
    assert error.value.where == "data.train"
    assert str(error.value.found) == "31, of which 16 were held out for test and validation"
    assert "at least 16 left" in str(error.value.expected)
    with pytest.raises(InputError, match="too few rows") as error:
        split_rows({"train": questions(15), "validation": questions(2, 100), "test": questions(1, 200)}, NOTHING)
    assert str(error.value.found) == "15"


# The stage, on files.


def write(path: Path, rows: Sequence[Row]) -> Path:
    entries = [{"id": row.id, "messages": [message.as_dict() for message in row.messages]} for row in rows]
    path.write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in entries))
    return path


def context(folder: Path, **data: Any) -> Context:
    values = {"task": "text", "teacher": "t", "student": "s", "data": {"train": "rows.jsonl", **data}}
    run = RunFolder(folder / "run")
    run.root.mkdir(exist_ok=True)
    return Context(parse_job(values, source="test", folder=folder, default_name="job"), run, EventLog(run.events), Silent())


def written(run: RunFolder) -> dict[str, list[Row]]:
    return {split: list(read_rows(run.rows / f"{split}.jsonl")) for split in SPLITS}


def test_the_stage_writes_the_splits_and_keeps_them_when_the_file_grows(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", questions(40))
    stage, given = Prepare(), context(tmp_path)
    assert stage.run(given, "")["rows"] == {"train": 24, "validation": 8, "test": 8}
    assert [path.name for path in stage.outputs(given)] == [f"{split}.jsonl" for split in SPLITS]
    before = keys(written(given.folder))
    write(tmp_path / "rows.jsonl", [*questions(10, 500), *questions(40)])
    stage.run(given, "")
    after = keys(written(given.folder))
    assert all(before[split] <= after[split] for split in SPLITS)
    assert sum(map(len, after.values())) == 50


def test_a_bad_row_fails_or_is_dropped_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", questions(40))
    with path.open("a") as file:
        file.write('{"messages": []}\n')
    with pytest.raises(DataError) as error:
        Prepare().run(context(tmp_path), "")
    assert error.value.where == f"{path}, line 41"
    summary = Prepare().run(context(tmp_path, on_bad_row="drop"), "")
    assert summary["dropped_count"] == 1
    assert summary["dropped"][0].startswith(f"{path}, line 41: ")


def test_the_inputs_are_contents_and_not_paths(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        write(folder / "rows.jsonl", questions(40))
    assert Prepare().inputs(context(here)) == Prepare().inputs(context(there))
    write(there / "rows.jsonl", questions(41))
    assert Prepare().inputs(context(here)) != Prepare().inputs(context(there))
    assert Prepare().inputs(context(here)) != Prepare().inputs(context(here, on_bad_row="drop"))


def test_a_run_that_was_moved_without_its_sources_knows_what_they_were(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", questions(40))
    given = context(tmp_path)
    inputs = Prepare().inputs(given)
    given.events.append("finished", stage="prepare", inputs=inputs)
    source.unlink()
    assert Prepare().inputs(given) == inputs
