"""How the tables came to be, one file a step; run by `potstill.service.database`."""

from __future__ import annotations
