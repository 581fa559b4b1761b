"""The figures of all models side by side, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.reporting import format as fmt
from potstill.reporting.names import COSTS, metric_keys, metric_name


def result_table(report: Mapping[str, Any]) -> list[list[str]]:
    """A header row (empty, then each model's label), then one row a figure: its name, then a cell a model."""
    models = report["models"]
    metrics = [
        [metric_name(key, report), *(fmt.figure(entry.get(key)) for entry in models.values())] for key in metric_keys(report)
    ]
    costs = [[name, *(cell(entry) for entry in models.values())] for name, cell in COSTS.values()]
    return [["", *models], *metrics, *costs]


def markdown_table(table: list[list[str]]) -> str:
    """A table in GitHub's Markdown."""
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
