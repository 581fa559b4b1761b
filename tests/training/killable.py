"""Trains in a process of its own, so that a test can kill it: python killable.py STUDENT ROWS OUT.

Prints "step N" as it goes; a checkpoint is written at every step.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from potstill.rows import read_rows
from potstill.spec import TrainingSpec
from potstill.training import train_student, watch

SPEC = TrainingSpec(learning_rate=1e-2, batch_size=4, num_epochs=3, early_stopping_patience=0)


def say_step(kind: str, values: dict[str, Any]) -> None:
    if kind == "progress":
        sys.stdout.write(f"step {values['step']}\n")
        sys.stdout.flush()


def main() -> None:
    student, folder, out = (Path(argument) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    watch.CHECKPOINT_INTERVAL_S, watch.SAVING_SHARE = 0.0, float("inf")
    train, validation = (list(read_rows(folder / f"{name}.jsonl")) for name in ("train", "validation"))
    train_student(student, train, validation, out, SPEC, adapter=None, all_turns=True, on_event=say_step)


if __name__ == "__main__":
    main()
