"""Overhead of the suite: `pytest -s tests/benchmarks/test_suite.py` prints it.

Limits: 150 ms per cell, 5 s for `analyze` with 1,000 cells. They are not asserted, as times depend on the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ablations import cli
from ablations.execution.launchers.serial import SerialLauncher
from ablations.run import PURPOSE, run
from ablations.training.events import Epoch, Finished, Progress
from ablations.training.job import Job
from ablations.training.train import Result

LIMIT = 150  # ms per cell
ENVIRONMENT = {"cpu": "a processor", "gpu": "none", "commit": "0" * 40}
RESULT = Result(
    top1=90.0, test_loss=0.4, parameters=75_000, seconds=9.0,
    epochs=tuple(Epoch(i, 1.0, 1.0, 80.0 + i, 0.1, 1.0, 1e9 + i) for i in range(6)),
)  # fmt: skip

RunStudy = Callable[..., list[tuple[float, float]]]


@pytest.fixture(scope="module")
def run_study() -> Iterator[RunStudy]:
    """Runs a study whose cells take no time; returns wall-clock and processor time at the start of each."""
    begun: list[tuple[float, float]] = []

    def work(_: SerialLauncher, job: Job) -> Iterator[Progress]:
        begun.append((time.perf_counter(), time.process_time()))
        yield from RESULT.epochs
        yield Finished(replace(RESULT, top1=90 + job.cell.seed % 100 / 25).to_dict(), ENVIRONMENT)

    def run_in(folder: Path, *overrides: str) -> list[tuple[float, float]]:
        begun.clear()
        typed = ["device=cpu", "data.train_images=64", "measure=off", *overrides, f"results_dir={folder}"]
        assert cli.main("run", PURPOSE, run, typed) == 0
        return list(begun)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SerialLauncher, "work", work)
        yield run_in


@pytest.mark.parametrize("tracked", ["true", "false"])
def test_overhead_of_the_suite_per_cell(
    run_study: RunStudy, tracked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measures from the start of a cell to that of the next one; studies and SQLite stores are created before."""
    studies = [
        run_study(tmp_path, "replicates=10", f"tracking.enabled={tracked}", f"study=study{number}")
        for number in range(3)
    ]
    assert [len(begun) for begun in studies] == [50] * 3
    # (studies, 49, wall clock and processor); on a busy machine the processor time is more informative.
    differences = 1000 * np.diff(studies, axis=1)
    with capsys.disabled():
        for name, milliseconds in zip(("clock", "processor"), np.moveaxis(differences, 2, 0), strict=True):
            means = ", ".join(f"{mean:.0f}" for mean in milliseconds.mean(axis=1))
            print(
                f"\n50 instant cells, tracking.enabled={tracked}, {name}: {means} ms per cell in three studies, "
                f"median {np.median(milliseconds):.0f} ms; limit {LIMIT} ms",
                end="",
            )


@pytest.fixture(scope="module")
def thousand(run_study: RunStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thousand")
    run_study(folder, "replicates=200", "tracking.enabled=false")
    return folder


def test_analyze_a_thousand_cells(benchmark: BenchmarkFixture, thousand: Path) -> None:
    command = [sys.executable, "-m", "ablations.analyze", "device=cpu", "replicates=200", "data.train_images=64",
               f"results_dir={thousand}"]  # fmt: skip
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=3, warmup_rounds=1)


def test_help(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "ablations.run", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5, warmup_rounds=1)
