from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.data.images import in_memory
from ablations.data.splits import FixedData
from ablations.design import Cell, make_design
from ablations.execution.interrupts import Interrupts, StudyInterruptedError
from ablations.storage.cell_states import CellState
from ablations.storage.errors import StorageError
from ablations.storage.files import Checkpoints
from ablations.tracking.base import StudyMirror
from ablations.training.events import (
    DIVERGED,
    ERROR,
    LOST,
    OUT_OF_MEMORY,
    TIME_LIMIT,
    Epoch,
    Failed,
    Finished,
    Progress,
    Saved,
    Step,
)
from ablations.training.job import Job
from ablations.training.train import Result
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher
from tests.builders.several import Several
from tests.conftest import DIVERGING, TINY
from tests.wording import refusal, worded

ROOT = Path(__file__).parents[3]


@pytest.fixture
def study(tmp_path: Path) -> DrivenStudy:
    return DrivenStudy(tmp_path, *TINY)


def states(study: DrivenStudy) -> list[CellState]:
    return [cell.state for cell in study.store.cells()]


def test_every_cell_is_trained_once_in_the_order_of_replicates(study: DrivenStudy) -> None:
    launcher = Launcher(study.config)
    assert study.drive(launcher).failed == 0
    assert launcher.trained == ["none r0", "groups=1 r0", "groups=4 r0", "none r1", "groups=1 r1", "groups=4 r1"]
    assert states(study) == [CellState.FINISHED] * 6
    again = Launcher(study.config)
    study.drive(again)
    assert again.trained == []


def test_more_replicates_train_only_new_cells(tmp_path: Path) -> None:
    less = DrivenStudy(tmp_path, *TINY, "replicates=1")
    less.drive(Launcher(less.config))
    more = DrivenStudy(tmp_path, *TINY)
    launcher = Launcher(more.config)
    more.drive(launcher)
    assert launcher.trained == ["none r1", "groups=1 r1", "groups=4 r1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_the_next_run_starts_with_the_interrupted_cell(
    study: DrivenStudy, number: signal.Signals
) -> None:
    def interrupt(cell: Cell) -> None:
        if cell.name == "groups=1 r0":
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(StudyInterruptedError) as caught:
        study.drive(Launcher(study.config, interrupt))
    assert caught.value.signal == number
    assert signal.getsignal(number) == handler
    assert states(study) == [CellState.FINISHED, CellState.INTERRUPTED]
    resumed = Launcher(study.config)
    study.drive(resumed)
    assert resumed.trained[0] == "groups=1 r0"
    assert states(study) == [CellState.FINISHED] * 6


def test_a_second_signal_ends_the_process_immediately() -> None:
    # If the tests run in the background of a shell, SIGINT is initially ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_failed_cell_is_recorded_and_the_others_continue(study: DrivenStudy) -> None:
    def fail(cell: Cell) -> None:
        if cell.name == "groups=1 r0":
            raise ValueError("planted")

    assert study.drive(Launcher(study.config, fail)).failed == 1
    cells = {(cell.variant, cell.replicate): cell for cell in study.store.cells()}
    failed = cells["groups=1", 0]
    assert failed.state == CellState.FAILED
    assert failed.failure is not None
    assert failed.failure.startswith("Traceback")
    assert failed.failure.endswith("ValueError: planted\n")
    assert sum(cell.state == CellState.FINISHED for cell in cells.values()) == 5
    retry = Launcher(study.config)
    assert study.drive(retry).failed == 0
    assert retry.trained == ["groups=1 r0"]


def test_a_diverged_cell_is_recorded_as_such_and_not_repeated(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, *DIVERGING, "replicates=1")
    launcher = Launcher(study.config)
    driver = study.drive(launcher)
    assert driver.failed == 0
    cells = study.store.cells()
    assert driver.diverged == len(cells) == 3
    for cell in cells:
        assert cell.state is CellState.DIVERGED
        assert cell.failure == worded("train.diverged", loss="nan", where="training, in epoch 1")
    again = Launcher(study.config)
    assert study.drive(again).failed == 0
    assert again.trained == []


class Workers(Several):
    """Several parallel cells with events given by a test.

    `words` has for each cell's name the events of each attempt; further attempts finish.
    """

    def __init__(self, config: Config, capacity: int, words: Mapping[str, Sequence[Sequence[Progress]]]) -> None:
        super().__init__(make_design(config), config.data)
        self.hold(capacity)
        self.words = words
        self.jobs: list[Job] = []

    def work(self, job: Job) -> Iterator[Progress]:
        attempt = len(self.attempts(job.cell.name))
        self.jobs.append(job)
        planned = self.words.get(job.cell.name, ())
        return iter(planned[attempt] if attempt < len(planned) else [*EPOCHS, FINISHED])

    def attempts(self, name: str) -> list[Job]:
        return [job for job in self.jobs if job.cell.name == name]


