"""How an error reads: at most six lines, each of a bounded length, the same parts for a program."""

from __future__ import annotations

from potstill.errors import InputError, JobFailedError, MissingExtraError, RunLockedError


def test_a_line_for_each_part_that_is_known() -> None:
    error = InputError("wrong value", where="job.yaml", found=3, expected="a text", hint="mend it")
    assert str(error).splitlines() == ["wrong value", "  where: job.yaml", "  found: 3", "  expected: a text", "  mend it"]
    assert str(InputError("wrong value")) == "wrong value"
    assert error.as_json() == {
        "error": "InputError", "what": "wrong value", "where": "job.yaml", "found": "3", "expected": "a text", "hint": "mend it"
    }


def test_a_reason_that_begins_with_found_does_not_say_it_twice() -> None:
    assert InputError("wrong", found="found the fields a, b").lines()[1] == "  found: the fields a, b"


def test_long_and_broken_texts_stay_within_their_line() -> None:
    error = InputError("a\nb " + "c" * 1000, where="d\ne", found="f" * 1000, expected="g", hint="h\ni\nj")
    assert len(error.lines()) <= 6
    assert all(len(line) <= 300 and "\n" not in line for line in error.lines())
    assert error.lines()[0].startswith("a b c")
    assert len(str(error.as_json()["found"])) == 1000


def test_exit_codes() -> None:
    assert (InputError("x").exit_code, RunLockedError("x").exit_code, JobFailedError("x").exit_code) == (2, 2, 1)
    assert MissingExtraError("train", "torch").hint == "install it: pip install 'potstill[train]'"
