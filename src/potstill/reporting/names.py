"""What things of a report are called for a person: metrics, cost figures, models, rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from potstill.reporting import format as fmt

Entry = Mapping[str, Any]

KNOWN_MODELS = ("teacher", "baseline", "distilled", "weights")

_METRICS = {
    "rouge_l": ("ROUGE-L", "words in common with the reference, in order"),
    "rouge_1": ("ROUGE-1", "words in common with the reference"),
    "rouge_2": ("ROUGE-2", "pairs of words in common with the reference"),
    "bleu": ("BLEU", "runs of up to four words in common"),
    "chrf": ("chrF", "runs of characters in common"),
    "length_ratio": ("Length ratio", "words of the answer over words of the reference; 1 is equally long"),
    "within_length": ("Within length", "share of answers that keep to the length target"),
    "token_f1": ("Token F1", "words in common with the gold answer"),
    "accuracy": ("Accuracy", "share of right answers; one that cannot be read is wrong"),
    "parsed": ("Share parsed", "share of answers that could be read"),
    "judge_score": ("Judge's score", "what the judge gives an answer, on its own scale"),
    "macro_f1": ("Macro F1", "F1 of each label, averaged over the labels"),
}
_NEXT_TOKEN = ("Next-token accuracy", "share of the reference's tokens that the weights would have written next")
_ACCEPTED = ("Accepted by the judge", "share of answers that the judge finds good enough")
_EXACT_MATCH = ("Exact match", "share of answers equal to a gold one")

COSTS: dict[str, tuple[str, Callable[[Entry], str]]] = {
    "parameters": ("Parameters", lambda entry: fmt.count(entry["parameters"])),
    "disk_bytes": ("Size on disk", lambda entry: fmt.size(entry["disk_bytes"])),
    "memory_bytes": ("Memory", lambda entry: fmt.size(entry["memory_bytes"])),
    "inference_time": ("Time per answer, mean", lambda entry: fmt.seconds(entry["inference_time"])),
    "latency_p50": ("Latency, median", lambda entry: fmt.seconds(entry["latency_p50"])),
    "latency_p95": ("Latency, 95th percentile", lambda entry: fmt.seconds(entry["latency_p95"])),
    "throughput_rps": ("Throughput", lambda entry: fmt.rate(entry["throughput_rps"], entry["throughput_concurrency"])),
    "cost_per_1k_requests": ("Cost per 1,000 requests", lambda entry: fmt.dollars(entry["cost_per_1k_requests"])),
}
"""Cost figures of a model in reading order: name, and how a cell is written."""

_NO_METRICS = {"name", "throughput_concurrency", *COSTS}

_RULES = {
    "refused": "the teacher declined to answer",
    "truncated": "the answer was cut off by the token limit",
    "unparsable": "the answer lacks the form that the task asks for",
    "contradicts_gold": "the answer contradicts the gold answer",
    "low_agreement": "too few of the teacher's answers agree on it",
    "low_judge_score": "the judge scored the answer too low",
    "repetitive": "the answer goes round in circles",
    "personal_data": "the row holds personal data",
    "foreign_language": "the answer is in a language that was not wanted",
    "length_outlier": "the answer is far longer or shorter than the others",
    "contaminated": "the question overlaps with a held-out row",
    "exact_duplicate": "another row asks the same",
    "near_duplicate": "another row asks nearly the same",
    "semantic_duplicate": "another row means the same",
    "unbalanced": "its group has far more rows than others",
    "prompt_too_near": "the new prompt was too near to one that was there",
    "prompt_unusable": "the new prompt did not have the form that the task needs",
    "prompt_truncated": "the new prompt was cut off by its token limit",
    "prompt_refused": "the teacher declined to write a new prompt",
    "prompt_unanswered": "no new prompt came back",
}


def metric_keys(report: Entry) -> list[str]:
    """The metrics of a report, the main one first."""
    main = report["main_metric"]
    found = dict.fromkeys(key for entry in report["models"].values() for key in entry if key not in _NO_METRICS)
    return sorted(found, key=lambda key: key != main)


def metric_name(key: str, report: Entry) -> str:
    return _metric(key, report)[0]


def in_a_sentence(name: str) -> str:
    """A metric's name within a sentence: token F1, but ROUGE-L."""
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def metric_meaning(key: str, report: Entry) -> str:
    """What a metric counts, in a few words; empty for one that we do not know."""
    return _metric(key, report)[1]


def _metric(key: str, report: Entry) -> tuple[str, str]:
    if key == "accuracy":
        figures = [entry.get("accuracy") for entry in report["models"].values()]
        if any(figure is not None and figure.get("measured_on") == "weights" for figure in figures):
            return _NEXT_TOKEN
        if any(figure is not None and figure.get("measured_by") == "judge" for figure in figures):
            return _ACCEPTED
        if report["task"] == "qa" and report["main_metric"] != "accuracy":
            return _EXACT_MATCH
    return _METRICS.get(key, (key.replace("_", " "), ""))


def model_meanings(report: Entry, job: Entry) -> list[tuple[str, str]]:
    """What each label of the report stands for."""
    formats = job["export"]["formats"]
    form = formats[0] if formats else "unquantised weights"
    meanings = {
        "teacher": _called(teachers_of(job)[0]),
        "baseline": f"{student_name(job)}, untouched ({form})",
        "distilled": f"{student_name(job)}, after training ({form})",
        "weights": f"{student_name(job)}, after training (unquantised weights)",
    }
    return [(label, meanings.get(label, entry["name"])) for label, entry in report["models"].items()]


def rule_meaning(rule: str) -> str:
    """A curation rule in words."""
    return _RULES.get(rule, rule.replace("_", " "))


def assumptions(report: Entry) -> list[str]:
    """What the figures rest on; what is said of several models in the same words is said once."""
    owners: dict[str, list[str]] = {}
    for note in report["assumptions"]:
        label, _, text = note.partition(": ")
        if label in report["models"]:
            owners.setdefault(text, []).append(label)
        else:
            owners.setdefault(note, [])
    return [f"{', '.join(labels)}: {text}" if labels else text for text, labels in owners.items()]


def model_name(spec: Entry) -> str:
    """What a model of the job file is called: never a path of the machine it ran on."""
    return str(spec["model"]) if spec.get("model") else PurePath(str(spec["path"])).name


def teachers_of(job: Entry) -> list[Entry]:
    """The teachers of the job file, one or several."""
    teacher = job["teacher"]
    return [teacher] if isinstance(teacher, Mapping) else list(teacher)


def teacher_name(job: Entry) -> str:
    """The teacher, or all of several."""
    *others, last = map(_called, teachers_of(job))
    return f"{', '.join(others)} and {last}" if others else str(last)


def _called(teacher: Entry) -> str:
    name = teacher.get("name") or model_name(teacher)
    return f"{name} (corrected)" if teacher.get("correct") else str(name)


def student_name(job: Entry) -> str:
    """The student, and what was cut from it before training."""
    shrink = job["student"].get("shrink")
    return model_name(job["student"]) + (f", cut to {shrink['layers']} layers" if shrink else "")

LOSSES = {
    "ce": "Cross-entropy",
    "forward_kl": "Forward KL",
    "reverse_kl": "Reverse KL",
    "jsd": "Jensen-Shannon divergence",
    "skew_forward_kl": "Skewed forward KL",
    "skew_reverse_kl": "Skewed reverse KL",
    "total_variation": "Total variation",
}
"""What a page calls the losses on distributions of tokens."""
