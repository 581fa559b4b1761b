"""Write a student in the formats that small machines run, and verify what was written."""

from __future__ import annotations

from potstill.exporting.verify import Comparison, verify_export

__all__ = ["Comparison", "verify_export"]
