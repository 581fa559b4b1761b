"""The errors a user can meet.

Every class knows its exit code: 2 where the user's input is wrong, 1 where the job, an endpoint or the machine failed. An
error is shown as at most six lines: what is wrong, where, what was found, what was expected, and what to do next. Any other
exception is a bug of ours and may show a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping


class PotstillError(Exception):
    """Base of all errors a user can act on.

    Args:
        what: One sentence that says what is wrong.
        where: The file and line, or the key, it is about.
        found: What stands there.
        expected: What would be right.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: object | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.found = None if found is None else str(found)
        self.expected = expected
        self.hint = hint
        super().__init__(what)

    def lines(self) -> list[str]:
        """The message as a person reads it, at most six lines of at most 300 characters."""
        parts = [self.what]
        for label, text in (("where", self.where), ("found", self.found), ("expected", self.expected)):
            if text:
                parts.append(f"  {label}: {text.removeprefix(f'{label} ')}")
        if self.hint:
            parts.append(f"  {self.hint}")
        return [_shorten(" ".join(part.split()) if i == 0 else part.rstrip()) for i, part in enumerate(parts)][:6]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_json(self) -> dict[str, str | None]:
        """The same for a program: one key a part."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
        }


def _shorten(line: str, limit: int = 300) -> str:
    line = "".join(character if character.isprintable() else " " for character in line)  # what a terminal would obey
    return line if len(line) <= limit else line[: limit - 1] + "…"


class InputError(PotstillError):
    """The user's input is wrong: a file, a key, a value, an argument."""

    exit_code = 2


class DataError(InputError):
    """A row of the user's data cannot be read."""


class ModelNotFoundError(InputError):
    """A model name, folder or file that leads nowhere."""


class MissingExtraError(InputError):
    """A part of Potstill that is not installed."""

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(
            f"this needs the '{extra}' extra of Potstill ('{module}' is not installed)",
            hint=f"install it: pip install 'potstill[{extra}]'",
        )


class MissingKeyError(InputError):
    """An API key that is neither in the environment nor in the system keyring."""


class RunLockedError(InputError):
    """Another process is working on the same run folder."""


class JobFailedError(PotstillError):
    """The job ran and did not reach its end; the message says why and what was kept."""


class BudgetError(JobFailedError):
    """What the job may spend is spent; what it got for it is kept."""


class JobCanceledError(PotstillError):
    """The user cancelled the job; what was done is kept, and it can go on."""


class EndpointError(PotstillError):
    """An endpoint did not answer, or answered with something that is no answer."""


class ExportError(PotstillError):
    """A model cannot be written in the format asked for, or what was written does not agree with the weights."""


class MachineError(PotstillError):
    """The machine is at fault: disk full, memory short, folder not writable."""


class CorruptFileError(PotstillError):
    """A file of a run folder is not what was written there."""


def error_of(told: Mapping[str, str | None]) -> PotstillError:
    """The error that another process told by `as_json`, of the class that it had there."""
    fields = dict(told)
    kind = globals().get(str(fields.pop("error")))
    if not (isinstance(kind, type) and issubclass(kind, PotstillError)):
        kind = JobFailedError
    error = kind.__new__(kind)  # some classes build their message from other arguments; this one is built already
    PotstillError.__init__(error, **fields)  # type: ignore[arg-type]
    return error
