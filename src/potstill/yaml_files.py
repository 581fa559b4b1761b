"""The YAML files that users write, job files and catalogues, as mappings; what is wrong in one is named with its line."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from potstill.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML forbids a key twice in one mapping; PyYAML itself would take the last one and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key '{key.value}' a second time"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path, *, what: str, expected: str, hint: str | None = None) -> dict[Any, Any]:
    """The mapping that a file holds.

    Args:
        what: What the file is, for errors: "the job file".
        expected: What it should hold.
        hint: What to do where it does not exist.

    Raises:
        InputError: the file is missing or no file, is not UTF-8, or holds no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{what} does not exist", where=str(path), hint=hint) from None
    except IsADirectoryError:
        raise InputError(f"this is a folder, not {what}", where=str(path), expected="a YAML file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{what} is not UTF-8", where=f"{path}, line {line}", found=f"byte {error.start + 1}") from error
    except OSError as error:
        raise InputError(f"{what} cannot be read", where=str(path), found=error.strerror) from error
    try:
        data = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        place = f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise InputError(f"{what} is not YAML", where=place, found=error.problem) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        found = f"the character U+{ord(text[error.position]):04X}, which YAML does not allow"
        raise InputError(f"{what} is not YAML", where=f"{path}, line {line}", found=found) from error
    except ValueError as error:  # a date such as 2026-13-01
        raise InputError(f"{what} holds a value that cannot be", where=str(path), found=error) from error
    if not isinstance(data, dict):
        raise InputError(f"{what} holds no mapping", where=str(path), expected=expected)
    return data


def line_of(path: Path, keys: Sequence[int | str]) -> int | None:
    """The line where a value stands, counted from 1: of the last of these keys that the file has; None where it has none.

    Args:
        path: A file that `read_mapping` can read.
        keys: The keys and places in lists that lead to the value, from the top.
    """
    node: yaml.Node | None = yaml.compose(path.read_text(encoding="utf-8"), _Loader)
    line = None
    for key in keys:
        place = _child(node, key)
        if place is None:
            break
        line, node = place[0].start_mark.line + 1, place[1]
    return line


def _child(node: yaml.Node | None, key: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Where an entry of a mapping or a list begins, and its value."""
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if getattr(name, "value", None) == key), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key]
    return None
