"""`python -m ablations.plan`: says before a study what it will cost, and which differences it will detect."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

PURPOSE = "Checks all cells of a study, estimates their cost, and reports the minimum detectable effect."


def plan(config: Config, command: str) -> int:
    """Plans a study; returns 0, or what its pilot returned where that did not end well."""
    from ablations.common.console import make_console
    from ablations.execution.forecast import StudyForecast

    return StudyForecast(config, command, make_console()).plan()


def plan_several(multiverse: Multiverse) -> int:
    """Plans the studies of several protocols; returns as `plan`."""
    from ablations.common.console import make_console
    from ablations.execution.multiverse import MultiverseRunner

    return MultiverseRunner(multiverse, make_console()).plan()


if __name__ == "__main__":
    sys.exit(cli.main("plan", PURPOSE, plan, act_on_several=plan_several))
