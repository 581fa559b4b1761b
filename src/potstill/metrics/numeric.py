"""The final number of a worked solution, and whether two final answers are the same number.

`parse_final_answer` reads what a model wrote; `numbers_equal` compares two such answers. Plain numbers (integers,
decimals, fractions, percentages) are compared exactly, with rationals and without any library; only expressions such as
`2\\sqrt{3}` go to math-verify, and only where evaluating them is sure to end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

# Thousands separators are only believed in groups of three, so that the list "3,5" does not become 35.
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3}){1,60}(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_CURRENCY = r"(?:\\?[$]|[€£¥₹])"
# A minus is a sign only where nothing stands before it that it could be subtracted from: "16-3" ends in 3, not in -3.
_SIGN = r"(?:(?<![\w)\]}.%])[-+])?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>{_SIGN})(?:{_CURRENCY}(?P<inner_sign>[-+]?))?"
    r"(?:(?P<whole>\d+)\s+(?=\d+\s*/\s*0*[1-9]))?"  # the 5 of the mixed number "5 1/2"
    rf"(?P<number>{_UNSIGNED})"
    r"(?:e(?P<exponent>[-+]?\d{1,2})(?!\w)|\s*[x×*]\s*10\s*\^\s*(?P<power>[-+]?\d{1,2})(?!\d)"
    r"|\s*/\s*(?P<denominator>(?=[\d.]*[1-9])\d+(?:\.\d+)?)(?![\d/]))?"
    r"\s*(?P<percent>%|percent\b|per cent\b)?",
    re.IGNORECASE,
)

# What announces a final answer. "A:" and "####" do so only where the rest of the line is the number (`_short_answer`),
# because they also open whole solutions ("A: Janet has 16 eggs, ...") and headings ("#### 2. Add them").
_MARK = re.compile(
    r"####|\\boxed\s*\{|\\fbox\s*\{|^[ \t]*A:"
    r"|\bfinal answer[\s*_]*$"
    r"|\banswer\b(?:\s+(?:to|for)\b[^.\d\n]{0,60}?)?[\s*_]*"
    r"(?:[:=]|(?:is|was|would be|will be|should be|comes to|equals)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_BRACES = re.compile(r"[{}]")
_CALCULATOR = re.compile(r"<<[^<>]*>>")  # the annotations of GSM8K: "16-3 = <<16-3=13>>13"
_LATEX_FRACTION = re.compile(r"(\d\s*)?\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_LATEX_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}")
_LATEX_NOISE = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|quad)\b|\{,\}|\^\\circ|\^\{\\circ\}|\\degree\b")
_EQUATIONS = re.compile(r"^(?:[A-Za-z]?[\d\s.,$€£+\-*/×÷()^%x]*=)+")  # the "20 + 22 =" of "20 + 22 = 42"
_ENDLESS = re.compile(r"(\d{300})\d+")
_LEAD = re.compile(
    r"[\s:*_~≈`\"'(\[=]*(?:(?:approximately|about|around|roughly|exactly|simply|just|only|a total of)\s+)?"
    r"[\s*_~≈`\"'(\[]*",
    re.IGNORECASE,
)
_SHORT = re.compile(r"(?:\s*[A-Za-z°/²³]++(?:\s*\^\{?[23]\}?)?){0,3}[\s.!*_$`\"')\]]*$")


def parse_final_answer(text: str) -> str | None:
    r"""Return the final answer of a worked solution in a canonical form, or None where the text holds no number.

    The last of these marks that is followed by an answer decides: `#### 42` and `A: 42` on a line of their own,
    `\boxed{42}`, "the answer is 42" and "Answer: 42"; without one, the last number of the text does. Currency signs,
    thousands separators, trailing zeros and units are dropped: "$1,234.50" gives "1234.5", `\frac{3}{4}` and "3/4"
    give "3/4", "5 1/2" gives "11/2", "20 percent" gives "20%". A boxed expression that is no number is returned as it
    stands. Scale words are not applied: "1.5 million" gives "1.5".

    The mark `####` and the calculator annotations, which are ignored, are those of GSM8K (Cobbe et al. 2021,
    arXiv:2110.14168).
    """
    plain = _tidy(_CALCULATOR.sub("", text))
    for mark in reversed(list(_MARK.finditer(plain))):
        answer = _after_mark(mark, plain)
        if answer is not None:
            return answer
    return _last_number(_clean_latex(plain))


def numbers_equal(answer: str | None, gold: str | None) -> bool:
    """Say whether two final answers are the same number; None (nothing could be parsed) equals nothing.

    Integers are compared exactly. Where either side has decimals or a denominator, the two may differ by a millionth
    (of the larger where both are below one), as 1/3 and 0.333333 do: the six places of math-verify. A percentage
    equals both the number before its sign and its hundredth unless both sides carry the sign, because questions ask
    for either.
    Whatever is not a plain number is parsed and compared by math-verify (Kydlíček et al.,
    https://github.com/huggingface/Math-Verify). Safe in any thread.
    """
    if answer is None or gold is None or not answer.strip() or not gold.strip():
        return False
    left, right = _value(answer), _value(gold)
    if left is None or right is None:
        return answer.strip() == gold.strip() or _equal_expressions(answer, gold)
    (a, a_percent), (b, b_percent) = left, right
    if _close(a, b):
        return True
    return a_percent != b_percent and _close(a / 100 if a_percent else a, b / 100 if b_percent else b)


def _after_mark(mark: re.Match[str], text: str) -> str | None:
    """Return the answer that one mark announces, or None where what follows is no answer."""
    name = mark.group().strip()
    if name.endswith("{"):
        return _boxed(text, mark.end())
    line = _clean_latex(text[mark.end() :].lstrip(" \t\n*_:").split("\n", 1)[0])
    return _short_answer(line) if name in {"####", "A:", "a:"} else _first_answer(line)


def _first_answer(line: str) -> str | None:
    """Return the number right after a mark (behind "20 + 22 =" too), or else the last number of the line."""
    found = _leading_number(line)
    return _canonical(found) if found else _last_number(line)


def _short_answer(line: str) -> str | None:
    """Return the number a line consists of, with at most three words of unit behind it."""
    found = _leading_number(line)
    return _canonical(found) if found and _SHORT.match(line, found.end()) else None


def _leading_number(line: str) -> re.Match[str] | None:
    equations = _EQUATIONS.match(line)
    lead = _LEAD.match(line, equations.end() if equations else 0)
    return _NUMBER.match(line, lead.end()) if lead else None


def _boxed(text: str, start: int) -> str | None:
    r"""Return the content of the box that opens before `start`: its number, or the expression where it is none."""
    depth = 1
    for brace in _BRACES.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            content = text[start : brace.start()].strip()
            break
    else:
        return None  # a box that was cut off in the middle announces nothing
    cleaned = _clean_latex(content).strip()
    single = re.sub(r"^[A-Za-z]\s*=\s*", "", cleaned)
    number = _short_answer(single)
    if number is not None:
        return number
    return single if re.search(r"[\d\\]|^[A-Za-z]$", single) else None


def _tidy(text: str) -> str:
    """Return the text with ASCII minus signs, and with endless digits (a model caught in a loop) cut to 300.

    Python refuses to convert more than 4,300 digits.
    """
    return _ENDLESS.sub(r"\1", text.replace("\u2212", "-").replace("\u2013", "-"))


def _clean_latex(text: str) -> str:
    """Return the text with LaTeX that only dresses a number (fractions, spacing, \\text, \\$, \\%) written plainly."""
    if "\\" in text or "{,}" in text:
        text = _LATEX_TEXT.sub(r" \1 ", _LATEX_NOISE.sub(lambda m: "," if m.group() == "{,}" else "", text))
        text = _LATEX_FRACTION.sub(_plain_fraction, text)
        text = text.replace("\\$", "$").replace("\\%", "%")
        text = re.sub(r"\s*\\(?:times|cdot)\s*10\s*\^\s*\{?([-+]?\d+)\}?", r" x 10^\1", text)
    return text


def _plain_fraction(found: re.Match[str]) -> str:
    whole, *parts = found.groups()
    numerator, denominator = (part for part in parts if part)
    return f"{whole} {numerator}/{denominator}" if whole else f"{numerator}/{denominator}"


def _last_number(text: str) -> str | None:
    numbers = list(_NUMBER.finditer(text))
    return _canonical(numbers[-1]) if numbers else None


def _canonical(found: re.Match[str]) -> str:
    """Write a matched number as an integer, a decimal without trailing zeros, or a fraction in lowest terms."""
    value = _fraction(found)
    percent = "%" if found["percent"] else ""
    if value.denominator == 1:
        return f"{value.numerator}{percent}"
    if found["whole"] or found["denominator"]:
        return f"{value.numerator}/{value.denominator}{percent}"
    # No "/" was written, so the denominator divides a power of ten and the decimal expansion ends.
    places = next(n for n in range(1, 1000) if 10**n % value.denominator == 0)
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}{percent}"


def _fraction(found: re.Match[str]) -> Fraction:
    """Return the exact value of a matched number, before its percent sign."""
    value = Fraction(found["number"].replace(",", ""))
    if found["denominator"]:
        value /= Fraction(found["denominator"])
    if found["whole"]:
        value += int(found["whole"])
    exponent = found["exponent"] or found["power"]
    if exponent:
        value *= Fraction(10) ** int(exponent)
    return -value if (found["sign"] + (found["inner_sign"] or "")).count("-") % 2 else value


def _value(text: str) -> tuple[Fraction, bool] | None:
    """Return (the number, whether a percent sign follows) where the whole text is one plain number, else None."""
    cleaned = _clean_latex(_tidy(text)).strip().strip("$").rstrip(".").strip()
    found = _NUMBER.fullmatch(cleaned)
    return (_fraction(found), found["percent"] is not None) if found else None


def _close(a: Fraction, b: Fraction) -> bool:
    if a.denominator == 1 and b.denominator == 1:
        return a == b
    scale = min(Fraction(1), max(abs(a), abs(b)))
    return abs(a - b) <= scale / 1_000_000


def _equal_expressions(answer: str, gold: str) -> bool:
    if not (_is_cheap(answer) and _is_cheap(gold)):
        return False
    parse, verify = _math_verify()
    # Its time limits are alarm signals, which only the main thread may set (and which would clash with another's
    # alarm): they are off, and `_is_cheap` stands in for them.
    left, right = (parse(f"${text.strip().strip('$')}$", parsing_timeout=None) for text in (answer, gold))
    return bool(verify(right, left, timeout_seconds=None))


_LONGEST_EXPRESSION = 200  # characters
_LARGEST_EXPONENT_OF_DIGITS = 10_000
_LARGEST_EXPONENT = 12  # of anything else: sympy expands (x+y+z)^n term by term
_COSTLY = re.compile(r"\\(?:sum|prod|int|lim|binom|dbinom|tbinom)\b|!.*!|\d{4,}\s*!|[)}\]]\s*!|\d{19,}", re.DOTALL)
_POWER = re.compile(r"\^|\*\*")
_PLAIN_EXPONENT = re.compile(
    r"\s*(?:(\d)|[A-Za-z]|\{\s*-?(?:(\d{1,5})|[A-Za-z]|\d{1,2}/\d{1,2}|\\d?frac\{\d{1,2}\}\{\d{1,2}\})\s*\}|\\circ)"
    r"(?!\s*(?:\^|\*\*))"
)


def _is_cheap(text: str) -> bool:
    """Say whether sympy evaluates the expression in moments: no tower of powers, large factorial, long integer (which
    sympy might factor), sum or integral.

    Models do write 9^{9^{9^9}}, and one such answer would hold up the evaluation for ever.
    """
    if len(text) > _LONGEST_EXPRESSION or _COSTLY.search(text):
        return False
    product, largest = 1, _LARGEST_EXPONENT_OF_DIGITS
    for power in _POWER.finditer(text):
        exponent = _PLAIN_EXPONENT.match(text, power.end())
        if exponent is None:
            return False
        product *= max(1, int(exponent[1] or exponent[2] or 1))
        if not text[: power.start()].rstrip()[-1:].isdigit():
            largest = _LARGEST_EXPONENT
    return product <= largest


@cache
def _math_verify() -> tuple[Callable[..., list[Any]], Callable[..., bool]]:
    """Return math-verify's (parse, verify); importing it takes the better part of a second."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of time limits that are off on purpose
    return parse, verify
