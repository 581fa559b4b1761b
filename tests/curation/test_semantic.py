"""Rows that mean the same, as an embedding model tells it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from embeddings_endpoint import vector
from potstill.curation import curate
from potstill.curation.curate import Curation
from potstill.curation.semantic import SemanticDuplicate
from potstill.rows import Row
from potstill.spec import CurationSpec, SemanticSpec
from potstill.tasks import Task, get_task

Make = Callable[..., Row]
Said = Callable[..., list[str | None]]
SAME = ("Where is my package?", "Whereabouts is the parcel?")


def embed(texts: Sequence[str]) -> np.ndarray:
    vectors = np.array([vector(text) for text in texts], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_of_rows_that_mean_the_same_the_first_stays(text: Task, generated: Make, said: Said) -> None:
    rows = [generated(SAME[0], id="first"), generated("Who won the cup?"), generated(SAME[1], id="second")]
    rule = SemanticDuplicate(text, embed, 0.95)
    assert rule.name == "semantic_duplicate"
    assert said(rule, rows, text) == [None, None, "means the same as row first (similarity 1.00)"]
    assert said(SemanticDuplicate(text, embed, 0.95), [rows[0], generated(SAME[1], system="Be rude.")], text) == [None, None]


def test_every_part_of_a_prompt_has_to_mean_the_same(said: Said) -> None:
    task, context = get_task("qa"), "The parcel left the house on Monday and came on Friday"
    asked = [(context, "Where is my package?"), (context, "Who sent it?"), (context, "Where is the parcel?"), (None, SAME[0])]
    rows = [
        task.row({"question": question, "id": f"{number}", **({"context": context} if context else {})})
        for number, (context, question) in enumerate(asked)
    ]
    reasons = said(SemanticDuplicate(task, embed, 0.95), rows, task)
    assert [reason is not None for reason in reasons] == [False, False, True, False]


def test_numbers_tell_problems_apart_in_mathematics(generated: Make, said: Said) -> None:
    task = get_task("math")
    rows = [generated(f"{question} 12", id=question) for question in SAME]
    other = generated(f"{SAME[0]} 13", id="13")
    assert said(SemanticDuplicate(task, lambda texts: np.ones((len(texts), 1), np.float32), 0.9), [*rows, other], task) == [
        None, "means the same as row Where is my package? (similarity 1.00)", None,
    ]


def test_pairs_are_found_across_blocks_and_batches(text: Task, generated: Make) -> None:
    count = 2 * SemanticDuplicate.BLOCK + 50
    directions = np.random.default_rng(0).standard_normal((count, 32)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[-1], directions[1500] = directions[3], directions[700]
    rows = [generated(f"row {number}", id=str(number)) for number in range(count)]
    place = {row.messages[0].content: number for number, row in enumerate(rows)}
    spec = CurationSpec(deduplicate="none", language="any", length="any", semantic=SemanticSpec(model="e", threshold=0.99))
    curation = Curation(spec, text, [], embed=lambda texts: directions[[place[given] for given in texts]])
    curation.judge(rows)
    assert [(index, verdict.rule) for index, verdict in curation.rejected] == [
        (1500, "semantic_duplicate"), (count - 1, "semantic_duplicate")
    ]


def test_of_hundreds_that_mean_the_same_one_stays(text: Task, generated: Make, said: Said) -> None:
    rows = [generated(f"{n}", id=str(n)) for n in range(300)]
    reasons = said(SemanticDuplicate(text, lambda texts: np.ones((len(texts), 1), np.float32), 0.9), rows, text)
    assert reasons[0] is None
    assert None not in reasons[1:]


def test_without_a_model_nothing_is_asked(text: Task, generated: Make) -> None:
    rows = [generated(question, id=question) for question in SAME]
    assert curate(rows, split="train", spec=CurationSpec(), task=text, held_out=[]).kept == rows


@pytest.mark.parametrize("value", [{"model": "e", "engine": "vllm"}, {"path": "e.gguf"}, {"model": "e", "batch": True}])
def test_what_cannot_embed_is_refused_at_the_job_files_reading(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="an embedding model"):
        CurationSpec.model_validate({"semantic": value})
