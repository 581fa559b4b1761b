"""What pages say of the program is made from the program: `<!-- made: NAME ARGUMENT -->` is replaced when it is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from made.catalogue import endpoint_table, gguf_families, student_table
from made.commands import command_reference
from made.job_file import job_file_reference
from made.readme import layers, quickstart_result
from made.tasks import prompts, rules_table, task_metrics, tasks_table

MADE: dict[str, Callable[..., str]] = {
    "job-file": job_file_reference,
    "commands": command_reference,
    "endpoints": endpoint_table,
    "students": student_table,
    "gguf-families": gguf_families,
    "tasks": tasks_table,
    "metrics": task_metrics,
    "prompts": prompts,
    "rules": rules_table,
    "layers": layers,
    "quickstart-result": quickstart_result,
}
_MADE = re.compile(r"<!-- made: ([\w-]+)((?: [\w./-]+)*) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this with each page before it is rendered.

    Raises:
        KeyError: a page asks for something that is not made here.
    """
    return _MADE.sub(lambda found: MADE[found[1]](*found[2].split()), markdown)
