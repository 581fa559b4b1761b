"""The cards of a run: what the hub, and whoever gets the model or the rows, should know about them.

In: the content of report.json and the job as resolved. Out: Markdown that opens with the hub's YAML front matter. Everything
said was measured or set; what is not known (a licence, a language) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from potstill.errors import PotstillError
from potstill.reporting import format as fmt
from potstill.reporting.headline import headline
from potstill.reporting.names import (
    COSTS,
    assumptions,
    metric_keys,
    metric_meaning,
    metric_name,
    model_meanings,
    rule_meaning,
    student_name,
    teacher_name,
    teachers_of,
)
from potstill.reporting.table import markdown_table, result_table

Job = Mapping[str, Any]

_TASK_CATEGORIES = {
    "nli": "text-classification",
    "classification": "text-classification",
    "qa": "question-answering",
    "summarization": "summarization",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(report: Mapping[str, Any], job: Job) -> str:
    """MODEL_CARD.md: what the student is, how to run it, what it reaches, how it was trained, and its limits."""
    hub_id, license_name = _of_hub(job["student"])
    front = {
        "base_model": hub_id,
        "license": license_name,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "potstill", *(["gguf"] if job["export"]["formats"] else []), job["task"]],
    }
    sections = [
        f"# {report['name']}\n\n{_introduction(report, job)}",
        f"## How to run it\n\n{_usage(job)}",
        f"## Results\n\n{_results(report, job)}",
        f"## Training\n\n{_training(report, job)}",
        f"## Limits\n\n{_limits(report, job)}",
    ]
    return _card(front, sections)


def dataset_card(report: Mapping[str, Any], job: Job) -> str:
    """DATASET_CARD.md: where the rows come from, who answered them and how, and which were left out."""
    kept = report["counts"].get("kept") or {}
    front = {
        "task_categories": [_TASK_CATEGORIES.get(job["task"], "text-generation")],
        "size_categories": [_size_category(sum(kept.values()))] if kept else None,
        "tags": ["distillation", "synthetic", "potstill"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"curated/{split}.jsonl"} for split in ("train", "validation")],
            }
        ],
    }
    sections = [
        f"# Training rows of {report['name']}\n\n{_rows_introduction(report, job)}",
        f"## Where the rows come from\n\n{_sources(report, job)}",
        f"## How the answers were made\n\n{_answers(report, job)}",
        f"## What was left out\n\n{_left_out(report, job)}",
        f"## Form\n\n{_FORM}",
    ]
    return _card(front, sections)


def _card(front: Mapping[str, Any], sections: list[str]) -> str:
    known = {key: value for key, value in front.items() if value is not None}
    matter = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    return f"---\n{matter}---\n\n" + "\n\n".join(sections) + "\n"


def _of_hub(spec: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """A model's hub id and licence, each None where it is not known."""
    from potstill.catalog import resolve
    from potstill.spec import ModelSpec

    try:
        model = resolve(ModelSpec.model_validate({key: spec[key] for key in ModelSpec.model_fields if key in spec}))
    except PotstillError:
        return None, None  # the folder it was read from is gone: nothing more is known of it
    hub_id = model.model if model.kind == "hub" and model.model and _HUB_ID.fullmatch(model.model) else None
    usable = None if model.license in (None, "proprietary") else str(model.license).lower()
    return hub_id, usable


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def _introduction(report: Mapping[str, Any], job: Job) -> str:
    return (
        f"A student of {teacher_name(job)} for one task ({job['task']}): {student_name(job)}, trained on the "
        f"teacher's answers.\n\nMeasured on {fmt.counted(report['test_rows'], 'test row')}, it {headline(report)}."
    )


def _usage(job: Job) -> str:
    formats = job["export"]["formats"]
    blocks = []
    if formats:
        file = export_file(formats[0])
        blocks.append(
            "With llama.cpp, in the terminal or as a server that speaks OpenAI's protocol:\n\n"
            f"```sh\nllama-cli -m {file} -cnv --temp 0\nllama-server -m {file} --port 8080\n```\n\n"
            "With Ollama; the Modelfile beside the file holds the settings and the system prompt of the training rows:\n\n"
            f"```sh\nollama create {job['name'].lower()} -f exports/Modelfile\nollama run {job['name'].lower()}\n```\n"
        )
    blocks.append(
        "The unquantised weights, with transformers:\n\n"
        '```python\nfrom transformers import pipeline\n\nchat = pipeline("text-generation", model="student")\n'
        f'chat([{{"role": "user", "content": "..."}}], max_new_tokens={job["generation"]["max_tokens"]}, do_sample=False)\n```'
    )
    told = "Ask it as the training rows do, with the same system prompt where they have one; it has learnt nothing else."
    return "\n".join([*blocks, "", told])


def export_file(form: str) -> str:
    """Where an export lies in the run folder: exports/student.Q8_0.gguf."""
    return f"exports/student.{form.partition(':')[2].upper()}.gguf"


def _results(report: Mapping[str, Any], job: Job) -> str:
    keys = metric_keys(report)
    meanings = [f"- {metric_name(key, report)}: {metric_meaning(key, report)}" for key in keys if metric_meaning(key, report)]
    parts = [
        f"Measured on {fmt.counted(report['test_rows'], 'test row')} that training never read; in brackets the 95 % interval.",
        markdown_table(result_table(report)),
        "\n".join(f"- {label}: {meaning}" for label, meaning in model_meanings(report, job)),
        "\n".join(meanings),
    ]
    constant = report["best_constant"]
    if constant is not None:
        told = f"The best constant answer would reach {fmt.figure(constant)}"
        gain = constant["gain"]
        if gain is not None:
            difference = f"{fmt.signed(gain['value'])} ({fmt.p_value(gain['p_value'])}, paired by row)"
            told += f"; the distilled model differs from it by {difference}"
        parts.append(told + ".")
    parts.append("What the figures rest on:\n\n" + "\n".join(f"- {note}" for note in assumptions(report)))
    return "\n\n".join(part for part in parts if part)


