"""The kinds of work a student can learn, one file each."""

from __future__ import annotations

from potstill.tasks.base import Parsed, Prediction, RowError, Task, TaskScore
from potstill.tasks.classification import Classification
from potstill.tasks.conversation import Conversation
from potstill.tasks.math import Math
from potstill.tasks.nli import NLI
from potstill.tasks.qa import QA
from potstill.tasks.refusal import looks_refused
from potstill.tasks.summarization import Summarization
from potstill.tasks.text import Text

__all__ = ["Parsed", "Prediction", "RowError", "Task", "TaskScore", "get_task", "looks_refused"]

_TASKS: dict[str, type[Task]] = {
    task.name: task for task in (NLI, Conversation, QA, Math, Summarization, Classification, Text)
}


def get_task(name: str, labels: tuple[str, ...] = ()) -> Task:
    """The task of that name; `labels` is its closed answer set where it is known.

    Raises:
        KeyError: there is no such task (the job file's check comes first).
    """
    task = _TASKS[name]
    return task(labels=labels) if labels else task()
