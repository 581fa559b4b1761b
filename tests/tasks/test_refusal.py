"""A model that turns the request down is recognised; an answer that has bad news is not taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.tasks import get_task, looks_refused
from potstill.tasks.reading import read_rows_of

DECLINES = [
    "I cannot assist with that request.",
    "I can't help with that.",
    "I can’t assist with that.",
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot fulfill this request.",
    "  \"I'm sorry, I can't assist you with that type of request.\"",
    "Sorry, but I cannot answer that question.",
    "I apologize, but I cannot provide that information.",
    "I apologize, but as an AI language model, I cannot have opinions.",
    "I'm sorry, as an AI assistant, I cannot do this.",
    "As an AI, I don't have personal opinions.",
    "I am unable to help with this request.",
    "I'm not able to provide that information.",
    "I'm not going to help with that.",
    "I won't be able to help you with that.",
    "I really can't comply with this request, and I advise against it.",
    "I cannot provide any instructions on how to do that.",
    "Unfortunately, I cannot help with this kind of request.",
    "I must respectfully decline.",
]
ANSWERS = [
    "",
    "I'm sorry to hear that, let me look into your order.",
    "I'm sorry, but your order cannot be changed after it has shipped.",
    "I'm sorry that I cannot process this refund without your order number.",
    "I'm sorry, I can't help with this order until you verify your address.",
    "Sorry for the delay! Your parcel is on its way.",
    "I apologize for the inconvenience. Please follow these steps.",
    "I cannot find your order; could you give me the number?",
    "I can't see your account from here, but you can reset the password like this.",
    "I am not able to cancel the order once it has shipped, but you can return it.",
    "I cannot complete the exchange before the parcel is back, so please send it.",
    "I cannot do this on my own: please confirm by mail.",
    "I can't give you that discount twice, but here is another.",
    "I won't keep you long: the answer is 42.",
    "I can assist with that request.",
    "Sure, I can't wait to help you with that!",
    "Unfortunately, we cannot ship to that address.",
    "As an AI, I can explain how it works.",
    "As an AI researcher, she published widely.",
    "The bot said: I cannot assist with that request.",
]


@pytest.mark.parametrize("text", DECLINES)
def test_declining_is_recognised(text: str) -> None:
    assert looks_refused(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_not_taken_for_a_refusal(text: str) -> None:
    assert not looks_refused(text)


@pytest.mark.parametrize(
    ("name", "source"), [("conversation", "bitext"), ("conversation", "star"), ("summarization", "scitldr")]
)
def test_hardly_any_real_gold_answer_is_taken_for_a_refusal(data_dir: Path, name: str, source: str) -> None:
    rows = read_rows_of(data_dir / name / f"{source}.train.jsonl", get_task(name), on_bad_row="fail").rows
    taken = [text for row in rows for text in row.references if looks_refused(text)]
    # One support answer of bitext does decline: "I'm unable to assist with this request as I don't have access to ...".
    assert len(taken) <= 1, taken
