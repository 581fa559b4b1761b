"""The figures of a report, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from scipy.stats import binomtest

from potstill.evaluation.comparison import MeasuredModel, headline, score_model
from potstill.evaluation.predictions import Prediction, Profile
from potstill.evaluation.report import ReportInputs, build_report
from potstill.metrics import rouge_l
from potstill.rows import Message, Row
from potstill.tasks import get_task

NLI = ("entailment", "neutral", "contradiction")


def label_rows(golds: Sequence[str]) -> list[Row]:
    return [
        Row(f"r{number}", (Message("user", f"Premise: p{number}\nHypothesis: h"),), gold) for number, gold in enumerate(golds)
    ]


def predicted(rows: Sequence[Row], texts: Sequence[Any]) -> list[Prediction]:
    return [Prediction(row.id, text, row.reference, 0.1, 5, 5, "stop", None) for row, text in zip(rows, texts, strict=True)]


def profile(**figures: Any) -> Profile:
    empty = dict.fromkeys(
        (
            "parameters", "disk_bytes", "memory_bytes", "inference_time", "latency_p50", "latency_p95", "throughput_rps",
            "throughput_concurrency", "cost_per_1k_requests", "prompt_tokens", "completion_tokens",
        )
    )
    return Profile(**{**empty, "responses": 1, **figures})


def measured(rows: Sequence[Row], texts: Sequence[Any], **figures: Any) -> MeasuredModel:
    return MeasuredModel("some-model", predicted(rows, texts), profile(**figures))


def report(
    task: str, rows: list[Row], models: dict[str, MeasuredModel], training_rows: list[Row], **more: Any
) -> dict[str, Any]:
    kind = more.pop("reference", "gold")
    labels = NLI if task == "nli" else ()
    return build_report(
        ReportInputs("job", get_task(task, labels), rows, models, training_rows, kind, counts={"rows": {}}, **more)
    )


def test_accuracy_has_wilsons_interval() -> None:
    rows = label_rows(["neutral"] * 10)
    scored = score_model(measured(rows, ["neutral"] * 8 + ["contradiction", "who knows"]), rows, get_task("nli", NLI))
    interval = binomtest(8, 10).proportion_ci(method="wilson")
    bounds = [pytest.approx(interval.low), pytest.approx(interval.high)]
    assert scored.figures["accuracy"] == {"value": 0.8, "ci95": bounds, "n": 10}
    assert scored.figures["parsed"] is not None
    assert scored.figures["parsed"]["value"] == 0.9


def test_predictions_are_matched_by_id_not_by_position() -> None:
    rows = label_rows(["neutral", "entailment", "contradiction"])
    model = measured(rows, ["neutral", "entailment", "contradiction"])
    shuffled = MeasuredModel("m", list(reversed(model.predictions)), model.profile)
    assert score_model(shuffled, rows, get_task("nli", NLI)).per_row["accuracy"] == [1.0, 1.0, 1.0]


def test_macro_f1_over_all_rows_has_an_interval_around_it() -> None:
    """30 rows, golds half and half, one class always found, the other in 10 of 15: F1 = 30/35 and 20/25."""
    rows = label_rows(["neutral"] * 15 + ["entailment"] * 15)
    texts = ["neutral"] * 15 + ["entailment"] * 10 + ["neutral"] * 5
    figure = score_model(measured(rows, texts), rows, get_task("nli", NLI)).figures["macro_f1"]
    assert figure is not None
    assert figure["value"] == pytest.approx((30 / 35 + 20 / 25) / 2)
    low, high = figure["ci95"]
    assert 0.6 < low < figure["value"] < high < 1.0


def test_headline_in_fractions() -> None:
    rows = label_rows(["neutral"] * 10)
    models = {
        "teacher": measured(
            rows, ["neutral"] * 10, memory_bytes=1000, inference_time=2.0, throughput_rps=3.0, cost_per_1k_requests=0.5
        ),
        "baseline": measured(rows, ["neutral"] + ["entailment"] * 9),
        "distilled": measured(
            rows, ["neutral"] * 9 + ["?"], memory_bytes=250, inference_time=0.5, throughput_rps=12.0, cost_per_1k_requests=0.1
        ),
    }
    result = report("nli", rows, models, [])["headline"]
    assert result["accuracy_retention"] == pytest.approx(0.9)
    assert result["memory_reduction"] == pytest.approx(0.75)
    assert result["inference_time_reduction"] == pytest.approx(0.75)
    assert result["cost_reduction"] == pytest.approx(0.8)
    assert result["throughput_gain"] == pytest.approx(4.0)
    gain = result["accuracy_gain"]
    assert gain["value"] == pytest.approx(0.8)
    assert gain["n"] == 10
    # 8 rows got better and none worse: of the 2^8 ways to flip them 2 are as extreme.
    assert gain["p_value"] == pytest.approx(2 / 2**8)
    assert gain["ci95"][0] > 0


def test_what_was_not_measured_is_null() -> None:
    rows = label_rows(["neutral"] * 4)
    only = {"distilled": measured(rows, ["neutral"] * 4, inference_time=0.5)}
    scored = {"distilled": score_model(only["distilled"], rows, get_task("nli", NLI))}
    assert set(headline(only, scored, "accuracy").values()) == {None}
    entry = report("nli", rows, only, [])["models"]["distilled"]
    assert entry["memory_bytes"] is None
    assert entry["cost_per_1k_requests"] is None
    assert entry["inference_time"] == 0.5


def test_a_teacher_that_is_always_wrong_gives_no_retention() -> None:
    rows = label_rows(["neutral"] * 4)
    models = {"teacher": measured(rows, ["entailment"] * 4), "distilled": measured(rows, ["neutral"] * 4)}
    assert report("nli", rows, models, [])["headline"]["accuracy_retention"] is None


def text_rows(references: Sequence[str]) -> list[Row]:
    return [Row(f"r{n}", (Message("user", f"question {n}"),), reference) for n, reference in enumerate(references)]


def test_accuracy_of_free_text_is_null_unless_measured_on_the_weights() -> None:
    rows = text_rows(["the cat sat", "a dog ran off"])
    model = measured(rows, ["the cat sat", "no"])
    task = get_task("text")
    assert score_model(model, rows, task).figures["accuracy"] is None
    weighed = MeasuredModel("m", model.predictions, model.profile, token_accuracy=[0.5, 0.7])
    figure = score_model(weighed, rows, task).figures["accuracy"]
    assert figure is not None
    assert figure["value"] == pytest.approx(0.6)
    assert figure["measured_on"] == "weights"


def answered(texts: Sequence[str]) -> list[Row]:
    return [Row(f"t{n}", (Message("user", f"q{n}"), Message("assistant", text)), None) for n, text in enumerate(texts)]


def test_the_best_constant_is_compared_row_by_row() -> None:
    rows = text_rows(["please restart the router now", "your parcel is on its way", "the refund takes five days"])
    constant = "please contact the support team"
    training = answered([constant, constant, "please contact them", "bananas are yellow"])
    models = {"distilled": measured(rows, [row.reference for row in rows])}
    best = report("text", rows, models, training)["best_constant"]
    expected = [rouge_l(constant, row.references) for row in rows]
    assert best["answer"] == constant
    assert best["value"] == pytest.approx(sum(expected) / 3)
    assert best["gain"]["value"] == pytest.approx(1 - sum(expected) / 3)
    assert best["gain"]["n"] == 3


def test_the_best_constant_of_labels_is_the_most_frequent_in_any_spelling() -> None:
    rows = label_rows(["neutral", "neutral", "entailment", "contradiction"])
    training = answered(["Neutral.", "neutral", "Label: neutral", "entailment", "entailment"])
    best = report("nli", rows, {"distilled": measured(rows, ["neutral"] * 4)}, training)["best_constant"]
    assert best["answer"] == "neutral"
    assert best["value"] == 0.5
    assert best["gain"]["value"] == 0.0
    assert best["gain"]["p_value"] == 1.0


def test_conversations_compare_the_constant_at_every_turn() -> None:
    dialogue = (Message("user", "hi"), Message("assistant", "hello there"), Message("user", "bye"))
    rows = [Row("c", dialogue, ["hello there", "good bye"])]
    training = [Row("t", (*dialogue, Message("assistant", "hello there")), None)]
    best = report("conversation", rows, {"distilled": measured(rows, [["hello there", "good bye"]])}, training)["best_constant"]
    assert best["value"] == pytest.approx(0.5)


def test_self_agreement_is_said() -> None:
    rows = text_rows(["the cat sat", "a dog ran off"])
    models = {"teacher": measured(rows, ["the cat sat", "a dog"]), "distilled": measured(rows, ["the cat", "a dog"])}
    gold = report("text", rows, models, [])
    agreement = report("text", rows, models, [], reference="teacher")
    assert (gold["reference"], gold["teacher_figure"]) == ("gold", "gold")
    assert (agreement["reference"], agreement["teacher_figure"]) == ("teacher", "self_agreement")
    assert any("self-agreement" in note for note in agreement["assumptions"])


def test_chosen_metrics_alone_are_shown() -> None:
    rows = text_rows(["the cat sat", "a dog ran off"])
    models = {"distilled": measured(rows, ["the cat", "a dog"])}
    entry = report("text", rows, models, [], metrics=["bleu"])["models"]["distilled"]
    assert {"rouge_l", "bleu", "accuracy"} <= set(entry)
    assert "chrf" not in entry


def test_the_environment_names_no_host_and_no_path() -> None:
    import os
    import platform

    rows = label_rows(["neutral"] * 2)
    environment = report("nli", rows, {"distilled": measured(rows, ["neutral"] * 2)}, [])["environment"]
    assert environment["cpus"] >= 1
    assert environment["python"] == platform.python_version()
    assert platform.node() not in str(environment)
    assert os.sep + "home" not in str(environment)
