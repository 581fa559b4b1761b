"""What a judge says of the models of a report, and what the report makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from judging.judges import answers_shown, judge
from loopback import Messages
from potstill.evaluation.comparison import MeasuredModel
from potstill.evaluation.judged import Judged, judge_models, judgement_lines
from potstill.evaluation.predictions import Prediction
from potstill.evaluation.report import ReportInputs, build_report
from potstill.judging import Comparison, Judgement, make_rubric
from potstill.rows import Message, Row
from potstill.tasks import get_task
from reporting.synthetic_run import make_run, profile

LABELS = ("teacher", "baseline", "distilled")


def rows_of(task: str, golds: Sequence[str]) -> list[Row]:
    return [get_task(task).row({"prompt": f"Question {number}?", "completion": gold}) for number, gold in enumerate(golds)]


def said(rows: Sequence[Row], texts: Sequence[str]) -> list[Prediction]:
    return [
        Prediction(row.id, text, row.reference, 0.1, 5, 5, "stop", None) for row, text in zip(rows, texts, strict=True)
    ]


def report_of(task_name: str, rows: Sequence[Row], answers: dict[str, list[Prediction]], judged: Judged) -> dict[str, Any]:
    learnt = [replace(row, messages=(*row.messages, Message("assistant", "Yes."))) for row in rows]
    models = {label: MeasuredModel(label, entries, profile(label), [0.5] * len(rows)) for label, entries in answers.items()}
    return build_report(
        ReportInputs(
            job="judged", task=get_task(task_name), rows=rows, models=models, training_rows=learnt, reference="gold",
            counts={}, judged=judged,
        )
    )


def by_grade(messages: Messages) -> str:
    """Answers carry their grade as a number; the higher one is better."""
    grades = [int(answer.split()[-1]) for answer in answers_shown(messages)]
    if len(grades) == 1:
        return f'{{"reason": "as it says", "score": {grades[0]}}}'
    winner = "tie" if grades[0] == grades[1] else "A" if grades[0] > grades[1] else "B"
    return f'{{"reason": "the higher", "winner": "{winner}"}}'


async def test_the_report_has_scores_acceptance_and_comparisons(tmp_path: Path) -> None:
    rows = rows_of("text", ["gold"] * 4)
    grades = {"teacher": (5, 5, 4, 4), "baseline": (1, 2, 1, 4), "distilled": (5, 3, 4, 4)}
    answers = {label: said(rows, [f"{label} {grade}" for grade in values]) for label, values in grades.items()}
    rubric = make_rubric(get_task("text"))
    async with judge(tmp_path, by_grade) as (client, server):
        judged = await judge_models(client, "arbiter", rubric, rows, answers, pairwise=True)
        asked = len(server.requests)
        assert await judge_models(client, "arbiter", rubric, rows, answers, pairwise=True) == judged
        assert len(server.requests) == asked == 4 * 3 + 4 * 2 * 2
    report = report_of("text", rows, answers, judged)
    scores = {label: entry["judge_score"]["value"] for label, entry in report["models"].items()}
    assert scores == {"teacher": 4.5, "baseline": 2.0, "distilled": 4.0}
    accepted = {label: entry["accuracy"] for label, entry in report["models"].items()}
    assert [accepted[label]["value"] for label in LABELS] == [1.0, 0.25, 0.75]
    assert accepted["distilled"]["measured_by"] == "judge"
    assert accepted["distilled"]["n"] == 4
    told = report["judge"]
    assert (told["model"], told["scale"], told["accepted_from"], told["rubric"]) == ("arbiter", [1, 5], 4, rubric.criteria)
    against = told["distilled_against"]
    assert {label: [entry[key] for key in ("wins", "ties", "losses", "unreadable")] for label, entry in against.items()} == {
        "baseline": [3, 1, 0, 0], "teacher": [0, 3, 1, 0],
    }
    assert against["baseline"]["win_rate"]["value"] == 0.875
    assert (told["position_bias"]["changed"]["value"], told["position_bias"]["changed"]["n"]) == (0, 8)
    assert told["agreement_with_gold"] is None  # of free text nothing can be verified
    assert any("the judge accepts" in note for note in report["assumptions"])


async def test_where_answers_can_be_verified_the_judge_is_held_against_gold(tmp_path: Path) -> None:
    rows = rows_of("math", [f"#### {number}" for number in range(8)])
    right = [f"The answer is {number}" for number in range(8)]
    wrong = [f"The answer is {number + 1}" for number in range(8)]
    answers = {"teacher": said(rows, right), "distilled": said(rows, [*right[:4], *wrong[4:7], ""])}
    rubric = make_rubric(get_task("math"))

    def mistaken_on_the_fifth(messages: Messages) -> str:
        (answer,) = answers_shown(messages)
        (asked,) = [word for word in messages[-1]["content"].split() if word.endswith("?")]
        return f'{{"score": {5 if asked == "4?" or answer.split()[-1] == asked[:-1] else 1}}}'

    async with judge(tmp_path, mistaken_on_the_fifth) as (client, _):
        judged = await judge_models(client, "arbiter", rubric, rows, answers, pairwise=False)
    report = report_of("math", rows, answers, judged)
    # Of a label or a number, accuracy stays what it is: the verifier's.
    assert report["models"]["distilled"]["accuracy"]["value"] == 0.5
    assert report["judge"]["distilled_against"] is None
    agreement = report["judge"]["agreement_with_gold"]
    # 16 answers, one of them empty, on which no judge was needed; one wrong answer accepted.
    assert (agreement["accuracy"]["n"], agreement["accuracy"]["value"]) == (15, pytest.approx(14 / 15))
    assert (agreement["wrongly_accepted"], agreement["wrongly_rejected"]) == (1, 0)
    # 12 right and 2 wrong answers seen as such, 1 wrong one accepted: observed 14/15, by chance 13 * 12 + 2 * 3 in 225.
    assert agreement["kappa"]["value"] == pytest.approx((14 / 15 - 162 / 225) / (1 - 162 / 225))


def test_what_could_not_be_read_counts_nowhere_and_is_said() -> None:
    rows = rows_of("text", ["gold"] * 3)
    answers = {"distilled": said(rows, ["a", "b", "c"]), "teacher": said(rows, ["d", "e", "f"])}
    unread = Judgement(None, None, failure="the reply states no score")
    judgements = {"distilled": [Judgement(4.0, True), unread, Judgement(2.0, False)], "teacher": [unread] * 3}
    compared = [Comparison("first", "second"), Comparison(None, "first", "no winner"), Comparison("tie", "first")]
    judged = Judged("arbiter", make_rubric(get_task("text")), judgements, {"teacher": compared})
    report = report_of("text", rows, answers, judged)
    distilled, teacher = report["models"]["distilled"], report["models"]["teacher"]
    assert (distilled["judge_score"]["value"], distilled["judge_score"]["n"], distilled["accuracy"]["value"]) == (3.0, 2, 0.5)
    assert (teacher["judge_score"], teacher["accuracy"]) == (None, None)
    assert report["judge"]["unreadable"] == {"distilled": 1, "teacher": 3}
    against = report["judge"]["distilled_against"]["teacher"]
    assert (against["wins"], against["ties"], against["losses"], against["unreadable"]) == (1, 1, 0, 1)
    bias = report["judge"]["position_bias"]
    assert (bias["changed"]["n"], bias["towards_first"]["value"], bias["towards_second"]["value"]) == (2, 0.5, 0)
    lines = judgement_lines(judged, rows)
    assert [line["id"] for line in lines] == [row.id for row in rows] * 3
    assert lines[1]["failure"] == "the reply states no score"
    assert lines[6] == {
        "id": rows[0].id, "distilled_against": "teacher", "outcome": "win", "forward": "first", "swapped": "second",
        "failure": None, "asked": True,
    }


def test_without_a_judge_nothing_of_it_is_in_the_report() -> None:
    report = make_run().report
    assert report["judge"] is None
    assert all("judge_score" not in entry for entry in report["models"].values())
    assert report["models"]["distilled"]["accuracy"]["measured_on"] == "weights"
