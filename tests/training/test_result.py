"""What a history says: the best epoch, patience, overfitting."""

from __future__ import annotations

import pytest

from potstill.training.result import best_point, epochs_since_best, loss_curve, saw_overfitting, validation_curve


def history(training: list[float], validation: list[float]) -> list[dict[str, float]]:
    """Two training losses an epoch around the given mean, then the validation loss, as the Trainer logs them."""
    entries: list[dict[str, float]] = []
    for epoch, (train, held_out) in enumerate(zip(training, validation, strict=True)):
        for half in (1, 2):
            at = {"step": 2 * epoch + half, "epoch": epoch + half / 2}
            entries.append({**at, "loss": train + (0.3 if half == 1 else -0.3), "grad_norm": 1.0, "learning_rate": 1e-3})
        entries.append({"step": 2 * epoch + 2, "epoch": epoch + 1.0, "eval_loss": held_out})
    return [*entries, {"step": 2 * len(training), "epoch": float(len(training)), "train_runtime": 1.0, "train_loss": 1.0}]


@pytest.mark.parametrize(
    ("training", "validation", "overfitted", "since"),
    [
        ([3.0, 2.0, 1.0], [3.0, 2.5, 2.4], False, 0),
        ([3.0, 2.0, 1.0], [3.0, 2.5, 2.6], True, 1),
        ([3.0, 2.0, 2.1], [3.0, 2.5, 2.6], False, 1),  # both rose: no overfitting, the training went astray
        ([3.0, 2.0, 1.0, 0.5], [2.0, 2.2, 2.1, 1.9], False, 0),
        ([3.0, 2.0, 1.0], [2.0, 2.0, 2.0], False, 2),  # equal is not better
    ],
)
def test_overfitting_and_patience(training: list[float], validation: list[float], overfitted: bool, since: int) -> None:
    entries = history(training, validation)
    assert saw_overfitting(loss_curve(entries), validation_curve(entries)) is overfitted
    assert epochs_since_best(validation_curve(entries)) == since


def test_curves_hold_what_was_logged() -> None:
    entries = history([3.0, 2.0], [2.5, 2.6])
    assert [point.loss for point in loss_curve(entries)] == pytest.approx([3.3, 2.7, 2.3, 1.7])
    assert (best_point(validation_curve(entries)).step, best_point(validation_curve(entries)).epoch) == (2, 1.0)
    assert epochs_since_best(()) == 0
