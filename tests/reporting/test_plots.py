"""The plots: well-formed, described, to scale, and no text over another."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from potstill.reporting import svg
from potstill.reporting.plots import (
    Interval,
    Sample,
    Series,
    histogram_rows,
    interval_plot,
    line_chart,
    small_bars,
    small_intervals,
)

SVG = "{http://www.w3.org/2000/svg}"
INTERVALS = [
    Interval("teacher", "teacher", 0.44, 0.41, 0.47, "0.440 [0.41, 0.47]"),
    Interval("distilled", "distilled", 0.41, 0.38, 0.44, "0.410 [0.38, 0.44]"),
    Interval("best constant", "constant", 0.02, 0.0, 0.05, "0.020 [0.00, 0.05]"),
]


def draw_all() -> dict[str, str]:
    curve = [(step, 3.0 - step / 100) for step in range(0, 200, 10)]
    return {
        "intervals": interval_plot(INTERVALS, x_label="ROUGE-L", title="ROUGE-L of <every> model"),
        "small intervals": small_intervals(INTERVALS, title="ROUGE-L"),
        "bars": small_bars([("teacher", 2.0), ("distilled", 0.5)], title="Memory"),
        "losses": line_chart(
            [Series("training", curve, "training"), Series("validation", curve[5::5], "validation", dotted=True)],
            marked=(50, 2.5, "kept checkpoint, step 50"),
            x_label="optimizer steps",
            y_label="loss, nats a target token",
            title="Loss",
        ),
        "even": histogram_rows(
            [Sample("teacher", [0.4, 0.5, 0.6]), Sample("distilled", [0.1])], unit=str, x_label="seconds", title="Time"
        ),
        "wide": histogram_rows(
            [Sample("teacher", [4.0, 31.0]), Sample("distilled", [0.02, 0.05])], unit=str, x_label="seconds", title="Time"
        ),
    }


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


@pytest.mark.parametrize("name", list(draw_all()))
def test_every_plot_is_xml_with_a_title_and_a_description(name: str) -> None:
    root = ElementTree.fromstring(draw_all()[name])
    assert root.tag == f"{SVG}svg"
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")


@pytest.mark.parametrize("name", list(draw_all()))
def test_no_text_lies_over_another_or_outside(name: str) -> None:
    root = ElementTree.fromstring(draw_all()[name])
    width = float(root.attrib["width"])
    boxes = []
    for element in root.iter(f"{SVG}text"):
        x, y = numbers(element, "x", "y")
        length = 6.8 * len(element.text or "")  # wider than the mean of common sans faces at 12 pixels
        start = {"start": x, "middle": x - length / 2, "end": x - length}[element.attrib["text-anchor"]]
        boxes.append((start, start + length, y - 10, y + 2, element.text))
    for index, (left, right, top, bottom, text) in enumerate(boxes):
        assert left > -8, text
        assert right < width + 8, text
        for other_left, other_right, other_top, other_bottom, other in boxes[index + 1 :]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart, (text, other)


def test_marks_and_whiskers_stand_where_their_values_are() -> None:
    root = ElementTree.fromstring(interval_plot(INTERVALS, x_label="ROUGE-L", title="t"))
    ticks = {
        float(element.text or ""): float(element.attrib["x"])
        for element in root.iter(f"{SVG}text")
        if element.attrib["class"] == "tick"
    }
    low, high = min(ticks), max(ticks)

    def expected(value: float) -> float:
        return ticks[low] + (value - low) / (high - low) * (ticks[high] - ticks[low])

    mark = next(element for element in root.iter(f"{SVG}circle") if "m-distilled" in element.attrib["class"])
    assert float(mark.attrib["cx"]) == pytest.approx(expected(0.41), abs=0.1)
    line = next(element for element in root.iter(f"{SVG}line") if element.attrib["class"] == "whisker m-distilled")
    assert numbers(line, "x1", "x2") == pytest.approx([expected(0.38), expected(0.44)], abs=0.1)


def test_models_differ_by_shape_and_not_by_colour_alone() -> None:
    tags = {label: ElementTree.fromstring(svg.marker(0, 0, label)) for label in ("teacher", "baseline", "distilled", "weights")}
    shapes = {label: (element.tag, len(element.attrib.get("points", "").split())) for label, element in tags.items()}
    assert len(set(shapes.values())) == 4


def test_bars_are_in_proportion() -> None:
    root = ElementTree.fromstring(small_bars([("teacher", 2.0), ("distilled", 0.5)], title="Memory"))
    widths = [float(element.attrib["width"]) for element in root.iter(f"{SVG}rect")]
    assert widths[1] / widths[0] == pytest.approx(0.25, abs=0.01)


def test_every_value_falls_into_one_bin() -> None:
    values = [0.0, 0.1, 0.5, 0.9999, 1.0]
    assert svg.bin_counts(values, [0.0, 0.5, 1.0]) == [2, 3]


def test_a_wide_range_gets_a_logarithmic_axis_that_says_so() -> None:
    drawn = draw_all()
    assert "seconds, logarithmic" in drawn["wide"]
    assert "logarithmic" not in drawn["even"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 0.47, [0, 0.2, 0.4, 0.6]), (0, 105, [0, 50, 100, 150]), (0, 0, [0, 0.5, 1]), (-0.1, 0.3, [-0.2, 0, 0.2, 0.4])],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, ticks: list[float]) -> None:
    found = svg.nice_ticks(low, high, 4)
    assert found[0] <= low
    assert found[-1] >= high
    assert found == pytest.approx(ticks)


def test_logarithmic_ticks_enclose_the_values() -> None:
    assert svg.log_ticks(0.3, 4.0) == pytest.approx([0.2, 0.5, 1, 2, 5])
    assert svg.log_ticks(0.02, 31.0) == pytest.approx([0.01, 0.1, 1, 10, 100])
