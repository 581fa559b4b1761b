"""The model's card: what the hub, and whoever gets the model, should know about it. The card of its rows: `dataset_card.py`.

In: the content of report.json and the job as resolved. Out: Markdown that opens with the hub's YAML front matter. Everything
said was measured or set; what is not known (a licence, a language) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    student_name,
    teacher_name,
)
from potstill.reporting.table import markdown_table, result_table

Job = Mapping[str, Any]

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
    return card(front, sections)


def card(front: Mapping[str, Any], sections: list[str]) -> str:
    """A card: what of the front matter is known, then the sections."""
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
