"""The card of the rows: where they come from, who wrote and answered them, what they may be used for, what was left out.

In: the content of report.json, the job as resolved, and what the stages told of the rows. Out: Markdown that opens with the
hub's YAML front matter. Everything said was measured or set; what is not known (a licence, a language) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from potstill.errors import PotstillError
from potstill.reporting import format as fmt
from potstill.reporting.cards import Job, card
from potstill.reporting.names import rule_meaning, student_name, teacher_name, teachers_of
from potstill.reporting.table import markdown_table
from potstill.reporting.teachers import teachers_table

_TASK_CATEGORIES = {
    "nli": "text-classification",
    "classification": "text-classification",
    "qa": "question-answering",
    "summarization": "summarization",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_SPLITS = ("train", "validation")
_SETTINGS = (
    ("temperature", "Temperature"),
    ("top_p", "Top-p"),
    ("max_tokens", "Longest answer, tokens"),
    ("samples", "Answers a row and teacher"),
    ("select", "Which answers to a row are kept"),
    ("strategy", "How several teachers share the rows"),
    ("chain_of_thought", "Asked to reason first"),
    ("chain_of_density", "Chain of density"),
    ("rationale", "What becomes of the reasoning"),
    ("min_teacher_score", "Least score of the teacher"),
)
_TREATMENTS = {
    "keep": "Rows in which it was found are kept as they are.",
    "redact": "It was replaced by placeholders such as [EMAIL].",
    "drop": "Rows in which it was found are left out.",
}
_DIVERSITY = (
    ("distinct_1", "Different words among all"),
    ("distinct_2", "Different pairs of words among all"),
    ("self_bleu", "Self-BLEU (the lower, the more diverse)"),
)


@dataclass(frozen=True)
class RowsMade:
    """What the stages told of the rows.

    generated, curated: the summaries of their `finished` events. rejected: how many rows of each split each rule rejected.
    examples: the reason of one of each rule's rejections, without personal data.
    """

    generated: Mapping[str, Any] = field(default_factory=dict)
    curated: Mapping[str, Any] = field(default_factory=dict)
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)


def dataset_card(report: Mapping[str, Any], job: Job, made: RowsMade) -> str:
    """DATASET_CARD.md."""
    kept = report["counts"].get("kept") or {}
    front = {
        "task_categories": [_TASK_CATEGORIES.get(job["task"], "text-generation")],
        "size_categories": [_size_category(sum(kept.values()))] if kept else None,
        "tags": ["distillation", "synthetic", "potstill"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"curated/{split}.jsonl"} for split in _SPLITS],
            }
        ],
    }
    sections = [
        f"# Training rows of {report['name']}\n\n{_introduction(report, job)}",
        f"## Where the rows come from\n\n{_sources(report, job, made)}",
        f"## How the answers were made\n\n{_answers(report, job)}",
        f"## What they may be used for\n\n{_terms(job)}",
        f"## What was left out\n\n{_left_out(report, made)}",
        f"## Diversity\n\n{_diversity(made)}" if made.curated.get("diversity") else None,
        f"## Personal data\n\n{_personal_data(job, made)}",
        f"## Form\n\n{_FORM}",
    ]
    return card(front, [section for section in sections if section is not None])


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def _introduction(report: Mapping[str, Any], job: Job) -> str:
    kept = report["counts"].get("kept") or {}
    told = " and ".join(f"{fmt.count(number)} {split}" for split, number in kept.items())
    return (
        f"{told + ' rows' if told else 'Rows'} of the task {job['task']}, answered by {teacher_name(job)} and kept "
        f"for training {student_name(job)}."
    )


def _sources(report: Mapping[str, Any], job: Job, made: RowsMade) -> str:
    data, read = job["data"], report["counts"].get("rows") or {}
    lines = []
    for split in ("train", "validation", "test"):
        source = f"`{_source_name(data[split])}`" if data.get(split) else "cut from train by the hash of a row's content"
        number = f": {fmt.counted(read[split], 'row')}" if split in read else ""
        lines.append(f"- {split} ({source}){number}")
    if report["counts"].get("dropped"):
        lines.append(f"- left out because they could not be read: {fmt.counted(report['counts']['dropped'], 'line')}")
    grown = made.generated.get("prompts")
    if grown is not None:
        lines.append(_grown(job, grown))
    return "\n".join(lines) + "\n\nThe questions keep the terms of their source. " + _gold(report)


def _gold(report: Mapping[str, Any]) -> str:
    correction = report.get("correction")
    if correction is None:
        return "Gold answers in these rows were never shown to the teacher."
    return (
        f"The teacher was tuned on the gold answers of {fmt.count(correction['train_rows'])} of these rows before it answered, "
        f"and the best epoch was chosen by those of {fmt.count(correction['validation_rows'])} validation rows."
    )


def _grown(job: Job, grown: Mapping[str, Any]) -> str:
    ways = ", ".join(f"{fmt.count(number)} by {way}" for way, number in sorted(grown["ways"].items()))
    return (
        f"- train, prompts that {teacher_name(job)} wrote after the model of those above: "
        f"{fmt.counted(grown['written'], 'row')}{f' ({ways})' if ways else ''}, out of {fmt.count(grown['asked'])} asked for. "
        "`meta.grown_from` names the rows that were shown. Where such a row has a reference, it is the label that was asked "
        "for: the teacher's claim, not a gold answer."
    )


def _source_name(source: str) -> str:
    """A file's name alone; a data set of the hub as it is called."""
    path = PurePath(source)
    return path.name if path.is_absolute() or path.suffix else source


