"""What a training came to, read from its history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PART, VALIDATION = "part_", "eval_"  # how the history names the parts of a loss, and what validation tells


@dataclass(frozen=True, slots=True)
class LossPoint:
    """The training loss, in nats a target token, averaged over the steps since the point before.

    parts: each part of the loss at weight 1, and the agreement, the share of tokens where the student's first choice is the
    teacher's; empty where nothing but the answers is learnt from.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ValidationPoint:
    """The cross-entropy on the validation rows, in nats a target token, at the end of an epoch; `parts` as in `LossPoint`."""

    step: int
    epoch: float
    loss: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training. The saved weights are those of `best_step`.

    `steps` counts optimizer steps; `overfitting` says that after the best epoch the validation loss rose while the training
    loss fell. A row may give several texts. `*_left_out` are the ids of rows that were longer than the limit, `max_length`
    tokens; `train_untaught` those of rows without signals of the teacher. `parameters` are those stored, `trained_parameters`
    those an optimizer moved (fewer with an adapter).
    """

    steps: int
    best_step: int
    best_epoch: float
    best_validation_loss: float
    stopped_early: bool
    overfitting: bool
    loss_curve: tuple[LossPoint, ...]
    validation_curve: tuple[ValidationPoint, ...]
    train_texts: int
    train_tokens: int
    train_target_tokens: int
    validation_texts: int
    train_left_out: tuple[str, ...]
    validation_left_out: tuple[str, ...]
    train_untaught: tuple[str, ...]
    max_length: int
    parameters: int
    trained_parameters: int


def result_of(values: Mapping[str, Any]) -> TrainingResult:
    """A result that was written as JSON."""
    return TrainingResult(**{
        **values,
        "loss_curve": tuple(LossPoint(**point) for point in values["loss_curve"]),
        "validation_curve": tuple(ValidationPoint(**point) for point in values["validation_curve"]),
        **{name: tuple(values[name]) for name in ("train_left_out", "validation_left_out", "train_untaught")},
    })


def loss_curve(log_history: Iterable[Mapping[str, Any]]) -> tuple[LossPoint, ...]:
    """The training losses in a history of transformers' Trainer."""
    return tuple(
        LossPoint(e["step"], e["epoch"], e["loss"], e["learning_rate"], e.get("grad_norm"), parts_of(e))
        for e in log_history if "loss" in e
    )


def validation_curve(log_history: Iterable[Mapping[str, Any]]) -> tuple[ValidationPoint, ...]:
    """The validation losses in a history of transformers' Trainer."""
    return tuple(
        ValidationPoint(e["step"], e["epoch"], e["eval_loss"], parts_of(e, VALIDATION)) for e in log_history if "eval_loss" in e
    )


def parts_of(logged: Mapping[str, Any], prefix: str = PART) -> dict[str, float]:
    """The parts of a loss that an entry of the history tells, by name."""
    named = {key.removeprefix(prefix): value for key, value in logged.items() if key.startswith(prefix)}
    return {name: value for name, value in named.items() if name != "loss"}


def best_point(curve: Sequence[ValidationPoint]) -> ValidationPoint:
    """The first point of the lowest loss."""
    return min(curve, key=lambda point: point.loss)


def epochs_since_best(curve: Sequence[ValidationPoint]) -> int:
    """How many epochs have passed without a lower validation loss."""
    return len(curve) - 1 - curve.index(best_point(curve)) if curve else 0


def saw_overfitting(losses: Sequence[LossPoint], validation: Sequence[ValidationPoint]) -> bool:
    """Whether, in some epoch after the best one, the validation loss was higher and the training loss lower than in it."""
    best = best_point(validation)
    at_best = _training_loss(losses, validation, best)
    later = validation[validation.index(best) + 1 :]
    return any(point.loss > best.loss and _training_loss(losses, validation, point) < at_best for point in later)


def _training_loss(losses: Sequence[LossPoint], validation: Sequence[ValidationPoint], point: ValidationPoint) -> float:
    """The mean training loss of the epoch that ends at this point."""
    index = validation.index(point)
    start = validation[index - 1].step if index else 0
    of_epoch = [loss.loss for loss in losses if start < loss.step <= point.step]
    return sum(of_epoch) / len(of_epoch) if of_epoch else float("inf")
