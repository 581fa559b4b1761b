"""YAML files of users: mappings, or an error that names the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from potstill.errors import InputError
from potstill.yaml_files import line_of, read_mapping


def read(path: Path, content: str | bytes) -> dict[Any, Any]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_mapping(path, what="the job file", expected="keys")


def test_a_mapping(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "a: 1\nb: {c: [é]}\n") == {"a": 1, "b": {"c": ["é"]}}


def test_shared_parts_may_be_overridden(tmp_path: Path) -> None:
    text = "base: &base {x: 1, y: 2}\nother: &other {z: 3}\nmine: {<<: *base, <<: *other, y: 5}\n"
    assert read(tmp_path / "a", text)["mine"] == {"x": 1, "y": 5, "z": 3}


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' a second time"),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4, "the key 'b' a second time"),
        ("a: 1\n\x07\n", 2, "U+0007"),
        ("a: 1\nb: caf\u00e9\n".encode("latin-1"), 2, "byte 12"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "','"),
        ("a: 1\nb: !!python/name:os.system\n", 2, "could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, content: str | bytes, line: int, found: str) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path / "a", content)
    assert error.value.where == f"{tmp_path / 'a'}, line {line}"
    assert found in str(error.value.found)


def test_a_date_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a value that cannot be") as error:
        read(tmp_path / "a", "date: 2026-02-30\n")
    assert "day" in str(error.value.found)


def test_no_file_and_no_mapping(tmp_path: Path) -> None:
    for content in ("", "- a\n", "text\n"):
        with pytest.raises(InputError, match="the job file holds no mapping") as error:
            read(tmp_path / "a", content)
        assert error.value.expected == "keys"
    with pytest.raises(InputError, match="the job file does not exist") as error:
        read_mapping(tmp_path / "b", what="the job file", expected="keys", hint="write one")
    assert error.value.hint == "write one"
    with pytest.raises(InputError, match="this is a folder, not the job file"):
        read_mapping(tmp_path, what="the job file", expected="keys")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["a"], 1), (["b"], 2), (["b", "c"], 3), (["b", "c", 1], 5), (["b", "c", 1, "deeper"], 5), (["b", "absent"], 2),
        (["absent"], None),
    ],
)
def test_where_a_value_stands(tmp_path: Path, keys: list[int | str], line: int | None) -> None:
    (tmp_path / "a").write_text("a: 1\nb:\n  c:\n  - x\n  - y\n")
    assert line_of(tmp_path / "a", keys) == line
