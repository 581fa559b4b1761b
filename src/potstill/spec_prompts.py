"""The job file's section `generation.prompts`: how new prompts are written. Part of `potstill.spec`, which exports it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from potstill.spec_models import Section


class PromptsSpec(Section):
    """How the teacher writes new prompts, where generation.mode is prompts."""

    wanted: Annotated[int, Field(ge=16, le=100_000)] = 500
    """The training rows that curation shall keep at least, your own among them."""
    ways: list[Literal["grow", "persona"]] = ["grow", "persona"]
    """grow: a few prompts are shown, and a wider, deeper or otherwise different one is asked for; persona: the teacher first
    thinks up a person, then writes what that person would write. Each prompt goes one of these ways, by chance."""
    floor: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """How far a new prompt has to be at least from every other one, held-out ones included: 1 minus the Jaccard similarity of
    their word 3-grams. 0 keeps all but copies."""
    examples: Annotated[int, Field(ge=1, le=20)] = 3
    """The most prompts that are shown with each request."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """How freely the teacher chooses its words when it writes prompts."""
    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 512
    """The longest new prompt, in tokens."""
    tries: Annotated[int, Field(ge=1, le=100)] = 5
    """The most prompts that may be asked for, for each new row that is kept. A teacher that needs more fails the job: that is
    looked at after 64 prompts, after twice as many more, and so on."""

    @field_validator("ways")
    @classmethod
    def _each_once(cls, ways: list[str]) -> list[str]:
        if not ways or len(set(ways)) != len(ways):
            raise ValueError("name each way once, and at least one")
        return ways
