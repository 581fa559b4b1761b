"""Trains in a process of its own, so that a test can kill it: python killable.py STUDENT ROWS OUT plain|distribution.

Prints "step N" as it goes; a checkpoint is written at every step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from potstill.rows import Row, read_rows
from potstill.spec import SignalSpec, TrainingSpec
from potstill.training import TrainingResult, train_student, watch
from training.knowing import knowing_network, teaching_of

SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "batch_size": 4, "num_epochs": 3, "early_stopping_patience": 0}
SPECS = {
    "plain": TrainingSpec(**SETTINGS),
    "distribution": TrainingSpec(
        **SETTINGS, method="kd", signal=SignalSpec(source="live"), temperature=[(0, 2), (0.5, 1)],
        loss={"forward_kl": 1.0, "ce": [(0, 1), (1, 0.1)], "hidden": 2.0, "attention": 3.0},
    ),
}


def say_step(kind: str, values: dict[str, Any]) -> None:
    if kind == "progress":
        sys.stdout.write(f"step {values['step']}\n")
        sys.stdout.flush()


def train(
    way: str, student: Path, train: list[Row], validation: list[Row], out: Path, on_event: Callable[[str, dict[str, Any]], None]
) -> TrainingResult:
    """One of the ways, all of it decided by these arguments."""
    teaching = teaching_of(knowing_network(student), student) if way == "distribution" else None
    return train_student(
        student, train, validation, out, SPECS[way], adapter=None, all_turns=True, on_event=on_event, teaching=teaching
    )


def main() -> None:
    student, folder, out = (Path(argument) for argument in sys.argv[1:4])
    torch.set_num_threads(1)
    watch.CHECKPOINT_INTERVAL_S, watch.SAVING_SHARE = 0.0, float("inf")
    rows = [list(read_rows(folder / f"{name}.jsonl")) for name in ("train", "validation")]
    train(sys.argv[4], student, *rows, out, say_step)


if __name__ == "__main__":
    main()
