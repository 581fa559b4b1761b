"""What makes two requests the same one."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message, content_hash

REQUEST = Request((Message("system", "Be brief."), Message("user", "Why?")), Sampling(0.7, stop=("\n",)), sample=2)
MODEL = {"endpoint": "http://host/v1", "model": "m"}
OTHER = {"temperature": 0.1, "top_p": 0.5, "max_tokens": 7, "stop": (), "choices": ("yes",), "json_schema": "{}"}


def test_a_key_is_the_hash_of_model_messages_sampling_and_sample() -> None:
    assert REQUEST.key(MODEL) == content_hash(
        {
            "model": MODEL,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            "sampling": asdict(REQUEST.sampling),
            "sample": 2,
        }
    )


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_every_setting_is_part_of_it(name: str) -> None:
    other = replace(REQUEST, sampling=replace(REQUEST.sampling, **{name: OTHER[name]}))
    assert other.key(MODEL) != REQUEST.key(MODEL)


def test_what_is_told_besides_the_answer_is_not() -> None:
    assert replace(REQUEST, token_ids=True).key(MODEL) == REQUEST.key(MODEL)
    assert replace(REQUEST, sample=3).key(MODEL) != REQUEST.key(MODEL)
    assert REQUEST.key({**MODEL, "model": "n"}) != REQUEST.key(MODEL)


def test_log_probabilities_are_where_any_are_asked_for() -> None:
    # A reply without them is of no use to who wants them; keys of requests that want none are what they always were.
    assert replace(REQUEST, top_logprobs=20).key(MODEL) != REQUEST.key(MODEL)
    assert replace(REQUEST, top_logprobs=20).key(MODEL) != replace(REQUEST, top_logprobs=5).key(MODEL)
