"""`python -m ablations.plan`: estimates the cost of a study and its minimum detectable effect before it is run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

PURPOSE = "Checks all cells of a study, estimates their cost, and reports the minimum detectable effect."


def plan(config: Config, command: str) -> int:
    """Plans a study; returns 0, or the exit status of its pilot study if that failed."""
    from ablations.common.console import make_console
    from ablations.execution.forecast import StudyForecast

    return StudyForecast(config, command, make_console()).plan()


def plan_several(multiverse: Multiverse) -> int:
    """Plans the studies of several protocols; returns the same statuses as `plan`."""
    from ablations.common.console import make_console
    from ablations.execution.multiverse import MultiverseRunner

    return MultiverseRunner(multiverse, make_console()).plan()


if __name__ == "__main__":
    sys.exit(cli.main("plan", PURPOSE, plan, act_on_several=plan_several))
