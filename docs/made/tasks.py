"""What pages say of the tasks: their metrics, what models are asked, the rules of curation."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, get_args

import orjson

from made.blocks import code, fence, table
from potstill.curation.curate import rule_names
from potstill.pipeline.evaluate import TOKEN_ACCURACY_TASKS
from potstill.reporting.names import metric_meaning, metric_name, rule_meaning
from potstill.rows import Message, Row
from potstill.spec import TaskName
from potstill.tasks import Task, get_task


def sample_rows(name: str) -> list[Row]:
    """The rows that `potstill init` writes for a task."""
    lines = (files("potstill.pipeline") / "sample_rows" / f"{name}.jsonl").read_bytes().splitlines()
    return [get_task(name).row(orjson.loads(line)) for line in lines]


def known_task(name: str) -> Task:
    """The task as its sample rows make it."""
    return get_task(name).with_rows(sample_rows(name))


def tasks_table(folder: str = "") -> str:
    """The tasks with their main metric and what accuracy means there; `folder` is where their pages lie, seen from the page."""
    rows = []
    for name in get_args(TaskName):
        task, report = known_task(name), _report(name)
        others = [metric_name(key, report) for key in task.metrics if key not in (task.main_metric, "accuracy")]
        accuracy = "the main metric" if task.main_metric == "accuracy" else metric_name("accuracy", report).lower()
        rows.append([f"[{name}]({folder}{name}.md)", metric_name(task.main_metric, report), accuracy, ", ".join(others)])
    return table(["Task", "Main metric", "`accuracy`", "Also measured"], rows)


def task_metrics(name: str) -> str:
    """A task's metrics by the names they have in a job file and in report.json."""
    task, report = known_task(name), _report(name)
    keys = dict.fromkeys((task.main_metric, *task.metrics))
    rows = [[code(key), metric_name(key, report), metric_meaning(key, report)] for key in keys]
    return table(["In `report.json`", "Name", "What it counts"], rows)


def _report(name: str) -> dict[str, Any]:
    """As much of a report as the names of metrics depend on."""
    marked = {"measured_on": "weights"} if name in TOKEN_ACCURACY_TASKS else {}
    return {"task": name, "main_metric": known_task(name).main_metric, "models": {"distilled": {"accuracy": marked}}}


def prompts(name: str) -> str:
    """What the first sample row becomes: for a model that was not trained on the task, and for the student."""
    task = known_task(name)
    row = task.settled(sample_rows(name)[0])
    untrained, student = task.teacher_messages(row), row.messages
    if untrained == student:
        return fence("text", _dialogue(student), "All models are asked")
    return "\n\n".join([
        fence("text", _dialogue(untrained), "The teacher and the untouched student are asked"),
        fence("text", _dialogue(student), "The student is trained on, and asked"),
    ])


def _dialogue(messages: tuple[Message, ...]) -> str:
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def rules_table() -> str:
    """The rules of curation in the order in which they are asked."""
    return table(["Rule", "A row is left out because"], [[code(name), rule_meaning(name)] for name in rule_names()])
