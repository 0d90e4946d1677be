"""Helpers for tests of launchers with worker processes: interrupted studies, and results without times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console

from ablations.config import LauncherConfig
from ablations.execution.launchers import make_launcher
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import Display
from ablations.execution.schedules.base import Schedule
from ablations.storage.cell_states import CellState
from ablations.storage.files import Checkpoints, PredictionFiles
from ablations.storage.study import StudyStore
from ablations.training.events import Failed, Finished, Progress
from ablations.training.job import Job
from tests.builders.driven import CutShort, DrivenStudy

Answer = TypeVar("Answer")

CLOCK = {"seconds", "finished"}  # keys of times in results
# Cells that are long enough to be interrupted.
LONG = ("train.epochs=40", "data.train_images=64", "sweep.factors.attention.groups=[4]", "replicates=1")


def launcher_of(study: DrivenStudy, chosen: LauncherConfig) -> closing[Launcher]:
    """Returns a launcher for a study with one thread per cell, as a context manager that closes it."""
    config = replace(study.config, launcher=chosen, threads=1)
    return closing(make_launcher(config, study.design, Console(quiet=True)))


def timeless(value: Any) -> Any:
    """Returns a result without its times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in CLOCK}
    return [timeless(item) for item in value] if isinstance(value, (list, tuple)) else value


def results(store: StudyStore) -> dict[str, Any]:
    """Returns the results of the finished cells by name."""
    return {
        f"{cell.variant} r{cell.replicate}": timeless(cell.outcome["result"])
        for cell in store.cells()
        if cell.outcome and cell.state == CellState.FINISHED
    }


def outcomes(folder: Path, chosen: LauncherConfig, *overrides: str) -> tuple[DrivenStudy, dict[str, bytes]]:
    """Trains a study in a folder; returns it and its prediction files by name."""
    folder.mkdir()
    study = DrivenStudy(folder, *overrides)
    with launcher_of(study, chosen) as launcher:
        assert study.drive(launcher, predictions=PredictionFiles(folder / "predictions", "all")).failed == 0
    return study, {path.name: path.read_bytes() for path in (folder / "predictions").iterdir()}


def progress_of(launcher: Launcher, job: Job) -> list[tuple[float, Progress]]:
    """Trains a cell; returns its events with their times of arrival."""
    launcher.start(job)
    events: list[tuple[float, Progress]] = []
    while not events or not isinstance(events[-1][1], (Finished, Failed)):
        events += [(time.monotonic(), event) for _, event in launcher.events()]
    return events


class Striking(Display):
    """A display that calls `strike` after the first epoch."""

    strike: Callable[[str], None] | None = None

    def epoch(self, name: str, top1: float | None) -> None:
        super().epoch(name, top1)
        if self.strike:
            strike, self.strike = self.strike, None
            strike(name)


def drive_and_strike(study: DrivenStudy, launcher: Launcher, strike: Callable[[str], None], **options: Any) -> int:
    """Drives a study and calls `strike` in the middle of a cell; returns the number of failed cells."""

    def make_display(console: Console, total: int, finished: int) -> Display:
        display = Striking(console, total, finished)
        display.strike = strike
        return display

    checkpoints = Checkpoints(study.folder / "checkpoints")
    failed = study.drive(launcher, checkpoints=checkpoints, make_display=make_display, **options).failed
    assert failed or not checkpoints.folder.exists()
    return failed


class PrunedStudy(DrivenStudy):
    """A study whose variant groups=4 is pruned after its first epoch."""

    def schedule(self, store: StudyStore) -> Schedule:
        class StopsOneVariant(CutShort):
            def reason_to_stop(self, cell: Any, epochs: Any) -> str | None:
                del epochs
                return "planted" if cell.variant.name == "groups=4" else None

        return StopsOneVariant(super().schedule(store), lambda cells: cells)


def children() -> set[int]:
    """Returns the ids of all descendants of this process."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def answers(
    processes: Iterable[psutil.Process], ask: Callable[[psutil.Process], Answer]
) -> list[tuple[psutil.Process, Answer]]:
    """Returns each process with the result of `ask`, without processes that have ended in the meantime."""
    found = []
    for process in processes:
        try:
            found.append((process, ask(process)))
        except psutil.Error:
            continue
    return found


def fork_servers(driver: psutil.Process) -> list[psutil.Process]:
    """Returns the fork server of a driver's workers, if there is one."""
    lines = answers(driver.children(), lambda process: " ".join(process.cmdline()))
    return [process for process, line in lines if "multiprocessing.forkserver" in line]


def forked(driver: psutil.Process) -> list[psutil.Process]:
    """Returns the workers of a driver, which are children of its fork server."""
    return [worker for _, workers in answers(fork_servers(driver), psutil.Process.children) for worker in workers]


def ray_workers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Returns the processes in which Ray trains cells."""
    return [process for process, name in answers(processes, psutil.Process.name) if name.startswith("ray::train_job")]


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended; a zombie has ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
