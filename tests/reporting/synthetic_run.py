"""Runs to report on: real rows, synthetic answers, scored by the real `build_report`."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.judged import Judged
from potstill.evaluation.predictions import Prediction, Profile
from potstill.evaluation.report import ReportInputs, build_report
from potstill.rows import Message, Reference, Row
from potstill.spec import JobSpec, dump_job
from potstill.tasks import get_task

SYSTEM = "You are the support desk of an online shop. Answer in at most two short sentences."
QUESTIONS = (
    ("The box looked as if a truck had driven over it, and the speaker inside rattles now.",
     "I am sorry about the damaged speaker. Please send us a photo, and we will replace it at no cost."),
    ("Can I add a regular item to a parcel with something that isn't released yet?",
     "Yes, you can add regular items to a pre-order. The parcel leaves once everything in it is available."),
    ("I paid extra for next-day and got a five-day wait instead, so I'd like the express fee returned please.",
     "I apologise for the delay. We will refund the express fee to your original payment method within five days."),
    ("My son grew faster than expected, and the coat no longer fits. It's unworn with the tags on. Any chance?",
     "You can exchange the unworn coat for another size within 30 days. Please use the return label in your account."),
    ("What data do you keep after I close my profile?",
     "We delete your profile within 30 days. Invoices are kept for as long as the law requires."),
    ("my card expires b4 the game ships, do i need to change it somewhere",
     "Please update the card in your account before the release date. We charge it only when the game ships."),
)  # fmt: skip
LEARNT = {"teacher": 0.95, "baseline": 0.35, "distilled": 0.85, "weights": 0.87}
LATENCY_S = {"teacher": 0.62, "baseline": 0.19, "distilled": 0.18, "weights": 0.74}


@dataclass(frozen=True)
class Run:
    """Everything that `render_page` and the cards are made of."""

    report: dict[str, Any]
    job: JobSpec
    predictions: dict[str, list[dict[str, Any]]]
    rows: list[dict[str, Any]]
    rejected: list[dict[str, Any]]

    def page_arguments(self) -> dict[str, Any]:
        return {
            "job_yaml": dump_job(self.job),
            "training": self.report["training"],
            "predictions": self.predictions,
            "rows": self.rows,
            "rejected": self.rejected,
        }


def conversation_rows(count: int) -> list[Row]:
    """Every third has two turns."""
    rows = []
    for number in range(count):
        asked, said = QUESTIONS[number % len(QUESTIONS)]
        messages = [Message("system", SYSTEM), Message("user", asked)]
        reference: Reference = [said]
        if number % 3 == 2:
            messages += [Message("assistant", said), Message("user", "Thanks. Anything else I should know?")]
            reference = [said, "No, that is all. Have a nice day!"]
        rows.append(Row(f"support-{number:02}", tuple(messages), reference))
    return rows


def label_rows(count: int) -> list[Row]:
    labels = ("refund", "delivery", "account")
    return [
        Row(f"mail-{n:02}", (Message("system", "Classify the message."), Message("user", f"Message {n}")), labels[n % 3])
        for n in range(count)
    ]


def answered(label: str, rows: list[Row]) -> list[Prediction]:
    """Answers that keep a share of the reference's words, the share being the model's."""
    draw = random.Random(label)
    result = []
    for row in rows:
        texts = [_muddled(text, LEARNT[label], draw) for text in row.references]
        tokens = sum(len(text.split()) for text in texts) * 4 // 3
        latency_s = LATENCY_S[label] * draw.lognormvariate(0, 0.25)
        prediction = texts if len(texts) > 1 else texts[0]
        result.append(Prediction(row.id, prediction, row.reference, latency_s, 60, tokens, "stop", None))
    return result


def _muddled(text: str, share: float, draw: random.Random) -> str:
    words = text.split()
    if len(words) == 1:
        return text if draw.random() < share else draw.choice(("refund", "delivery", "account", "I cannot say"))
    return " ".join(word if draw.random() < share else "well" for word in words)


def profile(label: str) -> Profile:
    teacher = label == "teacher"
    return Profile(
        parameters=134_515_008 if teacher else 56_629_440,
        disk_bytes=98_000_000 if teacher else 60_400_000,
        memory_bytes=322_000_000 if teacher else 129_000_000,
        inference_time=LATENCY_S[label],
        latency_p50=LATENCY_S[label] * 0.97,
        latency_p95=LATENCY_S[label] * 1.5,
        throughput_rps=3.1 if teacher else 9.64,
        throughput_concurrency=4,
        cost_per_1k_requests=0.0076 if teacher else 0.00245,
        responses=40,
        prompt_tokens=2400,
        completion_tokens=900,
        assumptions=("2 virtual CPUs at $0.0425 an hour each, busy at the measured throughput",),
    )


def training_result() -> dict[str, Any]:
    steps = range(5, 106, 5)
    validated = ((35, 1.0, 1.71), (70, 2.0, 1.418), (105, 3.0, 1.46))
    return {
        "steps": 105,
        "best_step": 70,
        "best_epoch": 2.0,
        "best_validation_loss": 1.418,
        "stopped_early": False,
        "overfitting": True,
        "loss_curve": [{"step": s, "epoch": s / 35, "loss": 0.9 + 2.6 * 0.97**s, "learning_rate": 1e-3} for s in steps],
        "validation_curve": [{"step": step, "epoch": epoch, "loss": loss} for step, epoch, loss in validated],
        "train_texts": 276,
        "train_tokens": 21_650,
        "train_target_tokens": 9_120,
        "validation_texts": 30,
        "train_left_out": ["billing-07"],
        "validation_left_out": [],
        "max_length": 512,
        "parameters": 56_629_440,
        "trained_parameters": 56_629_440,
    }


REJECTED = [
    {"id": "billing-03", "rule": "near_duplicate", "reason": "asks nearly the same as row billing-01 (similarity 0.91)"},
    {"id": "billing-09", "rule": "near_duplicate", "reason": "asks nearly the same as row billing-02 (similarity 0.88)"},
    {"id": "returns-02", "rule": "truncated", "reason": "cut off at generation.max_tokens: it ends with 'within the'"},
]
COUNTS = {
    "rows": {"train": 280, "validation": 31, "test": 40},
    "dropped": 2,
    "answered": {"train": 279, "validation": 31, "test": 40},
    "unanswered": 1,
    "kept": {"train": 276, "validation": 31},
    "rejected": {"near_duplicate": 2, "truncated": 1},
}


def make_run(
    task_name: str = "conversation",
    labels: tuple[str, ...] = ("teacher", "baseline", "distilled"),
    *,
    reference: str = "teacher",
    token_accuracy: bool = True,
    judged: Judged | None = None,
    **changes: Any,
) -> Run:
    """A finished run on 40 test rows. judged: what a judge said of them. changes: other values of the job file."""
    rows = conversation_rows(40) if task_name == "conversation" else label_rows(40)
    task = get_task(task_name).with_rows(rows)
    measured = {}
    for label in labels:
        shares = [LEARNT[label] * 0.6] * 40 if token_accuracy and task_name == "conversation" else None
        name = "smollm2-135m-instruct" if label == "teacher" else f"smollm2-135m-instruct, {label}"
        measured[label] = MeasuredModel(name, answered(label, rows), profile(label), shares)
    learnt = [replace(row, messages=(*row.messages, Message("assistant", row.references[-1]))) for row in rows]
    report = build_report(
        ReportInputs(
            job="support", task=task, rows=rows, models=measured, training_rows=learnt, reference=reference,  # type: ignore[arg-type]
            counts=COUNTS, training=training_result(), judged=judged,
        )
    )  # fmt: skip
    job = JobSpec.model_validate(
        {
            "name": "support", "task": task_name, "teacher": "smollm2-135m-instruct",
            "student": {"model": "smollm2-135m-instruct", "shrink": {"layers": 8}},
            "data": {"train": "/data/secret-project/train.jsonl"}, **changes,
        }
    )  # fmt: skip
    predictions = {label: [_as_dict(entry) for entry in model.predictions] for label, model in measured.items()}
    return Run(report, job, predictions, [row.as_dict() for row in rows], REJECTED)


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in Prediction.__slots__}
