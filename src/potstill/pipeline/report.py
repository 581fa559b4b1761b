"""Stage 7, report: what a person and a program read.

In: evaluation/metrics.json and the predictions. Out: report.json, report.html, MODEL_CARD.md, DATASET_CARD.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from potstill.curation.personal_data import without_personal_data
from potstill.pipeline.folder import write_json, write_text
from potstill.pipeline.stage import Context
from potstill.reporting import RowsMade, dataset_card, headline, model_card, render_page
from potstill.rows import read_jsonl
from potstill.spec import dump_job
from potstill.spec_panel import file_name


class Report:
    """Writes the report and the cards."""

    name = "report"
    version = 2

    def inputs(self, context: Context) -> Mapping[str, Any]:
        folder = context.folder
        return {
            "evaluation": context.digests(folder.evaluation),
            "curated": context.digests(folder.curated / "rejected.jsonl"),
            "training": context.digests(folder.student / "training.json"),
            "summaries": _summaries(context),
            "job": context.job.model_dump(mode="json", exclude={"data"}),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder = context.folder
        report = orjson.loads((folder.evaluation / "metrics.json").read_bytes())
        rejected = list(read_jsonl(folder.curated / "rejected.jsonl"))
        write_json(folder.report_json, report)
        page = render_page(
            report,
            job_yaml=dump_job(context.job),
            training=report["training"],
            predictions={
                label: list(read_jsonl(folder.evaluation / f"{file_name(label)}.jsonl")) for label in report["models"]
            },
            rows=list(read_jsonl(folder.evaluation / "rows.jsonl")),
            rejected=rejected,
        )
        write_text(folder.report_html, page)
        job = context.job.model_dump(mode="json")
        write_text(folder.model_card, model_card(report, job))
        write_text(folder.dataset_card, dataset_card(report, job, _rows_made(_summaries(context), rejected)))
        return {"headline": headline(report)}

    def outputs(self, context: Context) -> Iterable[Path]:
        folder = context.folder
        return [folder.report_json, folder.report_html, folder.model_card, folder.dataset_card]


def _summaries(context: Context) -> dict[str, Any]:
    """What generate and curate told when they were finished."""
    finished = {stage: context.events.last_finished(stage) or {} for stage in ("generate", "curate")}
    return {stage: event.get("summary", {}) for stage, event in finished.items()}


def _rows_made(summaries: Mapping[str, Any], rejected: Sequence[Mapping[str, Any]]) -> RowsMade:
    counts: dict[str, Counter[str]] = {}
    examples: dict[str, str] = {}
    for entry in rejected:
        counts.setdefault(entry["rule"], Counter())[entry["split"]] += 1
        examples.setdefault(entry["rule"], without_personal_data(entry["reason"]))
    return RowsMade(summaries["generate"], summaries["curate"], counts, examples)
