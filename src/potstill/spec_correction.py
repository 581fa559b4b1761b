"""The job file's `teacher.correct`: a teacher that is tuned on gold answers before it teaches. Part of `potstill.spec`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from potstill.spec_models import AdapterSpec, ModelSpec, Positive, Section

LEARNING_RATE = 2.0e-5
LEARNING_RATE_OF_ADAPTER = 2.0e-4


class CorrectSpec(Section):
    """How the teacher is tuned on the gold answers of the training rows before it teaches."""

    num_epochs: Annotated[float, Field(gt=0, le=100)] = 3
    """How often each gold row is seen, at most: the validation rows with gold answers pick the best epoch."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The peak learning rate of AdamW; without it 2e-5, and 2e-4 with an adapter."""
    batch_size: Positive = 4
    """Gold rows an optimizer step."""
    adapter: AdapterSpec | None = None
    """Train a low-rank adapter instead of all weights: the way for large teachers."""

    @property
    def rate(self) -> float:
        """The learning rate that is meant."""
        return self.learning_rate or (LEARNING_RATE if self.adapter is None else LEARNING_RATE_OF_ADAPTER)


class SoleTeacherSpec(ModelSpec):
    """The teacher of a job that has one: a model, and whether it is corrected first."""

    correct: CorrectSpec | None = None
    """Tune the teacher on the gold answers of the training rows before it teaches: true, or a mapping."""

    @field_validator("correct", mode="before")
    @classmethod
    def _true_is_the_defaults(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

    @model_validator(mode="after")
    def _can_be_tuned(self) -> SoleTeacherSpec:
        if self.correct is None:
            return self
        if self.endpoint is not None:
            raise ValueError("'correct' tunes a teacher's weights, and an endpoint has none to give: name a hub id, a folder "
                             "or a .gguf file")
        if self.engine is not None or self.batch:
            raise ValueError("'correct' is for a teacher that runs in this process: leave 'engine' and 'batch' out")
        if self.trust_remote_code:
            raise ValueError("'correct' tunes models that transformers knows: leave 'trust_remote_code' out")
        return self


def check_alone(teachers: list[Any]) -> None:
    """None of several teachers is to be corrected.

    Raises:
        ValueError: one is.
    """
    if any(isinstance(one, dict) and one.get("correct") for one in teachers):
        raise ValueError("'correct' is for a job with one teacher: correct each in a job of its own, and name the teacher/ "
                         "folder of its run")


def check_ways(correct: CorrectSpec | None, *, chain_of_density: bool) -> None:
    """A corrected teacher is asked for what it was tuned to write.

    Raises:
        ValueError: it is asked for something else.
    """
    if correct is not None and chain_of_density:
        raise ValueError("teacher.correct tunes the teacher to answer at once, and chain_of_density asks it in four rounds")
