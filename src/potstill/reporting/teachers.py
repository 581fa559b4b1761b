"""Several teachers side by side: what each answered, how well, what of it was learnt, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.reporting import format as fmt
from potstill.reporting.names import metric_name


def teachers_table(report: Mapping[str, Any]) -> list[list[str]]:
    """A header row, then a row a teacher; empty where there is one teacher alone."""
    teachers = report["teachers"]
    if len(teachers) < 2:
        return []
    score = f"{metric_name(report['main_metric'], report)} against gold"
    header = ["Teacher", "Answers", score, "Rows learnt from", "Requests", "Tokens read", "Tokens written", "Cost"]
    return [header, *(_row(teacher) for teacher in teachers)]


def _row(teacher: Mapping[str, Any]) -> list[str]:
    score, share = teacher["score"], teacher["share"]
    return [
        teacher["name"],
        f"{fmt.count(teacher['answered'])} of {fmt.count(teacher['asked'])}",
        fmt.DASH if score is None else f"{fmt.figure(score)}, n = {fmt.count(score['n'])}",
        fmt.count(teacher["kept"]) + (f" ({fmt.percent(share)})" if share is not None else ""),
        fmt.count(teacher["requests"]),
        fmt.count(teacher["prompt_tokens"]),
        fmt.count(teacher["completion_tokens"]),
        fmt.dollars(teacher["cost_usd"]),
    ]
