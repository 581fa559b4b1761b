"""Names for teachers and students: what a model reference of a job file leads to, without asking the network."""

from potstill.catalog.entry import CatalogEntry
from potstill.catalog.lookup import entries, resolve, resolve_teachers
from potstill.catalog.model import Price, ResolvedModel
from potstill.catalog.terms import Terms, terms_of

__all__ = ["CatalogEntry", "Price", "ResolvedModel", "Terms", "entries", "resolve", "resolve_teachers", "terms_of"]
