"""Stage 3, curate: keep what is worth learning from.

In: generated/ and the held-out rows. Out: curated/{train,validation}.jsonl and curated/rejected.jsonl with the rule and the
reason for each row. No model is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from potstill.curation import MIN_KEPT_ROWS, curate
from potstill.errors import JobFailedError
from potstill.pipeline.stage import SPLITS, Context
from potstill.rows import read_rows, write_jsonl, write_rows


class Curate:
    """Applies the rules of `potstill.curation`."""

    name = "curate"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        return {
            "rows": context.digests(context.folder.rows),
            "generated": context.digests(context.folder.generated),
            "curation": context.job.curation.model_dump(mode="json"),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        task, spec, folder = context.task(), context.job.curation, context.folder
        rows = {split: context.rows(split) for split in SPLITS}
        held_out = {"train": rows["validation"] + rows["test"], "validation": rows["test"]}
        kept: dict[str, int] = {}
        rejected = []
        for split, others in held_out.items():
            generated = list(read_rows(folder.generated / f"{split}.jsonl"))
            result = curate(generated, split=split, spec=spec, task=task, held_out=others)
            kept[split] = write_rows(folder.curated / f"{split}.jsonl", result.kept)
            rejected.extend(result.rejected)
        write_jsonl(folder.curated / "rejected.jsonl", (rejection.as_dict() for rejection in rejected))
        counts = dict(Counter(rejection.rule for rejection in rejected))
        told = ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items())) or "none"
        context.progress.say(f"kept: {kept['train']} train, {kept['validation']} validation; rejected: {told}")
        if kept["train"] < MIN_KEPT_ROWS:
            raise JobFailedError(
                f"only {kept['train']} training rows were kept, at least {MIN_KEPT_ROWS} are needed",
                where="curated/rejected.jsonl names each rejected row, the rule and the reason",
                found=f"rejected: {told}",
                hint="add rows, raise generation.max_tokens, take a better teacher, or set curation.verify: none",
            )
        return {"kept": kept, "rejected": counts}

    def outputs(self, context: Context) -> Iterable[Path]:
        return [context.folder.curated / name for name in ("train.jsonl", "validation.jsonl", "rejected.jsonl")]
