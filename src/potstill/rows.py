"""Rows: one row is one training example.

What goes in: the user's files (jsonl, json, csv, parquet) or a data set of the hub. What comes out: `Record`, a mapping with
the place it was read from, and `Row`, the canonical form that all stages read and write:

    {"id": ..., "messages": [{"role": "system|user|assistant", "content": ...}], "reference": ..., "meta": {...}}

`messages` of a prepared row end with a user turn; assistant turns before it are the gold ones, and `reference` is the gold
answer (for a conversation: the list of all gold assistant turns, in order). After generation `messages` end with the
teacher's own last turn. How a record of a task becomes a row is the task's business (`potstill.tasks`).
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import orjson

from potstill.errors import CorruptFileError, DataError, EndpointError, InputError, MissingExtraError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
Reference = str | list[str] | None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Row:
    """One training example in its canonical form."""

    id: str
    messages: tuple[Message, ...]
    reference: Reference = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "messages": [message.as_dict() for message in self.messages],
            "reference": self.reference,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Row:
        """Read what `as_dict` wrote.

        Raises:
            KeyError: a key is missing.
        """
        return cls(
            id=data["id"],
            messages=tuple(Message(m["role"], m["content"]) for m in data["messages"]),
            reference=data.get("reference"),
            meta=data.get("meta") or {},
        )

    def with_meta(self, **values: Any) -> Row:
        return replace(self, meta={**self.meta, **values})

    @property
    def references(self) -> list[str]:
        """All accepted gold answers; empty where there is none."""
        if self.reference is None:
            return []
        return [self.reference] if isinstance(self.reference, str) else list(self.reference)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a user's file, and where it stands."""

    data: Mapping[str, Any]
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.line}"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that could not be read, and why."""

    file: str
    line: int
    why: str

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.line}"


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def content_hash(value: Any) -> str:
    """128-bit BLAKE2b of the canonical JSON, as 32 hexadecimal digits."""
    return blake2b(canonical_json(value), digest_size=16).hexdigest()


def read_records(source: Path | str) -> Iterator[Record | BadRecord]:
    """All records of a file, or of a hub data set where no such file exists and the name looks like one.

    Raises:
        InputError: the file does not exist, cannot be read, or has an unknown ending.
    """
    path = Path(source)
    if not path.exists():
        if _is_hub_name(str(source)):
            return _read_hub(str(source))
        raise InputError("the data file does not exist", where=str(source), expected="an existing file, or org/name of the hub")
    if path.is_dir():
        raise InputError("this is a folder, not a data file", where=str(source), expected="a data file, such as .jsonl")
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            "this kind of data file cannot be read", where=str(source), found=path.suffix or "no ending",
            expected=", ".join(sorted(readers)),
        )
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError("the data file cannot be opened", where=str(source), found=error.strerror) from error
    return reader(path)


def _is_hub_name(name: str) -> bool:
    parts = name.partition(":")[0].split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "/", "~")) and not Path(name).suffix


def _check_record(value: Any, file: str, line: int) -> Record | BadRecord:
    if not isinstance(value, dict):
        return BadRecord(file, line, f"found {type(value).__name__}, expected a JSON object")
    return Record(value, file, line)


def _read_jsonl(path: Path) -> Iterator[Record | BadRecord]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
                _check_first_line(line, path)
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield BadRecord(str(path), number, _why_not_json(line, error))
                continue
            yield _check_record(value, str(path), number)


def _check_first_line(line: bytes, path: Path) -> None:
    """What is no JSON lines at all is said once, not for every line."""
    if line.startswith(b"\x1f\x8b"):
        raise DataError("the data file is compressed", where=f"{path}, line 1", found="gzip", expected="the unpacked file")
    if line.lstrip().startswith(b"["):
        raise DataError(
            "the file holds a JSON list, not one object a line", where=f"{path}, line 1",
            found=line[:60].decode(errors="replace"), expected="one object a line",
            hint="if all of it is one list, name it .json",
        )


def _why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as wrong:
        return f"not UTF-8 (byte {wrong.start + 1} of the line)"
    return f"not JSON: {error.msg} (column {error.colno})"


def _read_json(path: Path) -> Iterator[Record | BadRecord]:
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        hint = "if it holds one object a line, name it .jsonl" if error.lineno > 1 else None
        raise DataError("the file is not JSON", where=f"{path}, line {error.lineno}", found=error.msg, hint=hint) from error
    if isinstance(value, dict):
        lists = [entry for entry in value.values() if isinstance(entry, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise DataError("the file holds no list of rows", where=str(path), expected="a JSON list of objects, or .jsonl")
    for number, entry in enumerate(value, 1):
        yield _check_record(entry, str(path), number)


def _read_csv(path: Path) -> Iterator[Record | BadRecord]:
    with path.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            for entry in reader:
                if None in entry or None in entry.values():
                    yield BadRecord(str(path), reader.line_num, f"expected {len(reader.fieldnames or [])} columns")
                    continue
                yield Record(dict(entry), str(path), reader.line_num)
        except UnicodeDecodeError as error:
            raise DataError("the file is not UTF-8", where=f"{path}, line {reader.line_num + 1}", found=error.reason) from error
        except csv.Error as error:
            raise DataError("the file is not CSV", where=f"{path}, line {reader.line_num}", found=str(error)) from error


def _read_parquet(path: Path) -> Iterator[Record | BadRecord]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("train", "pyarrow") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches():
                for entry in batch.to_pylist():
                    number += 1
                    yield Record(entry, str(path), number)
    except pyarrow.ArrowInvalid as error:
        raise DataError("the file is not Parquet", where=str(path), found=str(error)) from error


def _read_hub(name: str) -> Iterator[Record | BadRecord]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("train", "datasets") from error
    repository, _, split = name.partition(":")
    try:
        table = datasets.load_dataset(repository, split=split or "train")
    except ConnectionError as error:
        raise EndpointError(
            "the data set is not on this machine, and the hub cannot be reached", where=name, found=error,
            hint="unset HF_HUB_OFFLINE, mend the connection, or name a file that holds the rows",
        ) from error
    except (OSError, ValueError) as error:
        raise InputError("the data set cannot be loaded from the hub", where=name, found=error) from error
    for number, entry in enumerate(table, 1):
        yield Record(entry, name, number)


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file that `write_rows` wrote.

    Raises:
        CorruptFileError: a line is not what was written.
    """
    for number, entry in enumerate(read_jsonl(path), 1):
        try:
            row = Row.from_dict(entry)
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(path, number, "no row") from error
        yield row


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as jsonl, to a temporary name and then renamed; returns how many."""
    return write_jsonl(path, (row.as_dict() for row in rows))


def write_jsonl(path: Path, entries: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, to a temporary name and then renamed; returns how many lines."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for entry in entries:
                out.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that `write_jsonl` wrote.

    Raises:
        CorruptFileError: a line is not what was written.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise damaged(path, number, error.msg) from error
            yield entry


def damaged(path: Path, line: int, found: str) -> CorruptFileError:
    """A file that a stage wrote and that is something else now."""
    return CorruptFileError(
        "a file of the run is not what was written", where=f"{path}, line {line}", found=found,
        hint="delete it: the stage that wrote it does so again",
    )