EPOCHS = [Step(1, 4), Epoch(0, 1.0, 1.0, 40.0, 0.1, 1.0, 1e9), Epoch(1, 1.0, 1.0, 50.0, 0.1, 1.0, 1e9 + 1)]
FINISHED = Finished(Result(50.0, 1.0, 10, 1.0, tuple(EPOCHS[1:])).to_dict(), {"cpu": "one"})  # type: ignore[arg-type]
TOO_MUCH = Failed(OUT_OF_MEMORY, "Traceback\nRuntimeError: CUDA out of memory")
GONE = Failed(LOST, "The worker died.")


def outcomes(study: DrivenStudy) -> dict[str, dict[str, Any]]:
    return {f"{cell.variant} r{cell.replicate}": cell.outcome or {} for cell in study.store.cells()}


@pytest.mark.parametrize("capacity", [1, 2, 4, 100])
def test_a_launcher_gets_as_many_cells_as_its_capacity_and_each_once(study: DrivenStudy, capacity: int) -> None:
    launcher = Workers(study.config, capacity, {})
    assert study.drive(launcher).failed == 0
    assert launcher.most == min(capacity, 6)
    assert sorted(job.cell.name for job in launcher.jobs) == sorted(cell.name for cell in study.design.cells())
    assert states(study) == [CellState.FINISHED] * 6
    at_once = {outcome["environment"].get("cells at once") for outcome in outcomes(study).values()}
    assert at_once == {None if capacity == 1 else str(capacity)}


def test_a_cell_that_runs_out_of_memory_is_repeated_once_with_half_the_micro_batch(study: DrivenStudy) -> None:
    launcher = Workers(study.config, 2, {"none r0": [[TOO_MUCH]], "groups=1 r0": [[TOO_MUCH], [TOO_MUCH]]})
    assert study.drive(launcher).failed == 1
    for name in ("none r0", "groups=1 r0"):
        assert [job.micro_batches for job in launcher.attempts(name)] == [1, 2]
    assert outcomes(study)["none r0"]["micro_batches"] == 2
    assert "micro_batches" not in outcomes(study)["groups=4 r0"]
    (failed,) = [cell for cell in study.store.cells() if cell.state == CellState.FAILED]
    assert (failed.variant, failed.failed_as, failed.failure) == ("groups=1", OUT_OF_MEMORY, TOO_MUCH.reason)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_cell_whose_worker_died_is_restarted_up_to_the_limit(study: DrivenStudy, retries: int) -> None:
    launcher = Workers(study.config, 2, {"none r0": [[GONE]] * 9, "groups=4 r1": [[*EPOCHS, GONE]]})
    assert study.drive(launcher, retries=retries).failed == (1 if retries else 2)
    assert [job.lost for job in launcher.attempts("none r0")] == list(range(retries + 1))
    cells = {f"{cell.variant} r{cell.replicate}": cell for cell in study.store.cells()}
    assert (cells["none r0"].failed_as, cells["none r0"].failure) == (LOST, GONE.reason)
    if retries:
        assert outcomes(study)["groups=4 r1"]["lost"] == 1
        assert len(outcomes(study)["groups=4 r1"]["result"]["epochs"]) == 2


