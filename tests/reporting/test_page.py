"""The page: whole, self-contained, safe, and true to report.json."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from lxml import html

from potstill.evaluation.judged import Judged
from potstill.judging import Comparison, Judgement, make_rubric
from potstill.reporting import headline, render_page, result_table
from potstill.reporting.answers import spread
from potstill.reporting.format import typeset
from potstill.tasks import get_task
from reporting.synthetic_run import Run, make_run

HOSTILE = '<script>alert("x")</script><img src=http://evil.example/x.png onerror=alert(1)></style></svg>&amp;{{ 7 * 7 }}'


def page_of(run: Run, **changes: Any) -> html.HtmlElement:
    return html.document_fromstring(page_text(run, **changes))


def page_text(run: Run, **changes: Any) -> str:
    arguments = {**run.page_arguments(), **changes}
    report = arguments.pop("report", run.report)
    return render_page(report, **arguments)


def text_of(element: html.HtmlElement) -> str:
    return " ".join(" ".join(element.itertext()).split())


def hrefs(page: html.HtmlElement) -> Iterator[tuple[str, str]]:
    for element in page.iter():
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            if name in element.attrib:
                yield name, element.attrib[name]


@pytest.mark.parametrize("kind", ["conversation", "classification"])
def test_the_page_needs_nothing_but_itself(kind: str, request: pytest.FixtureRequest) -> None:
    page = page_of(request.getfixturevalue(kind))
    assert list(hrefs(page)) == []
    assert page.findall(".//script") == []
    assert page.findall(".//link") == []
    style = page.findtext(".//style") or ""
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


@pytest.mark.parametrize("kind", ["conversation", "classification"])
def test_every_figure_of_the_table_is_on_the_page(kind: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(kind)
    table = page_of(run).find(".//table[@class='main']")
    shown = [
        [text_of(cell) for cell in row.xpath("./td[contains(@class, 'number')]")]
        for row in table.xpath("./tbody/tr[not(@class)]")
    ]
    for expected, found in zip(result_table(run.report)[1:], shown, strict=True):
        for cell, text in zip(expected[1:], found, strict=True):
            assert re.findall(r"[$\d.,]+ ?\w*", cell)[0].rstrip() in text


def test_the_headline_and_its_figures_stand_at_the_top(conversation: Run) -> None:
    page = page_of(conversation)
    assert page.findtext(".//h1") == "support"
    assert page.find(".//p[@class='headline']").text == typeset(f"The distilled model {headline(conversation.report)}.")
    values = [text_of(tile) for tile in page.findall(".//p[@class='figure']")]
    assert values == ["91 %", "+0.48", "−71 %", "−60 %", "−68 %", "3.1 ×"]


def test_plots_are_well_formed_and_models_keep_their_colour(conversation: Run) -> None:
    text = page_text(conversation)
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) > 13  # one a row of the table, one a model's mark, and the charts
    for plot in plots:
        ElementTree.fromstring(plot)
    for label in conversation.report["models"]:
        assert f"m-{label}" in text


def test_texts_of_users_and_models_are_escaped(conversation: Run) -> None:
    run = copy.deepcopy(conversation)
    report = run.report
    report["name"] = report["best_constant"]["answer"] = report["environment"]["cpu"] = HOSTILE
    report["assumptions"].append(HOSTILE)
    report["counts"]["rejected"] = {HOSTILE: 1}
    for row in run.rows:
        row.update(id=HOSTILE, reference=[HOSTILE, HOSTILE])
        row["messages"] = [{"role": role, "content": HOSTILE} for role in ("system", "user", "assistant", "user")]
    for entries in run.predictions.values():
        for entry in entries:
            entry.update(id=HOSTILE, prediction=[HOSTILE, ""], failure=HOSTILE)
    rejected = [{"rule": HOSTILE, "reason": HOSTILE}]
    arguments = {**run.page_arguments(), "job_yaml": f"{run.page_arguments()['job_yaml']}# {HOSTILE}\n", "rejected": rejected}
    page = html.document_fromstring(render_page(report, **arguments))
    assert page.findall(".//script") == []
    assert page.findall(".//img") == []
    assert list(hrefs(page)) == []
    assert page.findtext(".//h1") == HOSTILE
    assert "{{ 7 * 7 }}" in page.text_content()
    assert "49" not in page.findtext(".//h1")


def test_rows_at_equal_distances_are_shown_with_all_answers(conversation: Run) -> None:
    page = page_of(conversation)
    articles = page.findall(".//article")
    assert len(articles) == 10
    for article, index in zip(articles, spread(40, 10), strict=True):
        row = conversation.rows[index]
        assert row["id"] in text_of(article.find("./p[@class='id']"))
        turns = article.xpath("./div[@class='said']")
        assert len(turns) == len(row["reference"])
        for number, turn in enumerate(turns):
            assert row["reference"][number] in text_of(turn)
            for entries in conversation.predictions.values():
                said = next(entry["prediction"] for entry in entries if entry["id"] == row["id"])
                assert (said if isinstance(said, str) else said[number]) in text_of(turn)
    assert "10 of 40 test rows, at equal distances" in text_of(page)


def test_spread_reaches_from_the_first_to_the_last_without_repeats() -> None:
    assert spread(40, 10) == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(5, 1) == [0]
    assert spread(0, 10) == []
    assert all(len(set(spread(total, 10))) == 10 for total in range(10, 200))


def test_a_missing_answer_is_told_with_its_reason(conversation: Run) -> None:
    predictions = copy.deepcopy(conversation.predictions)
    predictions["distilled"][0].update(
        prediction="", failure="the endpoint answered 500", latency_s=None, completion_tokens=None, finish_reason=None
    )
    predictions["distilled"][2].update(prediction=["half an answer", ""], failure="timed out", finish_reason="length")
    text = text_of(page_of(conversation, predictions=predictions))
    assert "No answer: the endpoint answered 500" in text
    assert "2 of 40 rows have no answer and count as wrong; why the first has none: the endpoint answered 500." in text
    assert "Answers cut off by the token limit: 1 of 40." in text


def test_a_very_long_answer_is_folded_and_cut(conversation: Run) -> None:
    predictions = copy.deepcopy(conversation.predictions)
    predictions["teacher"][0]["prediction"] = "word " * 20_000
    page = page_of(conversation, predictions=predictions)
    folded = page.xpath("//article//details")
    assert len(folded) == 1
    assert len(folded[0].find("./summary/span[@class='text']").text) <= 700
    assert "94,000 more characters" in text_of(folded[0])


def test_a_run_of_one_model_without_training_or_prices() -> None:
    run = make_run(labels=("distilled",), token_accuracy=False)
    report = copy.deepcopy(run.report)
    report["training"] = report["best_constant"] = None
    report["counts"] = dict.fromkeys(report["counts"])
    for key in ("parameters", "memory_bytes", "cost_per_1k_requests", "throughput_rps", "throughput_concurrency"):
        report["models"]["distilled"][key] = None
    page = page_of(run, report=report, training=None, rejected=[])
    assert page.findall(".//p[@class='figure']") == []
    assert "How it learnt" not in text_of(page)
    assert "No answered row was rejected." in text_of(page)
    assert "nothing was measured to compare it with" in text_of(page)


def test_nothing_answered_leaves_out_the_plots_that_have_no_values(conversation: Run) -> None:
    predictions = copy.deepcopy(conversation.predictions)
    for entries in predictions.values():
        for entry in entries:
            entry.update(prediction="", failure="refused", latency_s=None, completion_tokens=None, finish_reason=None)
    page = page_of(conversation, predictions=predictions)
    assert "How fast, how long" not in text_of(page)
    assert "40 of 40 rows have no answer" in text_of(page)


def test_training_tells_the_kept_checkpoint_and_the_overfitting(conversation: Run) -> None:
    text = text_of(page_of(conversation))
    assert "step 70, epoch 2" in text
    assert "1.418 nats a token" in text
    assert "it began to learn by heart" in text
    assert "kept checkpoint, step 70" in text
    assert "1 row longer than 512 tokens" in text


def test_a_training_on_distributions_tells_how_close_the_student_came(conversation: Run) -> None:
    own = conversation.report["training"]
    parts = {"forward_kl": 0.734, "agreement": 0.655}
    training = {
        **own, "train_untaught": ["a", "b"], "loss_curve": [{**point, "parts": parts} for point in own["loss_curve"]],
        "validation_curve": [{**point, "parts": parts} for point in own["validation_curve"]],
    }
    page = text_of(page_of(conversation, training=training))
    assert "Forward KL there 0.734 nats a token" in page
    assert "Same first choice as the teacher 65.5% of tokens" in page
    assert "Without probabilities 2 rows left out" in page
    assert "The training loss compares distributions" in page
    assert "Forward KL" not in text_of(page_of(conversation))


def test_a_training_without_a_curve_still_tells_its_facts(conversation: Run) -> None:
    training = {**conversation.report["training"], "loss_curve": [], "validation_curve": []}
    assert "step 70, epoch 2" in text_of(page_of(conversation, training=training))


def test_the_best_constant_answer_is_compared(classification: Run) -> None:
    text = text_of(page_of(classification))
    constant = classification.report["best_constant"]
    assert f"would reach accuracy {constant['value']:.3f}" in text
    assert f"The distilled model is {constant['gain']['value']:.2f} better" in text


def test_rejected_rows_are_counted_by_rule_with_an_example(conversation: Run) -> None:
    rules = [text_of(item) for item in page_of(conversation).findall(".//ul[@class='rules']/li")]
    assert rules == [
        "2 another row asks nearly the same for example: asks nearly the same as row billing-01 (similarity 0.91)",
        "1 the answer was cut off by the token limit for example: cut off at generation.max_tokens: it ends with 'within the'",
    ]


def test_every_label_is_explained(classification: Run) -> None:
    meanings = page_of(classification).find(".//dl[@class='facts meanings']")
    assert text_of(meanings) == (
        "teacher smollm2-135m-instruct baseline smollm2-135m-instruct, cut to 8 layers, untouched (gguf:q8_0) "
        "distilled smollm2-135m-instruct, cut to 8 layers, after training (gguf:q8_0) "
        "weights smollm2-135m-instruct, cut to 8 layers, after training (unquantised weights)"
    )


def test_whether_references_are_gold_is_said(conversation: Run, classification: Run) -> None:
    assert "The teacher’s figure is its self-agreement" in text_of(page_of(conversation))
    assert "References are the gold answers" in text_of(page_of(classification))


def test_the_settings_are_there_as_they_were(conversation: Run) -> None:
    arguments = conversation.page_arguments()
    assert page_of(conversation).find(".//details[@class='settings']/pre").text == arguments["job_yaml"]


def test_the_same_run_gives_the_same_page(conversation: Run) -> None:
    assert page_text(conversation) == page_text(conversation)


def test_what_the_judge_says_is_told_with_its_bias_and_its_agreement() -> None:
    scored = {label: [Judgement(4.0, True), Judgement(2.0, False)] * 20 for label in ("teacher", "baseline", "distilled")}
    lost = [Comparison("first", "second")] * 25 + [Comparison("second", "first")] * 5
    pairs = [*lost, *[Comparison("first", "first")] * 8, *[Comparison(None, None, "no winner")] * 2]
    rubric = make_rubric(get_task("conversation"), HOSTILE)
    run = make_run(judged=Judged("arbiter", rubric, scored, {"baseline": pairs}))
    page = page_of(run)
    (section,) = [part for part in page.findall(".//section") if part.findtext("h2") == "What the judge says"]
    said = text_of(section).replace("\N{NO-BREAK SPACE}", " ")
    assert "arbiter scored every answer from 1 to 5, and accepts an answer from 4 on." in said
    assert [text_of(cell) for cell in section.findall(".//td")[:3]] == ["25", "8", "5"]
    assert "changed with the order" in said
    assert "21 % of 38 pairs" in said
    assert "2 against baseline could not be read" in said
    assert HOSTILE in said
    assert page.findall(".//script") == []
    assert "Accepted by the judge" in text_of(page.find(".//table[@class='main']"))


def test_without_a_judge_there_is_no_section_on_one(conversation: Run) -> None:
    assert "What the judge says" not in [heading.text for heading in page_of(conversation).findall(".//h2")]
