"""The way to ask that a job's settings describe."""

from __future__ import annotations

from potstill.generation.chain_of_density import ChainOfDensity
from potstill.generation.chain_of_thought import ChainOfThought
from potstill.generation.ways import Direct, Way, WithRationale
from potstill.spec import GenerationSpec
from potstill.tasks import Task
from potstill.tasks.summarization import Summarization


def way_of(task: Task, generation: GenerationSpec) -> Way:
    """How each answer is got; the settings fit the task (`spec_ways.check_way`)."""
    if generation.chain_of_density and isinstance(task, Summarization):
        return ChainOfDensity(task)
    way: Way = ChainOfThought(task) if generation.chain_of_thought else Direct(task)
    return way if generation.rationale == "discard" else WithRationale(way)
