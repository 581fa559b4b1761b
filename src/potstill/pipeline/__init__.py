"""The stages in order, and what makes a run go on where it stopped.

`potstill.pipeline.run` holds the list; it imports what the stages need, so it is imported by name where a job is run.
"""

from __future__ import annotations
