"""The JSON Schema of the job file, made from the models of `potstill.spec`: keys, bounds, defaults and descriptions.

Draft 2020-12. It says what `load_job` accepts, the shorthands included; values that are not built yet are in neither.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from potstill.errors import MachineError
from potstill.spec import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# One of the two keys holds a name, as `ModelSpec` checks; the resolved job of a run folder has the other as null.
_GIVEN = {key: {"required": [key], "properties": {key: {"type": "string"}}} for key in ("model", "path", "endpoint")}
_ADDRESS = r"^https?://(?![^/?#]*:[^/?#]*@)"  # without a password
_NAME = {"type": "string", "description": "A name of the catalogue, a hub id or a path."}


def job_schema() -> dict[str, Any]:
    """The schema as a value that JSON can hold."""
    schema = JobSpec.model_json_schema()
    definitions, keys = schema["$defs"], schema["properties"]
    for name in ("SoleTeacherSpec", "TeacherSpec", "StudentSpec", "JudgeSpec"):
        definitions[name] |= {"oneOf": [_GIVEN["model"], _GIVEN["path"]], "if": _GIVEN["endpoint"], "then": _GIVEN["model"]}
        _text(definitions[name]["properties"]["endpoint"])["pattern"] = _ADDRESS
    keys["student"] = _or(keys["student"], _NAME)
    one, several = keys["teacher"].pop("oneOf")
    keys["teacher"]["anyOf"] = [_NAME, one, {**several, "items": _or(several["items"], _NAME)}]
    definitions["SoleTeacherSpec"]["properties"]["correct"]["anyOf"].insert(0, {"type": "boolean"})
    definitions["EvaluationSpec"]["properties"]["judge"]["anyOf"].insert(0, _NAME)
    formats = definitions["ExportSpec"]["properties"]["formats"]
    keys["export"] = _or(keys["export"], {key: formats[key] for key in ("type", "items", "description")})
    models = definitions["EvaluationSpec"]["properties"]["models"]
    models |= {"minItems": 1, "uniqueItems": True}
    for definition in definitions.values():
        for key in definition["properties"].values():
            _tell_what_is_built(key)
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return {"$schema": DIALECT, **schema, "title": "A Potstill job"}


def write_schema(path: Path) -> None:
    """Write the schema as a file of indented JSON.

    Raises:
        MachineError: it cannot be written.
    """
    try:
        path.write_text(json.dumps(job_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise MachineError("the schema cannot be written", where=str(path), found=error.strerror) from error


def _tell_what_is_built(key: dict[str, Any]) -> None:
    """A key with one value only is there so that job files stay as they are when there will be others."""
    if key.get("type") == "null" or "const" in key:
        key["description"] += f" Only {json.dumps(key.get('const'))} yet."


def _or(given: dict[str, Any], shorthand: dict[str, Any]) -> dict[str, Any]:
    """A section, or its shorthand."""
    beside = {key: value for key, value in given.items() if key != "$ref"}
    return {"anyOf": [shorthand, {"$ref": given["$ref"]}], **beside}


def _text(given: dict[str, Any]) -> dict[str, Any]:
    """The branch of an optional text that is the text."""
    branch: dict[str, Any] = next(option for option in given["anyOf"] if option.get("type") == "string")
    return branch
