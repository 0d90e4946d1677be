from __future__ import annotations

from pathlib import Path

import pytest

from ablations.data import device, load_data
from ablations.execution.launchers import together
from ablations.execution.launchers.local import LocalLauncher
from ablations.execution.launchers.together import Rate, best_number, measure_rates
from tests.builders.driven import DrivenStudy
from tests.conftest import TINY


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ([], 1),
        ([10.0], 1),
        ([10.0, 10.2], 1),  # the gain does not justify the memory
        ([10.0, 19.0, 30.0, 31.0], 4),
        ([10.0, 18.0, 17.0], 2),
    ],
)
def test_the_smallest_number_of_cells_close_to_the_highest_rate_is_selected(rates: list[float], best: int) -> None:
    assert best_number([Rate(2**place, rate) for place, rate in enumerate(rates)]) == best


def rates_of(folder: Path) -> list[Rate]:
    """Measures the rates of a variant in this process."""
    study = DrivenStudy(folder, *TINY)
    launcher = LocalLauncher(study.design, study.config.data)
    data = load_data(study.config.data, study.design.validation)
    return measure_rates(launcher.probe_task(study.design.variants[1], 0.0), lambda: data, launcher.place)


def test_the_measurement_ends_when_more_cells_gain_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gains = iter([10.0, 18.0, 19.0, 100.0])
    monkeypatch.setattr(together, "rate_of", lambda *_: next(gains))
    assert rates_of(tmp_path) == [Rate(1, 10.0), Rate(2, 18.0), Rate(4, 19.0)]


def test_cells_that_would_not_fit_into_memory_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([1000, 800, 700, 500, 450])  # at first, then after 1, 2 and 4 cells, which use 500 of 1000
    left = [1000]

    def free_bytes(_: object) -> int:
        left[0] = next(free, left[0])
        return left[0]

    monkeypatch.setattr(device, "free_bytes", free_bytes)
    monkeypatch.setattr(together, "rate_of", lambda cells, *_: float(len(cells)))
    assert [rate.cells for rate in rates_of(tmp_path)] == [1, 2, 4]


def test_steps_of_real_cells_are_counted(tmp_path: Path) -> None:
    first, *_ = rates_of(tmp_path)
    assert first.cells == 1
    assert first.steps_per_second > 0
