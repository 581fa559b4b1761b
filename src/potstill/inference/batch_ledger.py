"""Which batches were handed to a vendor: a file beside the journal, so that a batch is found again and never sent twice.

One JSON object a line: "intended" before a batch is sent (its name and the keys of its requests), "submitted" with the vendor's
id as soon as that is known, "settled" when its replies are in the journal. Each line is on the disk before anything follows
from it. A torn last line is left out: what it would have said was not acted upon.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from potstill.errors import CorruptFileError, MachineError

LEDGER_FILE = "batches.jsonl"


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that went, or may have gone, to a vendor together.

    name: ours, unlike any other. keys: of its requests. at: when it was intended (Unix time). vendor_id: None where the process
    died before it was known.
    """

    name: str
    keys: frozenset[str]
    at: float
    vendor_id: str | None = None


class BatchLedger:
    """The file, and the batches in it that are not settled. One writer: whoever holds the journal's lock.

    Raises:
        CorruptFileError: a line is broken though more follows.
        MachineError: the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER_FILE
        self.open: dict[str, Batch] = {}
        for entry in self._read():
            self._take(entry)

    def intend(self, keys: Iterable[str]) -> Batch:
        """Note a batch that is about to be sent."""
        name = secrets.token_hex(8)
        self._write({"batch": name, "is": "intended", "at": time.time(), "keys": sorted(keys)})
        return self.open[name]

    def submitted(self, batch: Batch, vendor_id: str) -> Batch:
        """Note the vendor's own name of a batch."""
        self._write({"batch": batch.name, "is": "submitted", "id": vendor_id})
        return self.open[batch.name]

    def settled(self, batch: Batch) -> None:
        """Nothing more is to be had from a batch."""
        if batch.name in self.open:
            self._write({"batch": batch.name, "is": "settled"})

    def _take(self, entry: dict[str, Any]) -> None:
        name = entry["batch"]
        if entry["is"] == "intended":
            self.open[name] = Batch(name, frozenset(entry["keys"]), entry["at"])
        elif entry["is"] == "submitted":
            self.open[name] = replace(self.open[name], vendor_id=entry["id"])
        else:
            self.open.pop(name, None)

    def _read(self) -> list[dict[str, Any]]:
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise MachineError("the list of batches cannot be read", where=str(self._path), found=error.strerror) from error
        whole, _, torn = data.rpartition(b"\n")
        if torn:
            os.truncate(self._path, len(data) - len(torn))
        try:
            return [orjson.loads(line) for line in whole.splitlines()]
        except orjson.JSONDecodeError as error:
            raise CorruptFileError(
                "the list of batches is damaged", where=str(self._path), found=error,
                hint="restore the file from a copy, or move it away: batches that are under way are then asked for again",
            ) from error

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MachineError("the list of batches cannot be written", where=str(self._path), found=error.strerror) from error
        self._take(entry)
