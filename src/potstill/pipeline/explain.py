"""Why curation kept or rejected a row: what each rule says about it, asked again.

In: a run whose answers were generated, and the id of a row. Cost: one pass over the answers of the row's split.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from potstill.curation import Curation, Verdict
from potstill.curation.source import RowFile
from potstill.errors import InputError
from potstill.pipeline.curate import HELD_OUT, judge
from potstill.pipeline.embedding import opened_embedder
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.rows import Row, read_jsonl
from potstill.spec import JobSpec

NO_REPLY = "no_reply"
_SHOWN = 5  # ids that a prefix may mean


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row, the rule that rejected it (None where it was kept), and what every rule says that was asked."""

    row: Row
    split: str
    verdict: Verdict | None
    said: tuple[Verdict, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.row.id,
            "split": self.split,
            "kept": self.verdict is None,
            "rule": self.verdict.rule if self.verdict else None,
            "reason": self.verdict.reason if self.verdict else None,
            "rules": [{"rule": each.rule, "keeps": each.reason is None, "reason": each.reason} for each in self.said],
            "messages": [message.as_dict() for message in self.row.messages],
            "reference": self.row.reference,
        }


def explain_row(job: JobSpec, folder: RunFolder, wanted: str) -> Explanation:
    """What the rules of a job say about the row with this id, or with the one id that begins so.

    Raises:
        InputError: no answers were generated here, or no row or several have such an id.
    """
    if not (folder.generated / "train.jsonl").is_file():
        raise InputError("the teacher's answers are not here yet", where=str(folder.generated),
                         hint="potstill run JOB.yaml --until generate")
    split, identity = _find(folder, wanted)
    for entry in read_jsonl(folder.generated / "rejected.jsonl"):
        if entry["id"] == identity:
            return Explanation(Row.from_dict(entry), split, Verdict(NO_REPLY, entry["reason"]), ())
    context = Context(job, folder, EventLog(folder.events), Silent())
    with opened_embedder(context) as embed, closing(RowFile(folder.generated / f"{split}.jsonl")) as rows:
        curation = judge(context, split, rows, embed, watched=identity)
        index = next(number for number, row in enumerate(rows) if row.id == identity)
        return _explained(rows[index], split, index, curation)


def _explained(row: Row, split: str, index: int, curation: Curation) -> Explanation:
    return Explanation(row, split, curation.verdict(index), tuple(curation.said))


def _find(folder: RunFolder, wanted: str) -> tuple[str, str]:
    """The split and the id of the row that is meant; the whole id counts before the beginning of another."""
    found = [(split, identity) for split, identity in _ids(folder) if identity.startswith(wanted)]
    same = [entry for entry in found if entry[1] == wanted]
    if len(same or found) == 1:
        return (same or found)[0]
    if not found:
        raise InputError("no answered row has this id", where="--explain", found=wanted,
                         expected="the id of a row of generated/, or its beginning")
    ids = [f"{identity} ({split})" for split, identity in (same or found)[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise InputError("several rows have an id that begins so", where="--explain", found=", ".join(ids) + more,
                     expected="more of the id")


def _ids(folder: RunFolder) -> Iterator[tuple[str, str]]:
    for split in HELD_OUT:
        yield from ((split, entry["id"]) for entry in read_jsonl(folder.generated / f"{split}.jsonl"))
    rejected = folder.generated / "rejected.jsonl"
    yield from ((entry["split"], entry["id"]) for entry in read_jsonl(rejected) if entry["split"] in HELD_OUT)
