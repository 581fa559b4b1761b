"""What a judge said, as the page tells it: the comparisons as a table, and how far the judge can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.reporting import format as fmt


def judge_section(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parts of the page's section on the judge; None where there was none."""
    judge = report.get("judge")
    if judge is None:
        return None
    low, high = judge["scale"]
    notes = [_agreement(judge["agreement_with_gold"]), _bias(judge["position_bias"]), _unreadable(judge["unreadable"])]
    return {
        "name": judge["model"],
        "scale": f"from {low:g} to {high:g}, and accepts an answer from {judge['accepted_from']:g} on",
        "rubric": judge["rubric"],
        "comparisons": [_comparison(label, entry) for label, entry in (judge["distilled_against"] or {}).items()],
        "notes": [note for note in notes if note],
    }


def _comparison(label: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "against": label,
        "counts": [entry["wins"], entry["ties"], entry["losses"]],
        "unreadable": entry["unreadable"],
        "win_rate": fmt.figure(entry["win_rate"]),
    }


def _agreement(agreement: Mapping[str, Any] | None) -> str | None:
    if agreement is None:
        return None
    accuracy, kappa = agreement["accuracy"], agreement["kappa"]
    chance = f" Cohen's kappa, which takes off what chance explains, is {fmt.figure(kappa)}." if kappa is not None else ""
    return (
        f"Where answers can be checked against gold, the judge agrees with the check on {fmt.percent(accuracy['value'])} of "
        f"{fmt.counted(accuracy['n'], 'answer')}, 95 % interval {fmt.interval(accuracy['ci95'])}.{chance} It accepted "
        f"{fmt.counted(agreement['wrongly_accepted'], 'wrong answer')} and rejected {fmt.count(agreement['wrongly_rejected'])} "
        "right."
    )


def _bias(bias: Mapping[str, Any] | None) -> str | None:
    if bias is None:
        return None
    changed = bias["changed"]
    if not changed["value"]:
        return f"Its verdict never changed with the order, on {fmt.counted(changed['n'], 'pair')}."
    return (
        f"Position bias: on {fmt.percent(changed['value'])} of {fmt.counted(changed['n'], 'pair')} its verdict changed with "
        f"the order, 95 % interval {fmt.interval(changed['ci95'])}: towards the answer in the first place on "
        f"{fmt.percent(bias['towards_first']['value'])}, towards the second on "
        f"{fmt.percent(bias['towards_second']['value'])}. These pairs count as ties."
    )


def _unreadable(counts: Mapping[str, int]) -> str | None:
    told = ", ".join(f"{label} {fmt.count(number)}" for label, number in counts.items() if number)
    return f"Scores that could not be read, and count nowhere: {told}." if told else None
