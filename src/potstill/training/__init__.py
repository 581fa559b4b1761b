"""Train a student on the rows that curation kept."""

from __future__ import annotations

from potstill.training.result import LossPoint, TrainingResult, ValidationPoint
from potstill.training.train import train_student

__all__ = ["LossPoint", "TrainingResult", "ValidationPoint", "train_student"]
