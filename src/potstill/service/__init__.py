"""Jobs that run on their own, and the models they leave: a database as an index over run folders, a queue a machine, and the
client whose names are those of the Azure ML SDK.

Imported by name (`potstill.service.client`), because each part needs libraries of its own.
"""

from __future__ import annotations
