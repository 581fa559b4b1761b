"""How long does `potstill --help` take, beside an interpreter that does nothing?

Both are started in turn, in one run on one machine; printed are the medians and their ratio. The bar: the help answers in under
0.3 s. Ten starts of each take about a second.

    python benchmarks/startup.py [--runs 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

BAR_S = 0.3
HELP = (sys.executable, "-c", "from potstill.cli import main; main()", "--help")
NOTHING = (sys.executable, "-c", "pass")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    seconds_of(HELP), seconds_of(NOTHING)  # the first start reads from disk and writes byte code
    measured = [(seconds_of(HELP), seconds_of(NOTHING)) for _ in range(runs)]
    help_s, nothing_s = (statistics.median(arm) for arm in zip(*measured, strict=True))
    print(f"potstill --help  {help_s:.3f} s   python -c pass  {nothing_s:.3f} s   ratio {help_s / nothing_s:.1f}")
    print(f"under {BAR_S} s" if help_s < BAR_S else f"NOT UNDER {BAR_S} s")
    return 0 if help_s < BAR_S else 1


def seconds_of(command: Sequence[str]) -> float:
    """Wall time of a command from start to end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
