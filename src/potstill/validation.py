"""What pydantic says about a wrong key or value, in words for the one who wrote the file."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

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
# What pydantic adds to the place of a problem where a value may be of several kinds; the first two by our own wish.
ONE, SEVERAL = "[one]", "[several]"
_NOT_A_KEY = ("list[str]", "literal['auto']", "[key]", ONE, SEVERAL)


Lines = Callable[[Sequence[int | str]], int | None]


def explain(
    error: ValidationError,
    model: type[BaseModel],
    *,
    source: str,
    prefix: Sequence[str] = (),
    examples: Mapping[str, str] | None = None,
    line_of: Lines | None = None,
) -> InputError:
    """The first problem as an error a user can act on; the other keys that are wrong stand in its hint.

    Args:
        model: What the value was read as; unknown keys are told its keys.
        source: The file.
        prefix: The keys of the file that lead to the value.
        examples: What to expect at certain keys, where pydantic's own words do not help.
        line_of: The line of the file where a value stands, given the keys that lead to it.
    """
    first, *others = explain_all(error, model, source=source, prefix=prefix, examples=examples, line_of=line_of)
    if others:
        keys = _keys(error, prefix)[1:6]
        more = f" and {len(others) - len(keys)} more" if len(others) > len(keys) else ""
        first.hint = f"{f'{first.hint} ' if first.hint else ''}wrong too: {', '.join(keys)}{more}"
    return first


def explain_all(
    error: ValidationError,
    model: type[BaseModel],
    *,
    source: str,
    prefix: Sequence[str] = (),
    examples: Mapping[str, str] | None = None,
    line_of: Lines | None = None,
) -> list[InputError]:
    """Every wrong key once, in the order of the file's model; the arguments are those of `explain`."""
    problems: dict[str, Any] = {}
    for problem in error.errors():
        problems.setdefault(_key(problem, prefix), problem)
    explained = []
    for key, problem in problems.items():
        line = line_of([*prefix, *place_of(problem)]) if line_of else None
        where = source if line is None else f"{source}, line {line}"
        explained.append(_explain_one(key or "the job", problem, model, where, examples or {}))
    return explained


def _explain_one(
    key: str, problem: Any, model: type[BaseModel], where: str, examples: Mapping[str, str]
) -> InputError:
    expected = examples.get(key) or _expectation(problem)
    if problem["type"] == "missing":
        return InputError(f"the required key '{key}' is missing", where=where, expected=expected)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, place_of(problem)[:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else None
        return InputError(f"unknown key '{key}'", where=where, expected=f"one of {', '.join(known)}", hint=hint)
    if problem["type"] == "value_error":
        return InputError(f"'{key}': {problem['ctx']['error']}", where=where, found=_found(problem))
    return InputError(f"wrong value for '{key}'", where=where, found=_found(problem), expected=expected)


def _keys(error: ValidationError, prefix: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_key(problem, prefix) for problem in error.errors()))


def place_of(problem: Any) -> tuple[int | str, ...]:
    """The keys and places in lists that lead to a problem of pydantic's."""
    return tuple(part for part in problem["loc"] if part not in _NOT_A_KEY)


def _key(problem: Any, prefix: Sequence[str]) -> str:
    return ".".join([*prefix, *map(str, place_of(problem))])


def _found(problem: Any) -> str:
    """The wrong value, without the user name and the password that an address may hold."""
    if isinstance(problem["input"], BaseModel):
        return "the default"
    value = re.sub(r"//[^/@\s]*@", "//...@", repr(problem["input"]))
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 3] + "..."


def _expectation(problem: Any) -> str:
    if problem["type"] == "missing":
        return "a value"
    text = str(problem["msg"]).removeprefix("Input should be ")
    if problem["type"] == "literal_error" and " or " not in text:
        text = f"{text}; {NOT_BUILT}"
    return _EXPECTED.get(problem["type"], text[:1].lower() + text[1:])


def _known_keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    annotation: Any = model
    for part in path:
        if isinstance(part, int):
            annotation = next((option for option in _options(annotation) if get_origin(option) is list), annotation)
            annotation = next(iter(get_args(annotation)), annotation)
        else:
            found = _first_model(annotation)
            field = None if found is None else found.model_fields.get(part)
            if field is None:
                break
            annotation = field.annotation
    return list((_first_model(annotation) or model).model_fields)


def _first_model(annotation: Any) -> type[BaseModel] | None:
    return next((one for one in _options(annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _options(annotation: Any) -> list[Any]:
    """The kinds of value that a key may have."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for option in get_args(annotation) for one in _options(option)]
    return [annotation]
