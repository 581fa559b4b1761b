"""Which ways to ask a teacher fit which task, and what becomes of its reasoning: rules that hold between sections of a job."""

from __future__ import annotations

from typing import Literal

Rationale = Literal["discard", "train", "multitask"]

REASONING_TASKS = ("nli", "qa", "math", "classification")


def check_way(task: str, *, chain_of_thought: bool, chain_of_density: bool, rationale: Rationale) -> None:
    """
    Raises:
        ValueError: the task's answers cannot be asked for so.
    """
    reasons = f"for {', '.join(REASONING_TASKS[:-1])} and {REASONING_TASKS[-1]}; the task is {task}"
    if chain_of_thought and task not in REASONING_TASKS:
        raise ValueError(f"'generation.chain_of_thought' is {reasons}")
    if rationale != "discard" and task not in REASONING_TASKS:
        raise ValueError(f"'generation.rationale': {rationale} is {reasons}")
    if chain_of_density and task != "summarization":
        raise ValueError(f"'generation.chain_of_density' is for summarization; the task is {task}")


def check_rationale_weight(weight: float, rationale: Rationale) -> None:
    """
    Raises:
        ValueError: there is no part of the loss that the weight could be of.
    """
    if weight != 1.0 and rationale != "multitask":
        raise ValueError(f"'training.rationale_weight' is for generation.rationale: multitask; it is {rationale}")
