"""Stage 3, curate: keep what is worth learning from.

In: generated/ and the held-out rows. Out: curated/{train,validation}.jsonl and curated/rejected.jsonl with the rule and the
reason for each row. No model is asked. Rows are read twice, suspects and rejected ones once more, and none is kept in memory
but the held-out ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Any

from potstill.curation import MIN_KEPT_ROWS, Curation, Diversity, Embed, Rejection
from potstill.curation.source import RowFile
from potstill.errors import JobFailedError
from potstill.inference import model_identity
from potstill.pipeline.embedding import embedding_model, opened_embedder
from potstill.pipeline.stage import Context
from potstill.rows import Row, write_jsonl, write_rows

# What rows of a split must not be learnt from.
HELD_OUT = {"train": ("validation", "test"), "validation": ("test",)}


class Curate:
    """Applies the rules of `potstill.curation`."""

    name = "curate"
    version = 3

    def inputs(self, context: Context) -> Mapping[str, Any]:
        return {
            "rows": context.digests(context.folder.rows),
            "generated": context.digests(context.folder.generated),
            "curation": context.job.curation.model_dump(mode="json", exclude={"semantic"}),
            **_embedding(context),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        diversity, folder = Diversity(context.task()), context.folder.curated
        kept: dict[str, int] = {}
        judged: dict[str, tuple[RowFile, Curation]] = {}
        with opened_embedder(context) as embed, ExitStack() as files:
            for split in HELD_OUT:
                rows = files.enter_context(closing(RowFile(context.folder.generated / f"{split}.jsonl")))
                judged[split] = rows, judge(context, split, rows, embed)
                measured = diversity if split == "train" else None
                kept[split] = write_rows(folder / f"{split}.jsonl", _kept(*judged[split], measured))
            rejected_rows = (_rejected(split, *each) for split, each in judged.items())
            write_jsonl(folder / "rejected.jsonl", chain.from_iterable(rejected_rows))
        rejected: Counter[str] = Counter()
        for _, curation in judged.values():
            rejected.update(curation.counts)
        told = ", ".join(f"{count} {rule}" for rule, count in sorted(rejected.items())) or "none"
        context.progress.say(f"kept: {kept['train']} train, {kept['validation']} validation; rejected: {told}")
        if kept["train"] < MIN_KEPT_ROWS:
            raise JobFailedError(
                f"only {kept['train']} training rows were kept, at least {MIN_KEPT_ROWS} are needed",
                where="curated/rejected.jsonl names each rejected row, the rule and the reason",
                found=f"rejected: {told}",
                hint="add rows, raise generation.max_tokens, take a better teacher, or set curation.verify: none",
            )
        return {
            "kept": kept,
            "rejected": dict(rejected),
            "noticed": {split: curation.noticed for split, (_, curation) in judged.items()},
            "diversity": diversity.figures(),
        }

    def outputs(self, context: Context) -> Iterable[Path]:
        return [context.folder.curated / name for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl")]


def _embedding(context: Context) -> dict[str, Any]:
    """The embedding model by its content, where the job names one."""
    spec, model = context.job.curation.semantic, embedding_model(context)
    return {} if spec is None or model is None else {"semantic": [dict(model_identity(model)), spec.threshold]}


def judge(context: Context, split: str, rows: RowFile, embed: Embed | None, *, watched: str | None = None) -> Curation:
    """What the rules of the job say about the generated rows of a split.

    Args:
        embed: See `opened_embedder`.
        watched: See `Curation`.

    Raises:
        JobCanceledError: the user cancelled the job.
    """
    held_out = [row for other in HELD_OUT[split] for row in context.stream(other)]
    curation = Curation(context.job.curation, context.task(), held_out, embed=embed, watched=watched)
    context.progress.begin(f"curating {split}", None)
    try:
        curation.judge(rows, context.advance)
    finally:
        context.progress.end()
    return curation


def _kept(rows: RowFile, curation: Curation, diversity: Diversity | None) -> Iterator[Row]:
    for index, row in enumerate(rows):
        kept = curation.verdict(index) is None
        if diversity is not None:
            diversity.add(row, kept=kept)
        if kept:
            yield curation.learnt(row)


def _rejected(split: str, rows: RowFile, curation: Curation) -> Iterator[Mapping[str, Any]]:
    for index, verdict in curation.rejected:
        yield Rejection(rows[index], split, verdict.rule, verdict.reason or "").as_dict()
