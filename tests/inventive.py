"""A teacher on loopback that writes new prompts: from a request alone, so that the same request always gets the same reply.

    serve_in_thread(inventive(repeats=0.3))     three prompts in ten are copies of an example that it was shown

Its texts are words drawn by chance, with the label in them where one is asked for; asked for an answer, it gives the label that
stands in the text, or the text in capital letters.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from loopback import Messages

_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")


def words(chance: random.Random, count: int) -> str:
    return " ".join("".join(chance.choices(_SYLLABLES, k=3)) for _ in range(count))


def examples_in(text: str) -> list[str]:
    """The examples that a request shows."""
    return re.findall(r'"""\n(.*?)\n"""', text, re.DOTALL)


def asks_for_prompt(messages: Messages) -> bool:
    return "Write a new one" in messages[-1]["content"]


def asks_for_persona(messages: Messages) -> bool:
    return "Think up one person" in messages[-1]["content"]


def inventive(labels: Sequence[str] = (), *, repeats: float = 0.0, form: str = "{}") -> Callable[[Messages], str]:
    """labels: those it knows. repeats: the share of its prompts that are copies. form: what its prompts look like."""

    def answer(messages: Messages) -> str:
        text = messages[-1]["content"]
        chance = random.Random(text)
        if asks_for_persona(messages):
            return f"A person who thinks of {words(chance, 4)}."
        if asks_for_prompt(messages):
            if chance.random() < repeats:
                return examples_in(text)[0]
            label = re.search(r"Its label has to be (.+?)( and none of|\.)", text)
            return form.format(f"{words(chance, 8)} {label[1] if label else ''}".strip())
        return next((label for label in labels if label in text), text.upper())

    return answer
