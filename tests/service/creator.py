"""Creates jobs from a process of its own: python creator.py JOBS.json, a list of names and a job each.

Prints one line a job, with its name, as soon as it is queued.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from potstill import MLClient
from potstill.spec import JobSpec


def main() -> None:
    client = MLClient.from_config()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        created = client.jobs.create_or_update(JobSpec.model_validate(job))
        sys.stdout.write(f"{created.name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
