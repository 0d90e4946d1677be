"""Tests of the Ray launcher with a real Ray instance of two workers; some tests kill workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from ablations.config import RayConfig, SerialConfig
from ablations.design import Split
from ablations.execution.launchers import make_launcher
from ablations.execution.launchers.base import WorkerLostError
from ablations.storage.cell_states import CellState
from ablations.training.events import ERROR, Epoch
from ablations.training.job import Job
from tests.builders.alone import die, fail, threads_and_process
from tests.builders.driven import DrivenStudy
from tests.builders.launched import (
    LONG,
    PrunedStudy,
    answers,
    children,
    drive_and_strike,
    launcher_of,
    outcomes,
    progress_of,
    ray_workers,
    results,
)
from tests.conftest import TINY

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray, which is not installed")


@pytest.fixture(scope="module")
def ray_config() -> RayConfig:
    return RayConfig(workers=2)


@pytest.fixture(scope="module", autouse=True)
def _one_ray(ray_config: RayConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Starts Ray once; the launchers of these tests leave it running, as they do with a cluster."""
    study = DrivenStudy(tmp_path_factory.mktemp("ray"), *TINY)
    launcher_of(study, ray_config)  # imports Ray with the settings of the launcher
    import ray

    init = ray.init

    def join(**options: Any) -> None:
        if not ray.is_initialized():
            init(**options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", join)
        patch.setattr(ray, "shutdown", lambda: None)
        yield
    ray.shutdown()


def workers() -> list[psutil.Process]:
    """The worker processes of this process."""
    return ray_workers(psutil.Process().children(recursive=True))


@pytest.mark.parametrize("seed", [0, "replicate"])
def test_ray_reproduces_the_serial_results_exactly(tmp_path: Path, ray_config: RayConfig, seed: int | str) -> None:
    typed = (*TINY, f"data.seed={seed}")
    serial, expected = outcomes(tmp_path / "serial", SerialConfig(), *typed)
    ray, predictions = outcomes(tmp_path / "ray", ray_config, *typed)
    assert len(expected) == 6
    assert predictions == expected
    assert results(ray.store) == results(serial.store)
    cells = ray.store.cells()
    images = {(cell.replicate, cell.outcome["images"]) for cell in cells if cell.outcome}
    assert len(images) == 2  # all variants of a replicate have the same images
    assert len({fingerprint for _, fingerprint in images}) == (1 if seed == 0 else 2)
    environments = [cell.outcome["environment"] for cell in cells if cell.outcome]
    assert {environment["cells at once"] for environment in environments} == {"2"}


def test_progress_arrives_during_training_and_weights_at_the_end(tmp_path: Path, ray_config: RayConfig) -> None:
    study = DrivenStudy(tmp_path, *TINY, *LONG)
    with launcher_of(study, ray_config) as launcher:
        launcher.prepare()
        events = progress_of(launcher, Job(next(study.design.cells()), launcher.recipe, keeps_weights=True))
    epochs = [(when, event) for when, event in events if isinstance(event, Epoch)]
    assert [event.epoch for _, event in epochs] == list(range(40))
    assert epochs[-1][0] - epochs[0][0] > 0.1  # not all epochs arrive at the end


def test_workers_share_one_copy_of_the_images_in_the_object_store(
    tmp_path: Path, ray_config: RayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    put, references = ray.put, []

    def noted(value: Any) -> Any:
        references.append(put(value))
        return references[-1]

    monkeypatch.setattr(ray, "put", noted)
    study = DrivenStudy(tmp_path, *TINY)
    with launcher_of(study, ray_config) as launcher:
        assert study.drive(launcher).failed == 0
        (reference,) = references
        images = ray.get(reference).images(0, Split.TEST)
    assert images.fingerprint == launcher.images.fingerprint
    assert not images.train.pixels.flags.writeable  # the bytes of the object store, not a copy
    assert (images.train.pixels == launcher.images.train.pixels).all()


def test_cells_of_a_killed_worker_are_retrained_with_identical_results(tmp_path: Path, ray_config: RayConfig) -> None:
    for name in ("calm", "struck"):
        (tmp_path / name).mkdir()
    calm, hit = (DrivenStudy(tmp_path / name, *TINY, *LONG) for name in ("calm", "struck"))
    with launcher_of(calm, ray_config) as launcher:
        assert calm.drive(launcher).failed == 0
    killed = []

    def kill(name: str) -> None:
        del name
        for process in workers():
            killed.append(process.pid)
            process.send_signal(signal.SIGKILL)

    with launcher_of(hit, ray_config) as launcher:
        assert drive_and_strike(hit, launcher, kill) == 0
    assert killed
    assert results(hit.store) == results(calm.store)
    lost = [cell.outcome.get("lost", 0) for cell in hit.store.cells() if cell.outcome]
    assert sum(lost) in (1, 2)


def test_the_worker_of_a_pruned_cell_trains_other_cells(tmp_path: Path, ray_config: RayConfig) -> None:
    study = PrunedStudy(tmp_path, *TINY, *LONG)
    with launcher_of(study, ray_config) as launcher:
        before = children()
        assert study.drive(launcher).failed == 0
        assert children() - before == set()
    states = {cell.variant: cell.state for cell in study.store.cells()}
    assert states == {"none": CellState.FINISHED, "groups=4": CellState.PRUNED}


def test_an_error_in_a_worker_fails_its_cell(tmp_path: Path, ray_config: RayConfig) -> None:
    study = DrivenStudy(tmp_path, *TINY, "replicates=1")
    with launcher_of(study, ray_config) as launcher:
        launcher.recipe.momentum = "much"  # type: ignore[assignment]
        assert study.drive(launcher).failed == 3
    for cell in study.store.cells():
        assert cell.failed_as == ERROR
        assert (cell.failure or "").startswith("Traceback")
        assert "ValueError" in (cell.failure or "") or "TypeError" in (cell.failure or "")


def test_a_function_runs_alone_in_a_worker_with_the_threads_of_the_study(tmp_path: Path, ray_config: RayConfig) -> None:
    with launcher_of(DrivenStudy(tmp_path, *TINY), ray_config) as launcher:
        threads, process = launcher.alone(threads_and_process, 10)
        assert threads == 11
        assert process != os.getpid()
        with pytest.raises(KeyError, match="planted"):
            launcher.alone(fail, "planted")
        with pytest.raises(WorkerLostError):
            launcher.alone(die)


def test_ray_listens_only_on_the_loopback_interface(tmp_path: Path, ray_config: RayConfig) -> None:
    with launcher_of(DrivenStudy(tmp_path, *TINY), ray_config) as launcher:
        launcher.prepare()
        processes = psutil.Process().children(recursive=True)
        listening = [
            connection.laddr.ip
            for _, connections in answers([psutil.Process(), *processes], lambda each: each.net_connections("inet"))
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("resources", "gpus_per_cell", "workers", "capacity"),
    [
        ({"CPU": 64.0, "GPU": 8.0}, 1.0, 0, 8),
        ({"CPU": 64.0, "GPU": 8.0}, 0.25, 0, 32),
        ({"CPU": 64.0, "GPU": 8.0}, 0.1, 0, 64),  # limited by one core per cell
        ({"CPU": 64.0, "GPU": 8.0}, 2.0, 3, 3),
        ({"CPU": 2.0}, 1.0, 0, 1),  # the cell waits for a GPU to become available again
    ],
)
def test_cells_share_gpus_as_configured_and_each_process_trains_one_cell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, float],
    gpus_per_cell: float,
    workers: int,
    capacity: int,
) -> None:
    study = DrivenStudy(tmp_path, *TINY)
    design = replace(study.design, protocol=study.design.protocol | {"device": "cuda"})
    chosen = RayConfig(workers=workers, gpus_per_cell=gpus_per_cell)
    config = replace(study.config, launcher=chosen, threads=1)
    launcher = make_launcher(config, design, Console(quiet=True))
    asked = []

    def remote(**options: Any) -> Any:
        asked.append(options)
        return lambda _: SimpleNamespace(remote=lambda *_: None)

    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    monkeypatch.setattr("ray.remote", remote)
    assert launcher.capacity == capacity
    launcher.start(Job(next(design.cells()), launcher.recipe))
    assert asked == [{
        "num_returns": "streaming", "num_cpus": 1, "num_gpus": gpus_per_cell, "max_calls": 1, "max_retries": 0,
        "scheduling_strategy": "SPREAD",
    }]  # fmt: skip
