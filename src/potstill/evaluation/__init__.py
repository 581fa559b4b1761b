"""How good and how costly a model is: every model of a report is asked the same test rows in a process of its own.

`run_worker` measures one model, `build_report` makes report.json of what the workers wrote. Both live in modules that are
imported by name (`potstill.evaluation.process`, `potstill.evaluation.report`), so that this package costs nothing to import.
"""

from __future__ import annotations
