"""The terms of teachers: whose are known, and what is said where they are not."""

from __future__ import annotations

import datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from potstill.catalog import Terms, entries, resolve, terms_of
from potstill.spec import ModelSpec


def terms(**spec: str) -> Terms | None:
    return terms_of(resolve(ModelSpec.model_validate(spec)))


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        ({"model": "gpt-4o"}, "openai.com"),
        ({"model": "a-model-of-tomorrow", "endpoint": "https://api.openai.com/v1"}, "openai.com"),
        ({"model": "gpt-4o", "endpoint": "https://proxy.example/v1"}, "openai.com"),  # whoever passes it on
        ({"model": "claude-haiku"}, "www.anthropic.com"),
        ({"model": "gemini", "endpoint": "https://generativelanguage.googleapis.com/v1beta/openai"}, "ai.google.dev"),
        ({"model": "llama-3.1-405b"}, "www.llama.com"),
        ({"model": "meta-llama/Llama-3.2-1B-Instruct"}, "www.llama.com"),
        ({"model": "gemma-3-1b"}, "ai.google.dev"),
    ],
)
def test_whose_terms_are_known(spec: dict[str, str], source: str) -> None:
    found = terms(**spec)
    assert found is not None
    assert urlsplit(found.source).hostname == source
    assert datetime.date.fromisoformat(str(found.date))
    assert f"read them: {found.source} (looked up on {found.date})" in str(found)


def test_an_endpoint_of_which_nothing_is_known_has_terms_all_the_same() -> None:
    found = terms(model="mine", endpoint="https://models.example/v1")
    assert found is not None
    assert (found.source, found.date) == (None, None)
    assert str(found).endswith("read them")


def test_a_model_on_this_machine_under_a_free_licence_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert terms(path=str(tmp_path)) is None
    assert terms(model="qwen2.5-0.5b") is None
    assert terms(model="someone/gpt-4o") is None


def test_every_proprietary_entry_has_terms_with_a_source() -> None:
    names = [name for name, entry in entries().items() if entry.license == "proprietary"]
    assert names
    for name in names:
        found = terms(model=name)
        assert found is not None
        assert found.source is not None, name