def _answers(report: Mapping[str, Any], job: Job) -> str:
    settings = [[name, _value(value)] for key, name in _SETTINGS if (value := job["generation"].get(key)) not in (None, False)]
    compared = teachers_table(report)
    parts = [
        f"{teacher_name(job)} answered the rows, with these settings.",
        markdown_table([["Setting", "Value"], *settings]),
        markdown_table(compared) if compared else None,
        "The answers are a model's: fluent, and as wrong as that model can be.",
    ]
    return "\n\n".join(part for part in parts if part is not None)


def _value(value: Any) -> str:
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _terms(job: Job) -> str:
    """Of each teacher: its licence, and what is known of its terms."""
    from potstill.catalog import resolve, terms_of
    from potstill.spec import ModelSpec

    lines = []
    for spec in teachers_of(job):
        name = teacher_name({"teacher": spec})
        try:
            model = resolve(ModelSpec.model_validate({key: spec[key] for key in ModelSpec.model_fields if key in spec}))
        except PotstillError:
            lines.append(f"- {name}: it is no longer where it was, so nothing is known of its terms.")
            continue
        licence = f"its licence is {model.license}" if model.license and model.license != "proprietary" else None
        terms = terms_of(model)
        known = [licence, None if terms is None else str(terms)]
        told = "; ".join(part for part in known if part is not None)
        lines.append(f"- {name}: {told or 'no licence and no terms are known here; ask whoever made it'}.")
    return (
        "The answers come under the terms of whoever wrote them, beside those of the questions' source. What is known here, "
        "which is no advice and does not stand for the terms themselves:\n\n" + "\n".join(lines)
    )


def _left_out(report: Mapping[str, Any], made: RowsMade) -> str:
    counts = report["counts"]
    if counts.get("rejected") is None and not made.rejected:
        return "That was not recorded."
    rows = [
        [rule_meaning(rule), *(fmt.count(splits.get(split, 0)) for split in _SPLITS), made.examples.get(rule, "")]
        for rule, splits in sorted(made.rejected.items())
    ]
    prompts = (made.generated.get("prompts") or {}).get("rejected") or {}
    rows += [[rule_meaning(rule), fmt.count(number), "0", ""] for rule, number in sorted(prompts.items())]
    unanswered = counts.get("unanswered")
    if not rows and not unanswered:
        return "Nothing: every row was answered and kept."
    parts = [markdown_table([["Why", *_SPLITS, "For example"], *rows])] if rows else []
    if unanswered:
        parts.append(f"To {fmt.counted(unanswered, 'row')} no usable reply came back: `generated/rejected.jsonl`.")
    if rows:
        parts.append("`curated/rejected.jsonl` has each rejected row with its rule and reason.")
    return "\n\n".join(parts)


def _diversity(made: RowsMade) -> str:
    figures = made.curated["diversity"]
    rows = [[name, *(_figure(figures[part][key]) for part in ("prompts", "answers"))] for key, name in _DIVERSITY]
    told = [
        f"Measured on {fmt.counted(figures['sampled'], 'kept training row')}, chosen by hash.",
        markdown_table([["", "Prompts", "Answers"], *rows]),
    ]
    if figures["clusters"] is not None:
        told.append(
            f"The answered prompts fall into {figures['clusters']} clusters; a row was kept in "
            f"{fmt.percent(figures['cluster_coverage'])} of them. Evenness over them, where 1 is equally many in each: "
            f"{_figure(figures['cluster_evenness'])}."
        )
    return "\n\n".join(told)


def _figure(value: float | None) -> str:
    return fmt.DASH if value is None else f"{value:.3f}"


def _personal_data(job: Job, made: RowsMade) -> str:
    """How it was treated, and what was found by kind; nothing is said to be free of it."""
    noticed = made.curated.get("noticed")
    if noticed is None:
        return "That was not recorded."
    found: dict[str, int] = {}
    for split in noticed.values():
        for kind, number in split["personal_data"].items():
            found[kind] = found.get(kind, 0) + number
    kinds = ", ".join(f"{kind.replace('_', ' ')} in {fmt.counted(number, 'row')}" for kind, number in sorted(found.items()))
    told = (
        f"Found: {kinds}. {_TREATMENTS[job['curation']['personal_data']]}" if kinds else "None was found by these patterns."
    )
    return (
        "Answered rows were searched, by patterns and checksums, for e-mail addresses, telephone, card, account and identity "
        f"numbers, IP addresses and secrets; names and addresses of people are not looked for. {told}"
    )


_FORM = (
    "One JSON object a line: `id`; `messages`, a list of `role` and `content` that ends with the teacher's answer; "
    "`reference`, the gold answer where the source has one; `meta`, the source's other fields, with `teacher`, "
    "`finish_reasons`, `completion_tokens` and `latency_s` of the teacher's reply, and `request_keys`, by which the journal of "
    "the run knows it."
)
