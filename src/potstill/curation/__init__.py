"""Which answered rows are kept, and why others are not."""

from __future__ import annotations

from potstill.curation.curate import MIN_KEPT_ROWS, Curated, Curation, Rejection, Verdict, curate
from potstill.curation.diversity import Diversity
from potstill.curation.semantic import Embed

__all__ = ["MIN_KEPT_ROWS", "Curated", "Curation", "Diversity", "Embed", "Rejection", "Verdict", "curate"]
