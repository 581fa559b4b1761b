"""The table of all figures."""

from __future__ import annotations

import copy

from potstill.reporting import result_table
from reporting.synthetic_run import Run


def test_a_column_a_model_and_a_row_a_figure_with_the_main_metric_first(classification: Run) -> None:
    header, *rows = result_table(classification.report)
    assert header == ["", "teacher", "baseline", "distilled", "weights"]
    assert [row[0] for row in rows] == [
        "Accuracy", "Share parsed", "Macro F1", "Parameters", "Size on disk", "Memory", "Time per answer, mean",
        "Latency, median", "Latency, 95th percentile", "Throughput", "Cost per 1,000 requests",
    ]  # fmt: skip
    assert all(len(row) == len(header) for row in rows)


def test_cells_are_the_figures_of_the_report(classification: Run) -> None:
    rows = {row[0]: row[1:] for row in result_table(classification.report)}
    figure = classification.report["models"]["teacher"]["accuracy"]
    assert rows["Accuracy"][0] == f"{figure['value']:.3f} [{figure['ci95'][0]:.2f}, {figure['ci95'][1]:.2f}]"
    assert rows["Parameters"] == ["135 M", "57 M", "57 M", "57 M"]
    assert rows["Memory"][0] == "322 MB"
    assert rows["Throughput"][0] == "3.1/s (4 at once)"
    assert rows["Cost per 1,000 requests"][:2] == ["$0.0076", "$0.0024"]


def test_what_was_not_measured_is_a_dash(conversation: Run) -> None:
    report = copy.deepcopy(conversation.report)
    for key in ("parameters", "memory_bytes", "throughput_rps", "throughput_concurrency", "cost_per_1k_requests", "accuracy"):
        report["models"]["teacher"][key] = None
    rows = {row[0]: row[1] for row in result_table(report)}
    assert [rows[name] for name in ("Parameters", "Memory", "Throughput", "Cost per 1,000 requests")] == ["–"] * 4
    assert rows["Next-token accuracy"] == "–"


def test_accuracy_is_called_what_it_is(conversation: Run, classification: Run) -> None:
    assert "Next-token accuracy" in [row[0] for row in result_table(conversation.report)]
    assert "Accuracy" in [row[0] for row in result_table(classification.report)]
    extractive = {**classification.report, "task": "qa", "main_metric": "token_f1"}
    assert "Exact match" in [row[0] for row in result_table(extractive)]
