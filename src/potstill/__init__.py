"""Potstill distils large language models into small ones.

    from potstill import MLClient                        jobs and models, under the names of the Azure ML SDK
    from potstill import load_dataset, load_model, generate_teacher_responses, fine_tune_student    step by step
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.service.client import MLClient
    from potstill.service.steps import fine_tune_student, generate_teacher_responses, load_dataset, load_model

__version__ = "0.1.0"
__all__ = ["MLClient", "fine_tune_student", "generate_teacher_responses", "load_dataset", "load_model"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `potstill --help` needs none of it."""
    if name == "MLClient":
        from potstill.service.client import MLClient

        return MLClient
    if name in __all__:
        from potstill.service import steps

        return getattr(steps, name)
    raise AttributeError(f"module 'potstill' has no attribute {name!r}")
