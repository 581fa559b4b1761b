"""The reference of the job file, from the pydantic models that check it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from made.blocks import code, table
from potstill.spec import JobSpec, ModelSpec, TeacherSpec
from potstill.spec_correction import SoleTeacherSpec

_BOUNDS = {annotated_types.Ge: "≥ {ge:g}", annotated_types.Gt: "> {gt:g}", annotated_types.Le: "≤ {le:g}",
           annotated_types.Lt: "< {lt:g}"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def job_file_reference() -> str:
    """A section for the top level and one for each model below it, every key once."""
    parts = [_section("The job", "", JobSpec)]
    for name, field in JobSpec.model_fields.items():
        model = _model_of(field.annotation)
        if model is None:
            continue
        parts.append(_section(name, name, model, leave_out=_keys_of_teacher(model)))
        if name == "teacher":
            parts.append(_section("One of several teachers", "teachers", TeacherSpec, leave_out=_keys_of_teacher(TeacherSpec)))
        parts += [_section(path, path, inner, leave_out=_keys_of_teacher(inner)) for path, inner in _models_within(name, model)]
    return "\n\n".join(parts)


def _keys_of_teacher(model: type[BaseModel]) -> frozenset[str]:
    """The keys by which any model is named, for one that has others beside them: they stand under `teacher`."""
    own = not issubclass(model, ModelSpec) or model is SoleTeacherSpec
    return frozenset() if own else frozenset(ModelSpec.model_fields)


def _section(title: str, prefix: str, model: type[BaseModel], leave_out: frozenset[str] = frozenset()) -> str:
    rows = []
    for key, field in model.model_fields.items():
        if key in leave_out:
            continue
        inner = _model_of(field.annotation)
        kind = f"[{key}](#{_anchor(f'{prefix}.{key}' if prefix else key)})" if inner else _kind(field)
        default = "the file's name" if (model, key) == (JobSpec, "name") else _default(field)
        rows.append([code(key), kind, default, field.description or ""])
    words = inspect.cleandoc(model.__doc__ or "")
    more = " The keys of `teacher`, `correct` aside, and:" if leave_out else ""
    heading = f"## {title} {{#{_anchor(prefix or 'the-job')}}}"
    return f"{heading}\n\n{words}{more}\n\n{table(['Key', 'Value', 'Default', 'Meaning'], rows)}"


def _anchor(path: str) -> str:
    return path.replace(".", "-").replace("_", "-")


def _models_within(path: str, model: type[BaseModel]) -> list[tuple[str, type[BaseModel]]]:
    """The models of its keys and of theirs, each with the keys that lead to it."""
    found: list[tuple[str, type[BaseModel]]] = []
    for key, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            found += [(f"{path}.{key}", inner), *_models_within(f"{path}.{key}", inner)]
    return found


def _model_of(annotation: Any) -> type[BaseModel] | None:
    options = [annotation, *get_args(annotation), *(inner for option in get_args(annotation) for inner in get_args(option))]
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return code(_yaml(value))


def _yaml(value: Any) -> str:
    """A value as a job file has it, on one line."""
    return yaml.safe_dump(value, default_flow_style=True).replace("\n...", "").strip()


def _kind(field: FieldInfo) -> str:
    """What a key takes, in words, with its bounds; a key that takes nothing but its default is there for later versions."""
    if field.annotation is types.NoneType:
        return "nothing yet"
    words = _words(field.annotation, field.metadata)
    fixed = not field.is_required() and words == code(_yaml(field.get_default()))
    return f"{words} alone, so far" if fixed else words


def _words(annotation: Any, metadata: Sequence[Any]) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _words(inner, [*metadata, *more])
    if origin in (Union, types.UnionType):
        return " or ".join(_words(option, metadata) for option in get_args(annotation) if option is not types.NoneType)
    if origin is Literal:
        return ", ".join(code(_yaml(value)) for value in get_args(annotation))
    if origin is list:
        return f"list of {_words(get_args(annotation)[0], ())}"
    if origin is dict:
        key, value = get_args(annotation)
        return f"mapping of {_words(key, ())} to {_words(value, ())}"
    bounds = [text for rule in metadata for text in _bounds(rule)]
    return " ".join([_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation))), ", ".join(bounds)]).strip()


def _bounds(rule: Any) -> list[str]:
    if isinstance(rule, FieldInfo):
        return [text for inner in rule.metadata for text in _bounds(inner)]
    pattern = _BOUNDS.get(type(rule))
    if pattern is not None:
        return [pattern.format(**vars(rule) if hasattr(rule, "__dict__") else {f: getattr(rule, f) for f in rule.__slots__})]
    regex = getattr(rule, "pattern", None)
    return [f"matching `{regex}`"] if regex else []
