"""What pydantic says about a wrong key or value, in words for the one who wrote the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from potstill.errors import InputError

NOT_BUILT = "nothing else is built yet"
_LONGEST_VALUE = 120  # characters of a wrong value that are shown
_EXPECTED = {
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "dict_type": "a mapping of keys to values",
    "none_required": f"null; {NOT_BUILT}",
    "invalid_key": "a key that is a text",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
}
# What pydantic adds to the place of a problem where a value may be of several kinds.
_NOT_A_KEY = ("list[str]", "literal['auto']", "[key]")


def explain(
    error: ValidationError,
    model: type[BaseModel],
    *,
    source: str,
    prefix: Sequence[str] = (),
    examples: Mapping[str, str] | None = None,
) -> InputError:
    """The first problem as an error a user can act on; the other keys that are wrong stand in its hint.

    Args:
        model: What the value was read as; unknown keys are told its keys.
        source: The file.
        prefix: The keys of the file that lead to the value.
        examples: What to expect at certain keys, where pydantic's own words do not help.
    """
    problems = error.errors()
    first, examples = problems[0], examples or {}
    key = _key(first, prefix) or "the job"
    expected = examples.get(key) or _expectation(first)
    others = [name for name in dict.fromkeys(_key(problem, prefix) for problem in problems[1:]) if name != key][:5]
    hint = f"wrong too: {', '.join(others)}" if others else None
    if first["type"] == "missing":
        return InputError(f"the required key '{key}' is missing", where=source, expected=expected, hint=hint)
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(model, first["loc"][:-1]))
        return InputError(f"unknown key '{key}'", where=source, expected=f"one of {known}", hint=hint)
    if first["type"] == "value_error":
        return InputError(f"'{key}': {first['ctx']['error']}", where=source, found=_found(first), hint=hint)
    return InputError(f"wrong value for '{key}'", where=source, found=_found(first), expected=expected, hint=hint)


def _key(problem: Any, prefix: Sequence[str]) -> str:
    return ".".join([*prefix, *(str(part) for part in problem["loc"] if part not in _NOT_A_KEY)])


def _found(problem: Any) -> str:
    """The wrong value, without the user name and the password that an address may hold."""
    value = re.sub(r"//[^/@\s]*@", "//...@", repr(problem["input"]))
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 3] + "..."


def _expectation(problem: Any) -> str:
    if problem["type"] == "missing":
        return "a value"
    text = str(problem["msg"]).removeprefix("Input should be ")
    if problem["type"] == "literal_error" and " or " not in text:
        text = f"{text}; {NOT_BUILT}"
    return _EXPECTED.get(problem["type"], text[:1].lower() + text[1:])


def _known_keys(model: Any, path: Sequence[int | str]) -> list[str]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            break
        annotation = field.annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), model)
    return list(model.model_fields)
