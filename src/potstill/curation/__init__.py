"""Which answered rows are kept, and why others are not."""

from __future__ import annotations

from potstill.curation.curate import MIN_KEPT_ROWS, Curated, Rejection, curate

__all__ = ["MIN_KEPT_ROWS", "Curated", "Rejection", "curate"]
