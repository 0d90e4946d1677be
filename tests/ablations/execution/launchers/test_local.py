"""Tests of the local launcher with real worker processes; some tests kill the workers or the driver."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
import torch

from ablations.common.errors import UsageError
from ablations.config import LocalConfig, SerialConfig
from ablations.execution.launchers.base import Launcher, WorkerLostError
from ablations.execution.launchers.local import LocalLauncher
from ablations.execution.launchers.process import WorkerProcess
from ablations.storage.cell_states import CellState
from ablations.storage.files import PredictionFiles
from ablations.training.events import LOST, OUT_OF_MEMORY, TIME_LIMIT, Epoch, Failed, Finished, Probe, Progress
from ablations.training.job import Job
from tests.builders.alone import (
    UnpicklableError,
    die,
    fail,
    raise_unpicklable,
    threads_and_process,
    visible_gpus,
)
from tests.builders.driven import DrivenStudy
from tests.builders.faults import (
    ASSERTION,
    ILLEGAL_ACCESS,
    Faulty,
    raise_fault,
    raise_fault_in_place_of_probing,
)
from tests.builders.launched import (
    LONG,
    PrunedStudy,
    drive_and_strike,
    fork_servers,
    forked,
    is_running,
    launcher_of,
    outcomes,
    progress_of,
    results,
    timeless,
)
from tests.conftest import TINY
from tests.wording import refusal, worded

TWO = LocalConfig(workers=2)
FOREVER = ("train.epochs=5000", "device=cpu", "tracking.enabled=false", "launcher=auto", "launcher.workers=2")


def workers() -> list[psutil.Process]:
    """The worker processes of this process."""
    return forked(psutil.Process())


def job_of(study: DrivenStudy, launcher: LocalLauncher, number: int = 0, **options: Any) -> Job:
    cells = list(study.design.cells())
    return Job(cells[number], launcher.recipe, **options)


def events_until(launcher: LocalLauncher, until: Callable[[Progress], bool]) -> list[tuple[str, Progress]]:
    """Returns the events up to the first one that satisfies `until`."""
    events: list[tuple[str, Progress]] = []
    while not any(until(event) for _, event in events):
        events += launcher.events()
    return events


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("seed", [0, "replicate"])
def test_workers_reproduce_the_serial_results_exactly(tmp_path: Path, seed: int | str) -> None:
    typed = (*TINY, f"data.seed={seed}")
    serial, expected = outcomes(tmp_path / "serial", SerialConfig(), *typed)
    local, predictions = outcomes(tmp_path / "local", TWO, *typed)
    assert len(expected) == 6
    assert predictions == expected
    assert results(local.store) == results(serial.store)
    cells = local.store.cells()
    fingerprints = {cell.outcome["images"] for cell in cells if cell.outcome}
    assert fingerprints == {cell.outcome["images"] for cell in serial.store.cells() if cell.outcome}
    environments = [cell.outcome["environment"] for cell in cells if cell.outcome]
    assert {environment["cells at once"] for environment in environments} == {"2"}
    assert workers() == []


def with_concurrent_cells(launcher: Launcher, cells: int = 3) -> LocalLauncher:
    """Sets how many cells a worker trains concurrently, as on a GPU."""
    assert isinstance(launcher, LocalLauncher)
    launcher.cells_per_worker = cells
    return launcher


def test_concurrent_cells_of_a_worker_reproduce_the_serial_results_exactly(tmp_path: Path) -> None:
    serial, expected = outcomes(tmp_path / "serial", SerialConfig(), *TINY, "data.seed=replicate")
    together = DrivenStudy(tmp_path, *TINY, "data.seed=replicate")
    processes = set()
    with launcher_of(together, LocalConfig(workers=1)) as launcher:
        assert with_concurrent_cells(launcher).capacity == 3
        files = PredictionFiles(tmp_path / "predictions", "all")
        assert together.drive(launcher, predictions=files).failed == 0
        processes |= {worker.pid for worker in workers()}
    assert len(processes) == 1
    assert results(together.store) == results(serial.store)
    assert {path.name: path.read_bytes() for path in (tmp_path / "predictions").iterdir()} == expected
    environments = [cell.outcome["environment"] for cell in together.store.cells() if cell.outcome]
    assert {environment["cells at once"] for environment in environments} == {"3"}


def test_a_failed_or_stopped_cell_does_not_affect_concurrent_cells_of_its_worker(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "train.epochs=6")
    with launcher_of(study, LocalConfig(workers=1)) as local:
        launcher = with_concurrent_cells(local, 4)
        jobs = [job_of(study, launcher, number) for number in range(4)]
        (alone, *_), broken = train_all(launcher, jobs[:1]), "much"
        jobs[1] = replace(jobs[1], recipe=replace(jobs[1].recipe, momentum=broken))  # type: ignore[arg-type]
        for job in jobs:
            launcher.start(job)
        first = events_until(launcher, lambda event: isinstance(event, Epoch))
        launcher.stop(jobs[2].cell.key)
        events = first + events_until_done(
            launcher, [jobs[number].cell.key for number in (0, 1, 3) if not ended(first, jobs[number])]
        )
        assert len(workers()) == 1
    ends = {key: event for key, event in events if isinstance(event, (Finished, Failed))}
    assert isinstance(ends[jobs[1].cell.key], Failed)
    assert isinstance(ends[jobs[3].cell.key], Finished)
    assert jobs[2].cell.key not in ends
    again = ends[jobs[0].cell.key]
    assert isinstance(again, Finished)
    assert timeless(again.result) == timeless(alone.result)
    order = [key for key, event in events if isinstance(event, Epoch)]
    assert order != sorted(order, key=order.index)  # the epochs of the cells are interleaved


def ended(events: list[tuple[str, Progress]], job: Job) -> bool:
    return any(key == job.cell.key and isinstance(event, (Finished, Failed)) for key, event in events)


def events_until_done(launcher: LocalLauncher, keys: list[str]) -> list[tuple[str, Progress]]:
    """Returns the events until each of these cells has ended."""
    events: list[tuple[str, Progress]] = []
    while keys:
        news = list(launcher.events())
        keys = [
            key for key in keys if not any(key == of and isinstance(event, (Finished, Failed)) for of, event in news)
        ]
        events += news
    return events


def train_all(launcher: LocalLauncher, jobs: list[Job]) -> list[Finished]:
    for job in jobs:
        launcher.start(job)
    events = events_until_done(launcher, [job.cell.key for job in jobs])
    return [event for _, event in events if isinstance(event, Finished)]


def test_concurrent_cells_of_a_killed_worker_are_retrained_with_identical_results(tmp_path: Path) -> None:
    calm, _ = outcomes(tmp_path / "calm", TWO, *TINY, *LONG)
    (tmp_path / "struck").mkdir()
    hit = DrivenStudy(tmp_path / "struck", *TINY, *LONG)

    def kill(_: str) -> None:
        for process in workers():
            process.send_signal(signal.SIGKILL)

    with launcher_of(hit, LocalConfig(workers=1)) as launcher:
        assert drive_and_strike(hit, with_concurrent_cells(launcher, 2), kill) == 0
    assert results(hit.store) == results(calm.store)
    assert [cell.outcome.get("lost") for cell in hit.store.cells() if cell.outcome] == [1, 1]


def test_a_cell_out_of_memory_beside_others_is_retried_with_fewer_concurrent_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = DrivenStudy(tmp_path, *TINY, *LONG)
    with launcher_of(study, LocalConfig(workers=1)) as local:
        launcher = with_concurrent_cells(local, 4)
        jobs = [job_of(study, launcher, number) for number in range(2)]
        for job in jobs:
            launcher.start(job)
        short = Failed(OUT_OF_MEMORY, "CUDA out of memory.")
        receive = WorkerProcess.receive

        def receive_out_of_memory(self: WorkerProcess) -> Any:
            message = receive(self)
            return (message[0], short) if isinstance(message, tuple) and isinstance(message[1], Epoch) else message

        monkeypatch.setattr(WorkerProcess, "receive", receive_out_of_memory)
        events = events_until(launcher, lambda event: isinstance(event, Failed))
        key, failed = events[-1]
        assert isinstance(failed, Failed)
        assert failed.kind == LOST
        assert worded("launcher.beside", others="1 other cell", left="1 cell") in failed.reason
        assert launcher.capacity == 1
        assert len(workers()) == 1
        events = events_until(launcher, lambda event: isinstance(event, Failed))
        assert events[-1][0] != key
        assert events[-1][1] == short  # without other cells, the failure is its own


@pytest.mark.parametrize(
    ("device", "workers_asked", "asked", "cells"),
    [("cpu", 2, 8, 2), ("cuda", 1, 8, 8), ("cuda", 0, 8, 8), ("cuda", 2, 3, 6), ("cuda", 2, "auto", 2)],
)
def test_a_worker_trains_several_cells_only_on_a_gpu(
    tmp_path: Path, device: str, workers_asked: int, asked: int | str, cells: int
) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    # Without variants, no rates are measured.
    design = replace(study.design, protocol=study.design.protocol | {"device": device}, variants=())
    config = LocalConfig(workers=workers_asked, cells_per_gpu=asked)
    assert LocalLauncher(design, study.config.data, config=config).capacity == cells


def test_progress_arrives_during_training_and_weights_at_the_end(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, *LONG)
    with launcher_of(study, TWO) as launcher:
        events = progress_of(launcher, job_of(study, launcher, keeps_weights=True))
    epochs = [(when, event) for when, event in events if isinstance(event, Epoch)]
    assert [event.epoch for _, event in epochs] == list(range(40))
    assert epochs[-1][0] - epochs[0][0] > 0.1  # not all epochs arrive at the end
    assert any(type(event).__name__ == "Learnt" for _, event in events)


@pytest.mark.parametrize("victim", ["worker", "fork server"])
def test_cells_are_retrained_with_identical_results_after_a_process_is_killed(tmp_path: Path, victim: str) -> None:
    calm, _ = outcomes(tmp_path / "calm", TWO, *TINY, *LONG)
    (tmp_path / "struck").mkdir()
    hit = DrivenStudy(tmp_path / "struck", *TINY, *LONG)
    killed = []

    def kill(name: str) -> None:
        del name
        killed.extend(workers() if victim == "worker" else fork_servers(psutil.Process()))
        for process in killed:
            process.send_signal(signal.SIGKILL)

    with launcher_of(hit, TWO) as launcher:
        assert drive_and_strike(hit, launcher, kill) == 0
    assert killed
    assert results(hit.store) == results(calm.store)
    assert sum(cell.outcome.get("lost", 0) for cell in hit.store.cells() if cell.outcome) in (1, 2)
    if victim == "worker":
        assert worded("launcher.killed", signal="SIGKILL") in hit.said.getvalue()


def test_an_out_of_memory_kill_reduces_the_number_of_parallel_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = DrivenStudy(tmp_path, *TINY, *LONG)
    kills = [0.0]
    monkeypatch.setattr("ablations.common.machine.out_of_memory_kills", lambda: kills[0])
    with launcher_of(study, TWO) as launcher:
        for number in range(2):
            launcher.start(job_of(study, launcher, number))
        reasons = []
        for _ in range(2):
            events_until(launcher, lambda event: isinstance(event, Epoch))
            next(worker for worker in workers() if is_running(worker)).kill()
            kills[0] += 1
            _, failure = events_until(launcher, lambda event: isinstance(event, Failed))[-1]
            assert isinstance(failure, Failed)
            reasons.append((failure.kind, failure.reason))
            assert launcher.capacity == 1
        assert [kind for kind, _ in reasons] == ["lost", "out of memory"]
        assert all(worded("launcher.short") in reason for _, reason in reasons)


def test_the_worker_of_a_pruned_cell_trains_other_cells(tmp_path: Path) -> None:
    study = PrunedStudy(tmp_path, *TINY, *LONG, "replicates=2")
    with launcher_of(study, LocalConfig(workers=1)) as launcher:
        assert study.drive(launcher).failed == 0
        assert len(workers()) == 1
    states = {(cell.variant, cell.state) for cell in study.store.cells()}
    assert states == {("none", CellState.FINISHED), ("groups=4", CellState.PRUNED)}


def test_a_hung_worker_is_killed_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablations.execution.launchers.local.OVERTIME", 0.0)
    study = DrivenStudy(tmp_path, *TINY, *LONG, "train.epochs=100000")
    with launcher_of(study, LocalConfig(workers=1)) as launcher:
        launcher.start(job_of(study, launcher, seconds=3.0))
        (worker,) = workers()
        worker.suspend()
        ((_, failure),) = events_until(launcher, lambda event: isinstance(event, Failed))
        assert isinstance(failure, Failed)
        assert failure.kind == TIME_LIMIT
        wait_until(lambda: not is_running(worker))


def test_an_error_in_a_worker_fails_its_cell(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "replicates=1")
    with launcher_of(study, TWO) as launcher:
        launcher.recipe.momentum = "much"  # type: ignore[assignment]
        assert study.drive(launcher).failed == 3
    for cell in study.store.cells():
        assert (cell.failure or "").startswith("Traceback")
        assert "ValueError" in (cell.failure or "") or "TypeError" in (cell.failure or "")


def test_each_worker_sees_one_of_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, TWO) as launcher:
        launcher.gpus = ["7", "4"]
        assert launcher.alone(visible_gpus) == "7"
        launcher.probe(study.design.variants[:2], 0.0)
        monkeypatch.setattr("ablations.execution.launchers.local.try_variant", visible_gpus)
        found = launcher.probe(study.design.variants[:2], 0.0)
    assert set(found.values()) == {"7", "4"}


def test_a_killed_worker_is_replaced_on_the_same_gpu(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, *LONG, "replicates=2")
    with launcher_of(study, LocalConfig(workers=2)) as launcher:
        launcher.gpus = ["7", "4"]
        for number in range(2):
            launcher.start(job_of(study, launcher, number))
        events_until(launcher, lambda event: isinstance(event, Epoch))
        first, second = launcher.busy_gpus
        workers()[0].kill()
        events_until(launcher, lambda event: isinstance(event, Failed))
        (left,) = launcher.busy_gpus
        launcher.start(job_of(study, launcher, 2))
        assert {first, second} == {"7", "4"} == set(launcher.busy_gpus)
        assert left in launcher.busy_gpus


def test_a_worker_that_loses_its_gpu_is_replaced_and_its_cell_retrained(tmp_path: Path) -> None:
    calm, _ = outcomes(tmp_path / "calm", LocalConfig(workers=1), *TINY, "replicates=1")
    (tmp_path / "struck").mkdir()
    study = DrivenStudy(tmp_path / "struck", *TINY, "replicates=1")
    with launcher_of(study, LocalConfig(workers=1)) as launcher:
        launcher.probe(study.design.variants[:1], 0.0)
        (before,) = workers()
        launcher.recipe.momentum = Faulty.of(launcher.recipe.momentum, ILLEGAL_ACCESS, tmp_path / "raised")
        assert study.drive(launcher).failed == 0
        (after,) = workers()
        assert not is_running(before)
    assert after.pid != before.pid
    assert results(study.store) == results(calm.store)
    assert [cell.outcome.get("lost", 0) for cell in study.store.cells() if cell.outcome] == [1, 0, 0]


def test_a_failed_assertion_on_the_gpu_fails_only_its_cell(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY, "replicates=1")
    with launcher_of(study, LocalConfig(workers=1)) as launcher:
        launcher.recipe.momentum = Faulty.of(launcher.recipe.momentum, ASSERTION, tmp_path / "raised")
        assert study.drive(launcher).failed == 1
    states = [cell.state for cell in study.store.cells()]
    assert states == [CellState.FAILED, CellState.FINISHED, CellState.FINISHED]


def test_a_worker_that_loses_its_gpu_in_a_function_or_a_probe_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, LocalConfig(workers=1)) as launcher:
        process = launcher.alone(threads_and_process, 0)[1]
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            launcher.alone(raise_fault)
        assert launcher.alone(threads_and_process, 0)[1] != process
        with monkeypatch.context() as patch:
            patch.setattr("ablations.execution.launchers.local.try_variant", raise_fault_in_place_of_probing)
            found = launcher.probe(study.design.variants[:1], 0.0)
        assert list(found.values()) == [ILLEGAL_ACCESS]
        assert isinstance(launcher.probe(study.design.variants[:1], 0.0)["none"], Probe)
        assert len(workers()) == 2  # including the worker that runs functions


def test_a_function_runs_alone_in_a_worker_with_the_threads_of_the_study(tmp_path: Path) -> None:
    with launcher_of(DrivenStudy(tmp_path, *TINY), TWO) as launcher:
        launcher.threads = 2
        threads, process = launcher.alone(threads_and_process, 10)
        assert threads == 12
        assert process != os.getpid()
        assert launcher.alone(threads_and_process, 10) == (12, process)
        with pytest.raises(KeyError, match="planted") as caught:
            launcher.alone(fail, "planted")
        assert "in fail" in caught.value.__notes__[0]
        with pytest.raises(RuntimeError, match=f"{UnpicklableError.__name__}: planted"):
            launcher.alone(raise_unpicklable)
        with pytest.raises(WorkerLostError, match=worded("launcher.killed", signal="SIGKILL")):
            launcher.alone(die)
        assert launcher.alone(threads_and_process, 10)[0] == 12


def test_a_function_runs_without_images(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, "data=cifar10", f"data.root={tmp_path / 'none'}")
    with launcher_of(study, TWO) as launcher:
        assert launcher.alone(threads_and_process, 0)[0] == 1


def test_an_interrupt_ends_a_function_in_a_worker(tmp_path: Path) -> None:
    with launcher_of(DrivenStudy(tmp_path, *TINY), TWO) as launcher:
        launcher.alone(threads_and_process, 0)
        (worker,) = workers()
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                launcher.alone(time.sleep, 1000)
        finally:
            signal.signal(signal.SIGALRM, before)
        wait_until(lambda: not is_running(worker))


def test_variants_are_probed_in_as_many_workers_as_train_cells(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, TWO) as launcher:
        launcher.expect(6, float("nan"))
        found = launcher.probe(study.design.variants, 0.0)
        assert len(workers()) == 2
    assert list(found) == [variant.name for variant in study.design.variants]
    assert all(isinstance(probe, Probe) for probe in found.values())


def test_probing_uses_no_more_workers_than_cells(tmp_path: Path) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, TWO) as launcher:
        launcher.expect(1, float("nan"))
        launcher.probe(study.design.variants, 0.0)
        assert len(workers()) == 1


@pytest.mark.parametrize(
    ("cores", "threads", "asked", "capacity"), [(8, 1, 0, 8), (8, 3, 0, 2), (2, 4, 0, 1), (2, 1, 5, 5), (8, 1, 1, 1)]
)
def test_capacity_is_the_configured_workers_or_follows_from_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, asked: int, capacity: int
) -> None:
    monkeypatch.setattr("ablations.common.machine.available_cores", lambda: cores)
    monkeypatch.setattr("ablations.common.machine.available_memory", lambda: 2**40)
    with launcher_of(DrivenStudy(tmp_path, *TINY), LocalConfig(workers=asked)) as launcher:
        launcher.threads = threads
        assert launcher.capacity == capacity


def test_memory_limits_the_number_of_parallel_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablations.common.machine.available_cores", lambda: 1000)
    monkeypatch.setattr("ablations.common.machine.available_memory", lambda: 2**30)
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, LocalConfig()) as launcher:
        launcher.expect(1000, 300.0)  # MiB, peak of a stored cell
        assert 1 <= launcher.capacity <= 3
        assert worded("launcher.fitting", of="memory") in launcher.prepare()


def test_more_parallel_cells_than_fit_into_memory_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablations.common.machine.available_memory", lambda: 2**30)
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, LocalConfig(workers=40)) as launcher:
        launcher.expect(1000, 300.0)
        with pytest.raises(UsageError, match=refusal("launcher.workers=40", "launcher.too_many", number=40)):
            launcher.probe(study.design.variants, 0.0)
        launcher.expect(1, 300.0)  # capped by the number of cells to train
        assert launcher.capacity >= 1


def test_workers_do_not_rerun_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    typed = [*TINY, "replicates=1", "device=cpu", "launcher=auto", "launcher.workers=2", "tracking.enabled=false",
             f"results_dir={tmp_path}", "predictions=off", "weights=off"]  # fmt: skip
    script.write_text(
        "print('once')\n"
        "from ablations import run_study\n"
        f"study = run_study(*{typed!r})\n"
        "print('cells', len(study.results.cells))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines().count("once") == 1
    assert done.stdout.splitlines()[-1] == "cells 3"


def begin(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Starts a run in a new session, as a terminal does, and waits until two cells are in training."""
    arguments = [sys.executable, "-u", "-m", "ablations.run", *TINY, *FOREVER, *overrides, f"results_dir={folder}"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Data: "):
            break
    wait_until(lambda: running(folder) == 2)
    return process


def running(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "optuna.db")) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM trials WHERE state = 'RUNNING'").fetchone()
    return int(count)


def test_all_processes_of_a_killed_driver_end(tmp_path: Path) -> None:
    with begin(tmp_path) as process:
        driver = psutil.Process(process.pid)
        wait_until(lambda: len(forked(driver)) == 2)
        left = driver.children(recursive=True)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_running, left)))
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_driver_handles_a_signal_to_all_processes_and_all_end(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with begin(tmp_path, "retries=0") as process:
        left = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, number)
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == status, errors
        assert errors == ""
        assert worded("run.goes_on") in printed
        wait_until(lambda: not any(map(is_running, left)))
    study = optuna.load_study(study_name="groups-digits-resnet8", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert study.trials
    assert not any("failure" in trial.user_attrs for trial in study.trials)


def test_workers_are_forked_from_a_process_with_one_thread(tmp_path: Path) -> None:
    with launcher_of(DrivenStudy(tmp_path, *TINY), TWO) as launcher:
        launcher.alone(threads_and_process, 0)
        (server,) = fork_servers(psutil.Process())
        assert server.num_threads() == 1
        assert launcher.alone(np.add, 1, 2) == 3
