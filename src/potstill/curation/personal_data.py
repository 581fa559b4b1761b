"""Personal data in a row: found, counted, and where the job says so replaced by placeholders or reason to drop the row.

Numbers count only where they can be real: cards by the Luhn sum, accounts by the IBAN's, telephone numbers by the plans of
their countries, identity numbers by their own rules. Names and addresses are not looked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any, Literal

from potstill.rows import Reference, Row


@dataclass(frozen=True, slots=True)
class Finding:
    """A piece of personal data: its kind, and where it stands in the text."""

    kind: str
    start: int
    end: int


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_CARD = re.compile(r"(?<![\w.,-])[2-6]\d{3}(?:[ -]?\d){8,15}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_IP = re.compile(r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")
_PHONE = re.compile(r"(?<![\w.+$€£-])\+?\(?\d(?:[ ./()-]{0,2}\d){6,14}(?![\w-])")
_SECRET = re.compile(
    r"""-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----(?:.*?-----END\ [A-Z ]*PRIVATE\ KEY-----)?
    | \b(?: sk-(?:ant-|proj-)?[\w-]{20,} | (?:AKIA|ASIA)[A-Z0-9]{16} | gh[pousr]_\w{36,} | github_pat_\w{40,} | glpat-[\w-]{20,}
      | xox[abprs]-[\w-]{10,} | AIza[\w-]{35} | hf_[A-Za-z0-9]{30,} | [rs]k_live_\w{20,} | SG\.[\w-]{20,}\.[\w-]{20,}
      | eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,} )
    | (?i:\b(?:api[_-]?key|secret|access[_-]?token|auth[_-]?token|password|passwd)["']?\s*[:=]\s*["']?)
      (?=[\w+/=.-]*\d)(?=[\w+/=.-]*[A-Za-z])[\w+/=.-]{16,}""",
    re.VERBOSE | re.DOTALL,
)
# Identity numbers whose own form tells them from other numbers; module of python-stdnum that knows their rules.
_CODICE_FISCALE = re.compile(r"\b[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]\b")
_IDENTITIES = (
    ("us.ssn", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])")),
    ("es.dni", re.compile(r"(?<![\w-])\d{8}-?[A-Z](?![\w-])")),
    ("fr.nir", re.compile(r"(?<![\w-])[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?![\w-])")),
    ("br.cpf", re.compile(r"(?<![\w-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])")),
    ("in_.aadhaar", re.compile(r"(?<![\w-])[2-9]\d{3} \d{4} \d{4}(?![\w-]| \d)")),
)
# What no number and no secret is without: quick looks that leave most texts alone.
_LONG_NUMBER = re.compile(r"\d[ ./()-]{0,2}\d[ ./()-]{0,2}\d[ ./()-]{0,2}\d[ ./()-]{0,2}\d[ ./()-]{0,2}\d")
_DOTTED, _COLONS = re.compile(r"\d\.\d{1,3}\.\d"), re.compile(r":[0-9A-Fa-f]{0,4}:")
_LONG_WORD = 16  # characters


def findings_in(text: str) -> list[Finding]:
    """All personal data of a text in order; of pieces that overlap the one that is looked for first."""
    found: list[Finding] = []
    for finding in _candidates(text):
        if all(finding.end <= other.start or finding.start >= other.end for other in found):
            found.append(finding)
    return sorted(found, key=lambda finding: finding.start)


def _candidates(text: str) -> Iterator[Finding]:
    if "@" in text:
        yield from _matches("email", _EMAIL, text)
    if "PRIVATE KEY" in text or any(len(word) >= _LONG_WORD and _can_be_secret(word) for word in text.split()):
        yield from _matches("secret", _SECRET, text)
        yield from _matches("identity_number", _CODICE_FISCALE, text, _valid("it.codicefiscale"))
    if _DOTTED.search(text) or _COLONS.search(text):
        yield from _matches("ip_address", _IP, text, _is_public_address)
    if _LONG_NUMBER.search(text):
        yield from _matches("iban", _IBAN, text, _valid("iban"))
        for module, pattern in _IDENTITIES:
            yield from _matches("identity_number", pattern, text, _valid(module))
        yield from _matches("card", _CARD, text, _is_card)
        yield from _matches("phone", _PHONE, text, _is_phone)


def _can_be_secret(word: str) -> bool:
    return not word.islower() or any(map(str.isdigit, word))


def _matches(kind: str, pattern: re.Pattern[str], text: str, holds: Callable[[str], bool] = bool) -> Iterator[Finding]:
    return (Finding(kind, *match.span()) for match in pattern.finditer(text) if holds(match.group()))


@cache
def _valid(module: str) -> Callable[[str], bool]:
    checks: Any = import_module(f"stdnum.{module}")
    return lambda text: bool(checks.is_valid(text))


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return len(digits) in (13, 14, 15, 16, 19) and len(set(digits)) > 1 and _valid("luhn")(digits)


def _is_public_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_phone(text: str) -> bool:
    """A number with a country code, or one written as people write theirs in the United States, Britain, Germany or France."""
    if text.startswith("+"):
        return _can_be_dialled(text, None)
    return not text.isdigit() and any(_can_be_dialled(text, region) for region in ("US", "GB", "DE", "FR"))


def _can_be_dialled(text: str, region: str | None) -> bool:
    from phonenumbers import Leniency, PhoneNumberMatcher

    leniency = Leniency.VALID if region is None else Leniency.STRICT_GROUPING
    return any(match.start <= 1 and match.end >= len(text) for match in PhoneNumberMatcher(text, region, leniency))


class PersonalData:
    """The row holds personal data, in what is asked or in what is answered.

    counts: rows with each kind, whatever becomes of them.
    """

    name = "personal_data"

    def __init__(self, treatment: Literal["keep", "redact", "drop"]) -> None:
        self._treatment = treatment
        self.counts: Counter[str] = Counter()

    def reject(self, row: Row) -> str | None:
        kinds = kinds_in(row)
        self.counts.update(kinds)
        if not kinds or self._treatment != "drop":
            return None
        return f"it holds personal data: {', '.join(kind.replace('_', ' ') for kind in kinds)}"

    def treated(self, row: Row) -> Row:
        """The row as it is kept: with placeholders, where the job says so."""
        return redacted(row) if self._treatment == "redact" else row


def kinds_in(row: Row) -> list[str]:
    """The kinds of personal data in the messages of a row."""
    text = "\n\n".join(message.content for message in row.messages)
    return sorted({finding.kind for finding in findings_in(text)})


def redacted(row: Row) -> Row:
    """The row with each piece of personal data replaced by its kind, such as [EMAIL], in messages and gold answers."""
    messages = tuple(replace(message, content=without_personal_data(message.content)) for message in row.messages)
    reference: Reference = row.reference
    if reference is not None:
        several = [without_personal_data(text) for text in row.references]
        reference = several[0] if isinstance(reference, str) else several
    return replace(row, messages=messages, reference=reference)


def without_personal_data(text: str) -> str:
    """A text with placeholders."""
    for finding in reversed(findings_in(text)):
        text = f"{text[: finding.start]}[{finding.kind.upper()}]{text[finding.end :]}"
    return text
