"""The steps, oldest first by their names."""

from __future__ import annotations
