"""Curation's own settings: whether rows have what they are balanced by, and whether the embedding model can be asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from potstill.catalog import resolve
from potstill.errors import InputError, MissingExtraError
from potstill.inference.account import Account
from potstill.inference.budget import Ledger
from potstill.inference.embeddings import open_embedder
from potstill.pipeline.checks.models import look_at_model
from potstill.pipeline.checks.seen import Seen, Told


def look_at_balance(seen: Seen) -> Iterator[Told]:
    """Groups there are: labels for tasks that have them, else a field of the rows."""
    spec, task = seen.job.curation.balance, seen.task
    if spec is None:
        return
    rows, where = seen.splits["train"], "key 'curation.balance' of the job file"
    if spec.by == "label":
        if not any(task.choices(row) for row in rows):
            raise InputError(f"rows of {task.name} have no label to be balanced by", where=where,
                             expected="the name of a field of the rows, such as balance: topic")
        yield f"no label has more than {spec.ratio:g} times the rows of another"
        return
    having = sum(row.meta.get(spec.by) is not None for row in rows)
    if not having:
        fields = sorted({name for row in rows for name in row.meta})
        raise InputError(f"no row has the field '{spec.by}' to be balanced by", where=where,
                         found=f"the fields {', '.join(fields)}" if fields else "no other fields")
    groups = len({str(row.meta[spec.by]) for row in rows if row.meta.get(spec.by) is not None})
    yield f"by '{spec.by}': {groups} groups, in {having} of {len(rows)} rows"


def look_at_embeddings(seen: Seen) -> Iterator[Told]:
    """The embedding model, its files and its key."""
    spec = seen.job.curation.semantic
    if spec is None:
        return
    model = resolve(spec)
    if model.kind == "gguf":
        raise InputError("a GGUF file is asked for no embeddings", found=model.name,
                         expected="a folder in the hub's layout, a hub id, or an endpoint")
    if model.kind == "folder":
        if not (Path(str(model.path)) / "config.json").is_file():
            expected = "a config.json, a tokenizer and weights"
            raise InputError("this folder holds no model", found=str(model.path), expected=expected)
        yield f"{model.name}: a folder on this machine"
    else:
        yield from look_at_model(model)
    if model.kind != "endpoint" and find_spec("torch") is None:
        raise MissingExtraError("train", "torch")


def look_at_embeddings_endpoint(seen: Seen) -> Iterator[Told]:
    """Ask it for one vector."""
    spec = seen.job.curation.semantic
    if spec is None or resolve(spec).kind != "endpoint":
        return
    model = resolve(spec)
    with tempfile.TemporaryDirectory() as folder, open_embedder(model, Path(folder), Account.of(model, Ledger())) as embedder:
        yield f"answered, with {embedder.embed(['Where is my order?']).shape[1]} dimensions"
