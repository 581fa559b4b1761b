"""Build a student: open a model, make it shallower, add or merge an adapter."""

from __future__ import annotations

from potstill.student.load import build_student
from potstill.student.size import parameter_count, weight_bytes

__all__ = ["build_student", "parameter_count", "weight_bytes"]
