"""Rows to teacher answers: `generate_answers` asks in some `Way` whom a `Strategy` names; `Spool` keeps what came on disk."""

from __future__ import annotations

from potstill.generation.answers import generate_answers
from potstill.generation.candidate import Outcome, RejectedRow
from potstill.generation.spool import Spool
from potstill.generation.strategies import OneTeacher, Strategy
from potstill.generation.ways import Direct, Teacher, Way

__all__ = ["Direct", "OneTeacher", "Outcome", "RejectedRow", "Spool", "Strategy", "Teacher", "Way", "generate_answers"]
