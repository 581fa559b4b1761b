"""Rows to teacher answers: `generate_answers` asks in some `Way` whom a `Strategy` names; `Spool` keeps what came on disk.

`grow_prompts` has new prompts written after the model of the rows that are there.
"""

from __future__ import annotations

from potstill.generation.answers import generate_answers
from potstill.generation.asking import way_of
from potstill.generation.assigning import Assignment, Everyone, Mix, Route, route_of
from potstill.generation.candidate import Outcome, RejectedRow
from potstill.generation.chain_of_thought import ChainOfThought
from potstill.generation.gate import Gate
from potstill.generation.prompts import Around, Grown, RejectedPrompt, grow_prompts
from potstill.generation.selecting import All, Best, Judge, Selection, Vote
from potstill.generation.spool import Spool
from potstill.generation.strategies import Ask, OneTeacher, Panel, Strategy
from potstill.generation.tally import Counted, Tally
from potstill.generation.ways import Direct, Teacher, Way

__all__ = [
    "All", "Around", "Ask", "Assignment", "Best", "ChainOfThought", "Counted", "Direct", "Everyone", "Gate", "Grown", "Judge",
    "Mix", "OneTeacher", "Outcome", "Panel", "RejectedPrompt", "RejectedRow", "Route", "Selection", "Spool", "Strategy",
    "Tally", "Teacher", "Vote", "Way", "generate_answers", "grow_prompts", "route_of", "way_of",
]
