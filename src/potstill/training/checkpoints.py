"""Which checkpoints can be trusted.

transformers writes a checkpoint as a dozen files, one after the other; a process killed meanwhile leaves some of them. So a
checkpoint counts once a list of its files and their sizes, written last and renamed into place, stands beside them and holds.
The list has their digests too: a whole checkpoint with other contents is no matter of a kill, and is an error.

Not every one holds the optimizer's state, twice the room of the weights: the weights of a best epoch serve without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson

from potstill.digests import file_digest
from potstill.errors import CorruptFileError

_LIST = "complete.json"


def mark_complete(checkpoint: Path) -> None:
    """Write the list of files that makes a checkpoint count."""
    files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file() and file.name != _LIST]
    listed = {file.relative_to(checkpoint).as_posix(): [file.stat().st_size, file_digest(file)] for file in files}
    draft = checkpoint / f".{_LIST}"
    draft.write_bytes(orjson.dumps(listed))
    draft.replace(checkpoint / _LIST)


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that was written is there with its size."""
    try:
        return all((checkpoint / name).stat().st_size == size for name, (size, _) in _listed(checkpoint).items())
    except (FileNotFoundError, NotADirectoryError):
        return False


def check_contents(checkpoint: Path) -> None:
    """Whether a complete checkpoint still holds what was written.

    Raises:
        CorruptFileError: a file has its size, and other contents.
    """
    for name, (_, digest) in _listed(checkpoint).items():
        if file_digest(checkpoint / name) != digest:
            raise CorruptFileError(
                "a checkpoint is not what was written", where=str(checkpoint / name),
                hint=f"delete {checkpoint.name}: training goes on from the one before, or begins again",
            )


def _listed(checkpoint: Path) -> dict[str, tuple[int, str]]:
    """Size and digest of each file.

    Raises:
        FileNotFoundError: no list that could be read stands there.
    """
    try:
        listed = orjson.loads((checkpoint / _LIST).read_bytes())
        return {name: (int(size), str(digest)) for name, (size, digest) in listed.items()}
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise FileNotFoundError(str(checkpoint / _LIST)) from error


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where transformers puts the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; None where there is none.

    Raises:
        CorruptFileError: it or the best one before it is not what was written.
    """
    steps = steps_needed(folder)
    for step in sorted(steps):
        check_contents(checkpoint_path(folder, step))
    return checkpoint_path(folder, max(steps)) if steps else None


def steps_needed(folder: Path) -> set[int]:
    """The latest step to go on from, with complete weights and state, and the best step before it, with complete weights."""
    for step in sorted(_steps(folder), reverse=True):
        checkpoint = checkpoint_path(folder, step)
        if is_complete(checkpoint) and processes_of(checkpoint):
            best = read_state(checkpoint).get("best_global_step") or step
            if is_complete(checkpoint_path(folder, best)):
                return {step, best}
    return set()


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What transformers knows at a checkpoint: global_step, best_global_step, log_history and more."""
    state: dict[str, Any] = orjson.loads((checkpoint / "trainer_state.json").read_bytes())
    return state


def processes_of(checkpoint: Path) -> int:
    """How many processes trained together when it was written: each has the state of its random numbers in it.

    0 where it holds weights alone, and no training can go on from it.
    """
    return len(list(checkpoint.glob("rng_state*.pth")))


def keep_only(folder: Path, steps: Collection[int]) -> None:
    """Delete the checkpoints of all other steps."""
    for step in _steps(folder) - set(steps):
        shutil.rmtree(checkpoint_path(folder, step), ignore_errors=True)


def _steps(folder: Path) -> set[int]:
    names = (path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*"))
    return {int(name) for name in names if name.isdecimal()}
