"""Recognise a model that declines to answer."""

from __future__ import annotations

import re

# Conservative: an apology alone is no refusal ("I'm sorry, but your order cannot be changed"), nor is one way that is closed
# ("I cannot cancel it here, but ..."), and a student must keep those. What counts is that the request itself is turned down,
# in the first words.
_SORRY = r"""(?:
    (?:(?:i['’]?m|i\s+am)\s+)?(?:(?:very|really|so|truly)\s+)?(?:sorry|afraid)
  | (?:i\s+|my\s+|sincere\s+|sincerely\s+)*apolog(?:i[sz]e|ies)
  | unfortunately
)"""
_CANNOT = r"""(?:
    (?:can(?:no|['’])t|can\s?not|could\s?n['’]t|(?:won['’]t|will\s+not)(?:\s+be\s+able\s+to)?|must\s+decline\s+to)
  | (?:\s?am|['’]?m)\s+(?:unable|not\s+(?:able|allowed|permitted|going))\s+to
)"""
_KIND = r"(?:kinds?|types?|sorts?)\s+of\s+"
_END = r"\W*(?:[.!?,;:]|$)"
# "that.", "this request", "your request", "this kind of question": the request itself, not a thing that it is about.
_REQUEST = rf"""(?:that|this|these|those|such|your|the|any)
    (?:\s+(?:{_KIND})?(?:specific\s+|particular\s+)?(?:requests?|questions?|task|query|queries|topic|prompt|instructions?)\b
      |(?={_END}))"""
_MATERIAL = rf"""(?:that|this|such|any)
    (?:\s+(?:{_KIND})?(?:information|content|assistance|help|advice|guidance|instructions?|material)\b|(?={_END}))"""
_DECLINES = re.compile(
    rf"""(?:{_SORRY}\W+)?(?:(?:but|that|however)\W+)*
    (?: (?:as\s+an?\s+[\w\s]{{2,40}},\s*)?i(?:\s+(?:simply|really|just|also))?(?:,[^.!?,]{{0,40}},)?\s*{_CANNOT}\s+(?:\w+ly\s+)?
        (?: (?:help|assist|aid)\s+(?:you\s+)?(?:with|in)\s+{_REQUEST}
          | (?:fulfil+|comply\s+with|complete|accept|engage\s+(?:in|with)|continue\s+with|answer|respond\s+to|discuss|do)\s+
            {_REQUEST}
          | comply\b
          | (?:provide|give|share|create|write|generate|produce)\s+(?:you\s+)?(?:with\s+)?{_MATERIAL}
        )
      | as\s+an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)\b[^.!?]{{0,80}}?
        \b(?:can(?:no|['’])t|can\s?not|(?:am\s+|['’]m\s+)?(?:unable|not\s+able)|do\s+not|don['’]t)
      | i\s+must\s+(?:respectfully\s+)?decline\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_OPENING = 300  # characters


def looks_refused(text: str) -> bool:
    """Whether an answer begins by declining to answer at all."""
    return _DECLINES.match(text.lstrip(" \t\r\n*_\"'“‘")[:_OPENING]) is not None
