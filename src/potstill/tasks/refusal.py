"""Recognise a model that declines to answer."""

from __future__ import annotations

import re

# Conservative: an apology alone is no refusal ("I'm sorry, but your order cannot be changed"), and a student must keep those.
_DECLINES = re.compile(
    r"""^\W*(?:
        (?:i['’]?m\s+|i\s+am\s+)?(?:very\s+|really\s+|so\s+)?(?:sorry|afraid)[,.]?\s+(?:but\s+)?(?:that\s+)?
            (?:i|as\s+an\s+ai)\b[^.!?]{0,60}?\b(?:can(?:no|['’])t|can\s?not|am\s+(?:unable|not\s+able)\s+to|won['’]t)
            \s+(?:\w+ly\s+)?(?:help\s+(?:you\s+)?with\s+(?:that|this)|assist\s+(?:you\s+)?with\s+(?:that|this)
              |fulfil+|comply|answer\s+(?:that|this)|provide\s+(?:that|this)|do\s+that|engage|continue\s+with)
      | i\s+(?:can(?:no|['’])t|can\s?not|won['’]t|am\s+(?:unable|not\s+able)\s+to)\s+
            (?:help|assist)\s+(?:you\s+)?with\s+(?:that|this|your\s+request)\b
      | as\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)\b[^.!?]{0,80}?
            \b(?:can(?:no|['’])t|can\s?not|(?:am\s+)?(?:unable|not\s+able)|do\s+not|don['’]t)
      | i\s+must\s+(?:respectfully\s+)?decline\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def looks_refused(text: str) -> bool:
    """Whether an answer begins by declining to answer at all."""
    return _DECLINES.match(text.strip()[:300]) is not None
