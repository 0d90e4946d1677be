from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from ablations.config import Config
from ablations.design import make_design
from ablations.design.variants import Variant
from ablations.execution import estimate
from ablations.execution.estimate import StudyCost, estimate_costs
from ablations.training.events import Probe
from tests.builders.driven import DrivenStudy
from tests.builders.several import Several
from tests.conftest import TINY
from tests.wording import worded

PROBE = Probe(seconds=10.0, low=8.0, high=15.0, peak_memory_mib=12.0, parameters=10)
NOTHING = pd.DataFrame({"variant": [], "peak_memory_mib": []})


class Probed(Several):
    """A launcher with a capacity, whose cells all have the same cost."""

    def __init__(self, config: Config, capacity: int) -> None:
        super().__init__(make_design(config), config.data)
        self.hold(capacity)

    def probe(self, variants: Sequence[Variant], seconds: float) -> Mapping[str, Probe | str]:
        del seconds
        return {variant.name: PROBE for variant in variants}


def cost_of(study: DrivenStudy, launcher: Probed) -> StudyCost:
    return estimate_costs(study.schedule(study.store).outlook(), NOTHING, launcher, 0.0, {})


@pytest.mark.parametrize(("capacity", "rounds"), [(1, 6), (2, 3), (4, 2), (5, 2), (6, 1), (100, 1)])
def test_parallel_cells_take_whole_rounds_of_time(tmp_path: Path, capacity: int, rounds: int) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    cost = cost_of(study, Probed(study.config, capacity))
    assert (cost.seconds, cost.low, cost.high) == pytest.approx((10.0 * rounds, 8.0 * rounds, 15.0 * rounds))


@pytest.mark.parametrize(
    ("cores", "capacity", "others", "is_local", "busy"),
    [
        (2, 2, 1.3, True, 1.3),
        (2, 2, 0.1, True, 0.0),  # the background load of any machine
        (2, 1, 0.9, True, 0.0),  # load on the other core
        (8, 2, 3.0, True, 0.0),
        (8, 7, 3.0, True, 3.0),
        (2, 2, 1.3, False, 0.0),  # cells are trained on other machines
        (2, 2, math.nan, True, 0.0),
    ],
)
def test_competing_processes_are_mentioned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    capacity: int,
    others: float,
    is_local: bool,
    busy: float,
) -> None:
    monkeypatch.setattr(estimate, "allowed_cores", lambda: list(range(cores)))
    monkeypatch.setattr(estimate.LoadMeter, "cores_of_others", lambda _: others)
    study = DrivenStudy(tmp_path, *TINY)
    launcher = Probed(study.config, capacity)
    launcher.is_local = is_local
    cost = cost_of(study, launcher)
    assert cost.busy == busy
    load = worded("launcher.busy", number=busy, cores=cores)
    assert cost.sentence.endswith(f" in addition to the images{load if busy else ''}.")


def test_the_launcher_gets_the_number_of_cells_and_the_maximum_measured_memory(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    launcher = Probed(study.config, 2)
    cost_of(study, launcher)
    assert launcher.cells == 6
    assert math.isnan(launcher.peak_mib)
    memory = {"none": 20.0, "groups=1": 30.0, "groups=4": math.nan}
    estimate_costs(study.schedule(study.store).outlook(), NOTHING, launcher, 0.0, memory)
    assert launcher.peak_mib == 30.0
