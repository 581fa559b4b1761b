"""The journals of a run: whether they are whole, what they hold, and how to make them smaller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from potstill.errors import InputError
from potstill.inference.compaction import Compaction, compact_journal
from potstill.inference.journal_report import JournalReport, report_journal
from potstill.pipeline.folder import RunFolder


def report_journals(run: Path) -> Mapping[str, JournalReport]:
    """Every journal of a run, read from end to end, by its name ("generate"); the run may be at work.

    Raises:
        InputError: this is no run folder, or it has no journal.
        CorruptFileError: names the first record that is damaged.
    """
    return {name: report_journal(folder) for name, folder in _journals(run).items()}


def compact_journals(run: Path) -> Mapping[str, Compaction]:
    """Compact every journal of a run, by its name.

    Raises:
        InputError: this is no run folder, or it has no journal.
        RunLockedError: somebody is at work in it.
        CorruptFileError: a journal is damaged, and was left as it is.
    """
    folders = _journals(run)
    with RunFolder(run).locked():
        return {name: compact_journal(folder) for name, folder in folders.items()}


def _journals(run: Path) -> dict[str, Path]:
    """The folders below journal/ that hold segments."""
    root = RunFolder(run).journal
    folders = sorted({path.parent for path in root.rglob("[0-9]*.seg")})
    if not folders:
        raise InputError(
            "there is no journal here", where=str(run), expected="the folder of a run, with its journal/ folder",
            found=None if run.is_dir() else "no such folder",
        )
    return {folder.relative_to(root).as_posix(): folder for folder in folders}