def test_a_lost_cell_resumes_from_its_checkpoint_and_one_out_of_memory_from_the_start(
    study: DrivenStudy, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 7.0)
    saved = [Saved(b"first"), Saved(b"second")]
    launcher = Workers(study.config, 1, {"none r0": [[*saved, GONE]], "groups=1 r0": [[*saved, TOO_MUCH]]})
    assert study.drive(launcher, checkpoints=checkpoints).failed == 0
    assert [job.checkpoint for job in launcher.attempts("none r0")] == [None, b"second"]
    assert [job.checkpoint for job in launcher.attempts("groups=1 r0")] == [None, None]
    assert {job.checkpoint_every for job in launcher.jobs} == {7.0}
    assert not checkpoints.folder.exists()  # the cells are done


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([Step(1, 4), Saved(b"x"), Failed(TIME_LIMIT, "It took too long.")], True),
        ([Step(1, 4), Saved(b"x"), Failed(ERROR, "ValueError: no")], True),
        ([Failed(ERROR, "RuntimeError: the checkpoint is another network's")], False),
        ([Step(1, 4), Saved(b"x"), Failed(DIVERGED, "the loss is nan")], False),
    ],
)
def test_a_checkpoint_is_kept_if_its_cell_may_resume(
    study: DrivenStudy, tmp_path: Path, words: list[Progress], kept: bool
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    first = next(study.design.cells())
    checkpoints.write(first, b"x")
    launcher = Workers(study.config, 1, {"none r0": [words]})
    study.drive(launcher, checkpoints=checkpoints)
    assert launcher.jobs[0].checkpoint == b"x"
    assert checkpoints.read(first) == (b"x" if kept else None)


def test_a_failed_checkpoint_is_reported_and_keeps_the_cell(study: DrivenStudy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    launcher = Workers(study.config, 1, {"none r0": [[Saved(b"x"), *EPOCHS, FINISHED]]})
    assert study.drive(launcher, checkpoints=Checkpoints(tmp_path / "file" / "checkpoints")).failed == 0
    assert worded("checkpoints.unkept", cell="none r0") in study.said.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_all_cells_in_training(study: DrivenStudy, number: signal.Signals) -> None:
    class Interrupted(Workers):
        def events(self) -> Iterator[tuple[str, Progress]]:
            if len(self.jobs) == 4:
                os.kill(os.getpid(), number)
            yield from super().events()

    with pytest.raises(StudyInterruptedError):
        study.drive(Interrupted(study.config, 3, {}))
    left = states(study)
    assert left.count(CellState.FINISHED) in (1, 2)
    assert left.count(CellState.INTERRUPTED) == len(left) - left.count(CellState.FINISHED) > 0
    assert study.drive(Workers(study.config, 3, {})).failed == 0
    assert states(study) == [CellState.FINISHED] * 6


def test_a_schedule_without_a_next_cell_waits_for_a_cell_in_training(study: DrivenStudy) -> None:
    launcher = Workers(study.config, 3, {})
    asked = []

    def choose(cells: Iterator[Cell | None]) -> Iterator[Cell | None]:
        missing = list(cells)
        yield from missing[:2]
        while any(cell.is_open for cell in study.store.cells()):
            asked.append(len(launcher.hands))
            yield None
        yield from missing[2:]

    assert study.drive(launcher, choose=choose).failed == 0
    assert asked == [2, 1]  # not after every event
    assert states(study) == [CellState.FINISHED] * 6


def test_a_process_in_a_long_operation_ends_after_a_signal() -> None:
    program = (
        "import signal, time, ablations.execution.interrupts as interrupts\n"
        "interrupts.GRACE = 0.3\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"  # so that the parent knows when to send one
        "with interrupts.Interrupts() as answered, answered.at_once():\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n"
        "        time.sleep(60)\n"
        "    except BaseException:\n"
        "        time.sleep(60)  # as an operation that cannot be interrupted\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == worded("interrupts.unfinished") + "\n"


def test_data_that_changed_since_the_start_of_a_study_are_refused(
    study: DrivenStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.drive(Launcher(study.config))
    more = compose_config([*TINY, "device=cpu", "replicates=3"])
    launcher = Launcher(more)
    images = launcher.images
    others = FixedData(in_memory(images.train, images.test, ("a",) * 10), seed=0)
    monkeypatch.setitem(launcher.__dict__, "data_set", others)
    study.design = make_design(more)
    with pytest.raises(
        StorageError, match=refusal("data=digits", "study.other_data", then="study=groups-digits-resnet8-2")
    ):
        study.drive(launcher)
    assert launcher.trained == []


def test_missing_cells_of_added_replicates_are_mirrored(tmp_path: Path) -> None:
    # Replicates that replicates=auto has added are not in the design of its first interim analysis.
    more = DrivenStudy(tmp_path, *TINY, "replicates=3", "train.epochs=1")
    more.drive(Launcher(more.config))
    first = DrivenStudy(tmp_path, *TINY, "replicates=1", "train.epochs=1")

    class Synced(StudyMirror):
        def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
            self.names = [cell.name for cell, _ in finished]
            self.top1 = [outcome["result"]["top1"] for _, outcome in finished]
            self.fingerprint = fingerprint

    mirror = Synced()
    launcher = Launcher(first.config)
    first.drive(launcher, mirror=mirror)
    assert launcher.trained == []
    assert mirror.names == [cell.name for cell in more.design.cells()]
    stored = {f"{cell.variant} r{cell.replicate}": cell.outcome for cell in first.store.cells()}
    assert mirror.top1 == [(stored[name] or {})["result"]["top1"] for name in mirror.names]
    assert mirror.fingerprint == first.store.attributes["data_fingerprint"]
