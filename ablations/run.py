"""`python -m ablations.run`: trains every cell of a study that has no result yet, then reports."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

PURPOSE = "Trains all cells of a study that have no result yet, and reports. Resumes an interrupted study."


def run(config: Config, command: str) -> int:
    """Runs a study; returns 0 when all its cells have an outcome, 1 when some failed, 128 + n after signal n."""
    from ablations.common.console import make_console
    from ablations.execution.runner import StudyRunner

    return StudyRunner(config, command, make_console()).run()


def run_several(multiverse: Multiverse) -> int:
    """Runs the studies of several protocols; returns the same statuses as `run`, and 2 when none could be run."""
    from ablations.common.console import make_console
    from ablations.execution.multiverse import MultiverseRunner

    return MultiverseRunner(multiverse, make_console()).run()


if __name__ == "__main__":
    sys.exit(cli.main("run", PURPOSE, run, act_on_several=run_several))
