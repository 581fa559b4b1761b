"""What a training tells of itself, and when it logs, saves and stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import nn
from transformers import TrainerCallback

from potstill.errors import JobFailedError
from potstill.training.order import GroupedByLength
from potstill.training.result import VALIDATION, epochs_since_best, parts_of, validation_curve
from potstill.training.team import Team

CHECKPOINT_INTERVAL_S = 60.0
SAVING_SHARE = 0.05  # of the time at most: large models save more rarely than every minute
SAVING_RATE = 5e8  # bytes a second: what to expect of a disk before the first checkpoint was timed
SAVED_BYTES = 12  # a trained weight, with its two moments
OnEvent = Callable[[str, dict[str, Any]], None]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Tells the caller how far the training is, and tells the Trainer when to log, save and stop.

    Of several processes the first tells, and decides for all: they have to save and stop at the same step.
    """

    def __init__(
        self, order: GroupedByLength, on_event: OnEvent, steps_per_epoch: int, patience: int, tokens_per_step: float,
        should_stop: Callable[[], bool], team: Team,
    ) -> None:
        self._order = order
        self._on_event = on_event if team.is_first else _tell_nobody
        self._steps_per_epoch = steps_per_epoch
        self._patience = patience
        self._tokens_per_step = tokens_per_step
        self._should_stop = should_stop if team.is_first else _never
        self._team = team
        self.was_stopped = False
        self._first_step = 0
        self._started = self._last_save = time.monotonic()
        self._saving_s = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        self._saving_s = trained * SAVED_BYTES / SAVING_RATE
        self._first_step = state.global_step
        self._started = self._last_save = time.monotonic()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._order.epoch = state.global_step // self._steps_per_epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self._steps_per_epoch == 0 or state.global_step >= state.max_steps:
            control.should_log = True  # so that no loss is averaged across an epoch's end, where the Trainer saves
        elif control.should_log:  # only where the loss was just logged is a resumed history the same
            is_due = self._is_worth_saving() and time.monotonic() - self._last_save >= CHECKPOINT_INTERVAL_S
            stopped, due = self._team.first_says(self._should_stop(), is_due)
            self.was_stopped = control.should_training_stop = bool(stopped)
            control.should_save = bool(stopped or due)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.was_stopped:  # within an epoch, whose end this is not
            control.should_log = control.should_evaluate = control.should_save = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        _check_finite(logs["loss"], state.global_step)
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        done = state.global_step - self._first_step
        self._on_event("progress", {
            "step": state.global_step, "total_steps": state.max_steps, "epoch": state.epoch, "loss": logs["loss"],
            "learning_rate": logs["learning_rate"], "grad_norm": logs.get("grad_norm"), "parts": parts_of(logs),
            "tokens_per_s": done * self._tokens_per_step / elapsed_s, "memory_bytes": _memory_bytes(),
            "eta_s": (state.max_steps - state.global_step) * elapsed_s / max(done, 1),
        })

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        _check_finite(metrics["eval_loss"], state.global_step)
        parts = {f"validation_{name}": value for name, value in parts_of(metrics, VALIDATION).items()}
        self._on_event("metric", {"validation_loss": metrics["eval_loss"], "epoch": state.epoch, **parts})
        is_enough = 0 < self._patience <= epochs_since_best(validation_curve(state.log_history))
        if any(self._team.first_says(is_enough)):
            control.should_training_stop = True

    def wants_state(self) -> bool:
        """Whether a checkpoint may take the time to hold all it takes to go on; every process has to ask at the same place."""
        return any(self._team.first_says(self._is_worth_saving()))

    def _is_worth_saving(self) -> bool:
        return time.monotonic() - self._last_save >= self._saving_s / SAVING_SHARE

    def saved(self, seconds: float) -> None:
        """A checkpoint to go on from was written, which took so long."""
        self._last_save = time.monotonic()
        self._saving_s = seconds


def _tell_nobody(kind: str, values: dict[str, Any]) -> None: ...


def _never() -> bool:
    return False


def _memory_bytes() -> int:
    """What the training holds: on a GPU its peak since the start, else the process's resident memory now."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def _check_finite(loss: float, step: int) -> None:
    if not loss < float("inf"):  # also false for not-a-number
        raise JobFailedError(
            "the training diverged: the loss is no finite number", where=f"step {step}", found=str(loss),
            hint="lower training.learning_rate",
        )
