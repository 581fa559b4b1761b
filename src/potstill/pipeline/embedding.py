"""The embedding model that a job's curation names, opened: its journal is the run's, and so is its budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from potstill.catalog import ResolvedModel, resolve
from potstill.curation import Embed
from potstill.inference.account import Account
from potstill.inference.budget import Ledger
from potstill.inference.embeddings import open_embedder
from potstill.pipeline.asking import budget_of
from potstill.pipeline.stage import Context


@contextmanager
def opened_embedder(context: Context) -> Iterator[Embed | None]:
    """What turns texts into vectors, closed at the end; None where the job names no model for it.

    Raises:
        InputError: a key, a file or an extra is missing, or the model cannot be opened.
    """
    model = embedding_model(context)
    if model is None:
        yield None
        return
    journals = context.folder.journal
    ledger = Ledger.of_run(journals, budget_of(context.job.generation), model.price)
    with open_embedder(model, journals / "embeddings", Account.of(model, ledger)) as embedder:
        yield embedder.embed


def embedding_model(context: Context) -> ResolvedModel | None:
    """Where the model is that the job names."""
    spec = context.job.curation.semantic
    return None if spec is None else resolve(spec)
