from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from optuna.trial import TrialState
from rich.console import Console

from ablations.compose import compose_config
from ablations.config import Config
from ablations.data.images import in_memory
from ablations.design import Cell, make_design
from ablations.driver import Driver, Interrupts, StudyInterruptedError
from ablations.errors import UsageError
from ablations.events import ERROR, Failed, Progress
from ablations.job import Job
from ablations.launcher import SerialLauncher
from ablations.progress import Display
from ablations.study import StudyStore, open_store
from ablations.track import Tracker
from tests.conftest import TINY

ENVIRONMENT = {"cpu": "one"}


class Launcher(SerialLauncher):
    """The serial launcher, with something happening before a cell is trained."""

    def __init__(self, config: Config, before: Callable[[Cell], None] = lambda _: None) -> None:
        super().__init__(make_design(config), config.data)
        self.before, self.trained = before, list[str]()

    def work(self, job: Job) -> Iterator[Progress]:
        self.trained.append(job.cell.name)
        try:
            self.before(job.cell)
        except Exception:
            yield Failed(ERROR, traceback.format_exc())
            return
        yield from super().work(job)


class Study:
    """A study in a folder, driven as often as a test wants."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.config = compose_config([*TINY, "device=cpu", *overrides])
        self.design = make_design(self.config)
        self.url = f"sqlite:///{folder / 'optuna.db'}"

    @property
    def store(self) -> StudyStore:
        store = open_store(self.url, self.design.study, create=True)
        store.begin(self.design)
        return store

    def drive(self, launcher: Launcher) -> int:
        driver = Driver(self.design, self.store, None, launcher)
        missing = driver.missing()
        with Display(Console(quiet=True), 6, 6 - len(missing)) as display:
            return driver.train(missing, display) if missing else 0

    def states(self) -> list[TrialState]:
        return [cell.state for cell in self.store.cells()]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_every_cell_is_trained_once_a_replicate_after_the_other(study: Study) -> None:
    launcher = Launcher(study.config)
    assert study.drive(launcher) == 0
    assert launcher.trained == ["none r0", "groups=1 r0", "groups=4 r0", "none r1", "groups=1 r1", "groups=4 r1"]
    assert study.states() == [TrialState.COMPLETE] * 6
    again = Launcher(study.config)
    study.drive(again)
    assert again.trained == []


def test_more_replicates_train_only_what_is_new(tmp_path: Path) -> None:
    Study(tmp_path, "replicates=1").drive(Launcher(Study(tmp_path, "replicates=1").config))
    more = Study(tmp_path)
    launcher = Launcher(more.config)
    more.drive(launcher)
    assert launcher.trained == ["none r1", "groups=1 r1", "groups=4 r1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_cell_back_in_the_queue(study: Study, number: signal.Signals) -> None:
    def interrupt(cell: Cell) -> None:
        if cell.name == "groups=1 r0":
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(StudyInterruptedError) as caught:
        study.drive(Launcher(study.config, interrupt))
    assert caught.value.signal == number
    assert signal.getsignal(number) == handler
    assert study.states() == [TrialState.COMPLETE] + [TrialState.WAITING] * 5
    resumed = Launcher(study.config)
    study.drive(resumed)
    assert resumed.trained[0] == "groups=1 r0"
    assert study.states() == [TrialState.COMPLETE] * 6


def test_a_second_signal_is_not_waited_for() -> None:
    # Where the tests run in the background of a shell, SIGINT is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(study: Study) -> None:
    def fail(cell: Cell) -> None:
        if cell.name == "groups=1 r0":
            raise ValueError("planted")

    assert study.drive(Launcher(study.config, fail)) == 1
    cells = {(cell.variant, cell.replicate): cell for cell in study.store.cells()}
    failed = cells["groups=1", 0]
    assert failed.state == TrialState.FAIL
    assert failed.failure is not None
    assert failed.failure.startswith("Traceback")
    assert failed.failure.endswith("ValueError: planted\n")
    assert sum(cell.state == TrialState.COMPLETE for cell in cells.values()) == 5
    retry = Launcher(study.config)
    assert study.drive(retry) == 0
    assert retry.trained == ["groups=1 r0"]


def test_a_diverging_cell_is_recorded_as_such(tmp_path: Path) -> None:
    study = Study(tmp_path, "train.learning_rate=1000", "train.batch_size=2", "train.epochs=4", "replicates=1")
    assert study.drive(Launcher(study.config)) > 0
    reasons = [cell.failure for cell in study.store.cells() if cell.failure]
    assert reasons
    assert [reason for reason in reasons if "DivergedError: the loss is " not in reason] == []


def test_data_that_changed_under_a_study_are_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.drive(Launcher(study.config))
    more = compose_config([*TINY, "device=cpu", "replicates=3"])
    launcher = Launcher(more)
    images = launcher.images
    monkeypatch.setitem(launcher.__dict__, "images", in_memory(images.train, images.test, ("a",) * 10))
    study.design = make_design(more)
    with pytest.raises(UsageError, match=r"data=digits: has fingerprint .* add study=groups-digits-resnet8-2"):
        study.drive(launcher)
    assert launcher.trained == []


def test_what_a_dashboard_lacks_is_written_of_further_replicates_too(tmp_path: Path) -> None:
    # Those that replicates=auto has added are no part of the design of its first look.
    more = Study(tmp_path, "replicates=3", "train.epochs=1")
    more.drive(Launcher(more.config))
    first = Study(tmp_path, "replicates=1", "train.epochs=1")

    class Synced:
        def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
            self.names = [cell.name for cell, _ in finished]
            self.top1 = [outcome["result"]["top1"] for _, outcome in finished]
            self.fingerprint = fingerprint

    tracker = Synced()
    driver = Driver(first.design, first.store, cast(Tracker, tracker), Launcher(first.config))
    assert driver.missing() == []
    assert tracker.names == [cell.name for cell in more.design.cells()]
    stored = {f"{cell.variant} r{cell.replicate}": cell.outcome for cell in first.store.cells()}
    assert tracker.top1 == [(stored[name] or {})["result"]["top1"] for name in tracker.names]
    assert tracker.fingerprint == first.store.attributes["data_fingerprint"]
