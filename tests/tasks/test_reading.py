"""A file becomes rows; a bad line is named with its file, line and reason, and fails the job or is dropped."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from potstill.errors import DataError, InputError
from potstill.tasks import get_task
from potstill.tasks.reading import read_rows_of

GOOD = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}


def dialogue(*turns: tuple[str, object]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write(folder: Path, *lines: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (dialogue(("human", "Hello")), "message 1 has the role 'human', expected one of system, user, assistant"),
        (dialogue(("user", "a"), ("tool", "b")), "message 2 has the role 'tool'"),
        (dialogue(("system", "a"), ("system", "b"), ("user", "c")), "message 2 is from 'system', expected 'user'"),
        (dialogue(("user", "a"), ("system", "b")), "message 2 is from 'system', expected 'assistant'"),
        (dialogue(("user", "a"), ("user", "b")), "message 2 is from 'user', expected 'assistant'"),
        (dialogue(("assistant", "a"), ("user", "b")), "message 1 is from 'assistant', expected 'user'"),
        (dialogue(("system", "a")), "no user message"),
        (dialogue(("user", "a"), ("assistant", " ")), "message 2 (assistant) is empty"),
        (dialogue(("user", None)), "the content of message 1 (user) is missing, expected text"),
        (dialogue(("user", [{"type": "text", "text": "a"}])), "the content of message 1 (user) is list, expected text"),
        ({"messages": ["Hello"]}, "message 1 is str, expected an object"),
        ({"message": "Hello"}, "found the fields message; expected messages, or instruction/output, or prompt/completion"),
        (["Hello"], "found list, expected a JSON object"),
        (b'{"messages": [}\n', "not JSON"),
        (b'{"messages": "\xff"}\n', "not UTF-8"),
    ],
)
def test_a_bad_line_fails_the_job_by_file_line_and_reason(tmp_path: Path, bad: object, why: str) -> None:
    path = write(tmp_path, GOOD, b"\n", bad, GOOD)
    with pytest.raises(DataError) as caught:
        read_rows_of(path, get_task("conversation"), on_bad_row="fail")
    assert caught.value.where == f"{path}, line 3"
    assert why in str(caught.value.found)
    assert caught.value.exit_code == 2
    assert len(caught.value.lines()) <= 6


def test_bad_lines_are_dropped_where_the_job_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, dialogue(("human", "Hello")), GOOD, b"{\n", dialogue(("user", "Bye")))
    read = read_rows_of(path, get_task("conversation"), on_bad_row="drop")
    assert [row.messages[-1].content for row in read.rows] == ["Hello", "Bye"]
    assert [(bad.line, bad.file) for bad in read.dropped] == [(1, str(path)), (3, str(path))]


def test_the_number_of_further_bad_lines_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, {}, {}, {})
    with pytest.raises(DataError, match="2 more rows are bad"):
        read_rows_of(path, get_task("text"), on_bad_row="fail")


@pytest.mark.parametrize("lines", [(), ({}, {})])
def test_a_file_without_a_row_is_an_error_even_where_bad_lines_are_dropped(tmp_path: Path, lines: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        read_rows_of(write(tmp_path, *lines), get_task("text"), on_bad_row="drop")


def test_repeated_rows_get_ids_of_their_own(tmp_path: Path) -> None:
    rows = read_rows_of(write(tmp_path, GOOD, GOOD, GOOD), get_task("conversation"), on_bad_row="fail").rows
    first = rows[0].id
    assert [row.id for row in rows] == [first, f"{first}-2", f"{first}-3"]


def test_one_id_cannot_stand_for_two_rows(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": 1, "text": "a"}, {"id": 1, "text": "a"}, {"id": 1, "text": "b"}, {"id": "1-2", "text": "c"})
    read = read_rows_of(path, get_task("text"), on_bad_row="drop")
    assert [row.id for row in read.rows] == ["1", "1-2"]
    assert [(bad.line, "another row already" in bad.why) for bad in read.dropped] == [(3, True), (4, True)]


def test_csv_columns_are_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("premise,hypothesis,label,source\nRain.,It is wet.,0,web\nRain.,It is dry.,,web\n", encoding="utf-8")
    rows = read_rows_of(path, get_task("nli"), on_bad_row="fail").rows
    assert [row.reference for row in rows] == ["entailment", None]
    assert rows[0].meta == {"source": "web"}
