"""`python -m ablations.bench`: measures the costs of a sweep's variants, as modules and as whole networks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.config import Config

PURPOSE = (
    "Measures speed, memory, complexity and energy of a sweep's variants (default: sweep=rivals), as single modules "
    "and in whole networks, without training."
)


def bench(config: Config, command: str) -> int:
    """Runs a benchmark; returns 0, 1 if nothing could be measured or a part of the report could not be made, or 130."""
    from ablations.common.process import keep_freed_memory, quiet_profiler

    keep_freed_memory()
    quiet_profiler()
    from ablations.benchmarking.runner import Ending, run_benchmark  # imports torch, which reads these settings

    ending = run_benchmark(config, command)
    statuses = {Ending.MEASURED: 0, Ending.INTERRUPTED: cli.INTERRUPTED_STATUS}
    return statuses.get(ending, 1)


if __name__ == "__main__":
    sys.exit(cli.main("bench", PURPOSE, bench, defaults=("sweep=rivals",)))