def _training(report: Mapping[str, Any], job: Job) -> str:
    training, settings = report["training"], job["training"]
    adapter = job["student"].get("adapter")
    kept = (report["counts"].get("kept") or {}).get("train")
    facts = [
        ("Method", settings["method"]),
        ("Training rows", None if kept is None else fmt.count(kept)),
        ("Learning rate", f"{settings['learning_rate']:g}"),
        ("Batch size", f"{settings['batch_size'] * settings['gradient_accumulation_steps']}"),
        ("Epochs, at most", f"{settings['num_epochs']:g}"),
        ("Adapter", f"LoRA of rank {adapter['r']}, merged" if adapter else None),
        ("Seed", str(settings["seed"])),
    ]
    if training is not None:
        facts += [
            ("Steps", fmt.count(training["steps"])),
            ("Kept checkpoint", f"step {fmt.count(training['best_step'])}, epoch {training['best_epoch']:g}"),
            ("Validation loss, nats a target token", f"{training['best_validation_loss']:.3f}"),
            ("Target tokens", fmt.count(training["train_target_tokens"])),
            ("Parameters trained", f"{fmt.count(training['trained_parameters'])} of {fmt.count(training['parameters'])}"),
            ("Longest row, tokens", fmt.count(training["max_length"])),
        ]
    return markdown_table([["Setting", "Value"], *([name, value] for name, value in facts if value is not None)])


def _limits(report: Mapping[str, Any], job: Job) -> str:
    limits = [
        f"It was measured on {fmt.counted(report['test_rows'], 'row')} of one data set, and on this task alone: nothing here "
        "says how it does on other questions, in other languages, or against someone who means harm.",
        f"Answers were measured up to {job['generation']['max_tokens']} tokens, chosen greedily.",
    ]
    if report["teacher_figure"] == "self_agreement":
        limits.append("The references are the teacher's own answers: a high score means like the teacher, not right.")
    distilled = report["models"].get("distilled", {})
    missing = [name for key, (name, _) in COSTS.items() if distilled.get(key) is None] if distilled else []
    if missing:
        limits.append(f"Not measured: {', '.join(name.lower() for name in missing)}.")
    return "\n".join(f"- {limit}" for limit in limits)


def _rows_introduction(report: Mapping[str, Any], job: Job) -> str:
    kept = report["counts"].get("kept") or {}
    told = " and ".join(f"{fmt.count(number)} {split}" for split, number in kept.items())
    return (
        f"{told + ' rows' if told else 'Rows'} of the task {job['task']}, answered by {teacher_name(job)} and kept "
        f"for training {student_name(job)}."
    )


def _sources(report: Mapping[str, Any], job: Job) -> str:
    data, read = job["data"], report["counts"].get("rows") or {}
    lines = []
    for split in ("train", "validation", "test"):
        source = f"`{_source_name(data[split])}`" if data.get(split) else "cut from train by the hash of a row's content"
        number = f": {fmt.counted(read[split], 'row')}" if split in read else ""
        lines.append(f"- {split} ({source}){number}")
    if report["counts"].get("dropped"):
        lines.append(f"- left out because they could not be read: {fmt.counted(report['counts']['dropped'], 'line')}")
    gold = "Gold answers in these rows were never shown to the teacher."
    return "\n".join(lines) + "\n\nThe questions keep the terms of their source. " + gold


def _source_name(source: str) -> str:
    """A file's name alone; a data set of the hub as it is called."""
    path = PurePath(source)
    return path.name if path.is_absolute() or path.suffix else source


def _answers(report: Mapping[str, Any], job: Job) -> str:
    settings = job["generation"]
    licences = [name for teacher in teachers_of(job) if (name := _of_hub(teacher)[1])]
    licensed = "".join(f" Its licence: {name}; see there what its answers may be used for." for name in licences)
    return (
        f"{teacher_name(job)} answered each row once, at temperature {settings['temperature']:g}, top-p "
        f"{settings['top_p']:g} and at most {settings['max_tokens']} tokens.{licensed}\n\nThe answers are a model's: fluent, "
        "and as wrong as that model can be."
    )


def _left_out(report: Mapping[str, Any], job: Job) -> str:
    counts = report["counts"]
    rows = [[rule_meaning(rule), fmt.count(number)] for rule, number in sorted((counts.get("rejected") or {}).items())]
    if counts.get("unanswered"):
        rows.insert(0, ["no usable reply came back", fmt.count(counts["unanswered"])])
    if not rows and counts.get("rejected") is None:
        return "That was not recorded."
    if not rows:
        return "Nothing: every row was answered and kept."
    where = "`curated/rejected.jsonl` has each rejected row with its rule and reason."
    return markdown_table([["Why", "Rows"], *rows]) + f"\n\n{where}"


_FORM = (
    "One JSON object a line: `id`; `messages`, a list of `role` and `content` that ends with the teacher's answer; "
    "`reference`, the gold answer where the source has one; `meta`, the source's other fields, with `finish_reasons`, "
    "`completion_tokens` and `latency_s` of the teacher's reply."
)
