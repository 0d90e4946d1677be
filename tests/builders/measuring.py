"""A launcher whose cost measurements take no time and can fail on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablations.config import Config
from ablations.measure.costs import NetworkCost
from ablations.training.cost import measure_costs
from tests.builders.costs import HERE
from tests.builders.searches import FormulaLauncher


class Measuring(FormulaLauncher):
    """A launcher whose cells and measurements take no time.

    Attributes:
        machine: the environment that it reports.
        failing: networks whose measurement fails.
        before: called before each measurement.
    """

    machine = HERE
    failing: frozenset[str] = frozenset()

    def __init__(self, config: Config, before: Callable[[], None] = lambda: None, **options: Any) -> None:
        super().__init__(config, **options)
        self.before = before

    def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is not measure_costs:
            return self.machine
        self.before()
        found = super().alone(function, *arguments)
        return {name: NetworkCost(failed="too large") if name in self.failing else cost for name, cost in found.items()}

    @property
    def runs(self) -> list[list[str]]:
        """The networks of each measurement, without the plain one."""
        return [names for names, _ in self.measured]
