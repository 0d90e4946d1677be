"""What the suite itself costs: `pytest tests/benchmarks`. Budgets: 100 ms a cell, 5 s for `analyze` on 1,000 cells.

Nothing here is asserted: times belong to the machine that they were taken on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.execution.driver import Driver
from ablations.execution.launchers.serial import SerialLauncher
from ablations.execution.progress import Display, make_console
from ablations.storage.study import open_store
from ablations.tracking.tracker import Tracker
from ablations.training.cost import Cost
from ablations.training.events import Epoch, Finished, Progress
from ablations.training.job import Job
from ablations.training.train import Result

ENVIRONMENT = {"cpu": "a processor", "gpu": "none", "commit": "0" * 40}
RESULT = Result(
    top1=90.0, test_loss=0.4, cost=Cost(75_000, 12.0, 900.0, 3000.0, 1.2, 1.3), seconds=9.0,
    epochs=tuple(Epoch(i, 1.0, 1.0, 80.0 + i, 0.1, 1.0, 1e9 + i) for i in range(6)),
)  # fmt: skip


class InstantLauncher(SerialLauncher):
    """Trains nothing, so that what is left is the suite's own work."""

    def work(self, job: Job) -> Iterator[Progress]:
        yield from RESULT.epochs
        yield Finished(replace(RESULT, top1=90 + job.cell.seed % 100 / 25).to_dict(), ENVIRONMENT)


def run_study(design: Design, folder: Path, *, tracked: bool) -> None:
    config = compose_config([])
    store = open_store(f"sqlite:///{folder / 'optuna.db'}", design.study, create=True)
    store.begin(design)
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", design, store.id, folder / "artifacts") if tracked else None
    driver = Driver(design, store, tracker, InstantLauncher(design, config.data))
    missing = driver.missing()
    with Display(make_console(), len(missing), 0) as display:
        driver.train(missing, display)
    if tracker:
        tracker.end("FINISHED")


def test_fifty_cells_that_train_nothing(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Everything but training: read a fiftieth of it as the cost of a cell (stores and data set made beforehand)."""
    design = make_design(compose_config(["device=cpu", "replicates=10", "data.train_images=64"]))
    run_study(replace(design, study="warm", replicates=1), tmp_path, tracked=True)
    numbers = count()

    def run() -> None:
        run_study(replace(design, study=f"study{next(numbers)}"), tmp_path, tracked=True)

    benchmark.pedantic(run, rounds=3, iterations=1)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thousand")
    design = make_design(compose_config(["device=cpu", "replicates=200"]))
    run_study(design, folder, tracked=False)
    return folder


def test_analyze_a_thousand_cells(benchmark: BenchmarkFixture, thousand: Path) -> None:
    command = [sys.executable, "-m", "ablations.analyze", "device=cpu", f"results_dir={thousand}"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=3, warmup_rounds=1)


def test_help(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "ablations.run", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5, warmup_rounds=1)
