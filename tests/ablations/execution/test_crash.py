"""A driver that dies at each of its writes in turn, and the next one that resumes.

The kill is an exception that the suite does not catch, raised before or after a write to Optuna or MLflow: like SIGKILL
it leaves the stores in their current state, but it can be placed at every write.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.storage.files import Checkpoints, Weights
from ablations.tracking.destination import Destination
from ablations.tracking.tracker import Tracker
from ablations.training.events import Finished, Learnt, Progress, Saved
from ablations.training.job import Job, pack_weights
from ablations.training.learner import build_network
from ablations.training.train import Epoch, Result
from tests.builders.driven import DrivenStudy
from tests.builders.kept import INPUTS

ENVIRONMENT = {"cpu": "one", "gpu": "none"}
TYPED = ("replicates=1", "sweep.factors.attention.groups=[4]", "data.train_images=64", "data.test_images=10",
         "measure=off")  # fmt: skip
# All methods by which a driver writes.
WRITES = (
    (optuna.storages.RDBStorage, "create_new_trial"),
    (optuna.storages.RDBStorage, "set_trial_state_values"),
    (optuna.storages.RDBStorage, "set_trial_user_attr"),
    (optuna.storages.RDBStorage, "set_trial_param"),
    (optuna.storages.RDBStorage, "set_trial_intermediate_value"),
    (optuna.storages.RDBStorage, "set_study_user_attr"),
    (Weights, "write"),
    (Checkpoints, "write"),
    (Checkpoints, "remove"),
    (Path, "replace"),
    (MlflowClient, "create_run"),
    (MlflowClient, "log_batch"),
    (MlflowClient, "log_inputs"),
    (MlflowClient, "update_run"),
    (MlflowClient, "set_terminated"),
)


NETWORKS = {
    variant.name: build_network(variant.network, 10, seed).eval()
    for seed, variant in enumerate(make_design(compose_config(["device=cpu", *TYPED])).variants)
}


class Killed(BaseException):
    """An exception that no handler of the suite catches."""


class InstantLauncher(SerialLauncher):
    def work(self, job: Job) -> Iterator[Progress]:
        epochs = tuple(Epoch(i, 1.0, 1.0, 50.0 + i, 0.1, 1.0, 1e9 + i) for i in range(2))
        yield epochs[0]
        yield Saved(b"no checkpoint: nothing is gone on from it")
        yield epochs[1]
        yield Learnt(pack_weights(job.cell, NETWORKS[job.cell.variant.name], [*"0123456789"], INPUTS))
        yield Finished(Result(51.0, 1.0, 10, 1.0, epochs).to_dict(), ENVIRONMENT)


class Study(DrivenStudy):
    """A study run as by `run`, without its report."""

    def __init__(self, folder: Path, name: str, uri: str) -> None:
        super().__init__(folder, *TYPED, f"study={name}")
        self.uri = uri
        self.mine = folder / name

    def run(self) -> None:
        mirror = Tracker(
            Destination(self.uri, self.design.study, self.folder / "artifacts"), self.design, self.store.id
        )
        try:
            self.drive(
                InstantLauncher(self.design, self.config.data),
                mirror=mirror,
                weights=Weights(self.mine / "weights"),
                checkpoints=Checkpoints(self.mine / "checkpoints"),
            )
            if not mirror.complete:
                mirror.end("FINISHED")
        finally:
            if mirror.monitor:  # a thread, which would end with a killed process
                mirror.monitor.finish()


def kill_at(number: int, patch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Kills the driver at the `number`-th write."""
    written = 0

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            nonlocal written
            if threading.current_thread() is not threading.main_thread():  # of the machine's monitor, at its own times
                return original(*args, **kwargs)
            written += 1
            mine = written
            if mine == number and not after:
                raise Killed
            result = original(*args, **kwargs)
            if mine == number:
                raise Killed
            return result

        return write

    for owner, name in WRITES:
        patch.setattr(owner, name, wrap(getattr(owner, name)))


def check(study: Study) -> None:
    design, folder = study.design, study.folder
    stored = optuna.load_study(study_name=design.study, storage=study.url)
    done = [trial for trial in stored.trials if trial.state == TrialState.COMPLETE]
    assert [(trial.value, trial.intermediate_values) for trial in done] == [(51.0, {1: 50.0, 2: 51.0})] * 2
    assert len({trial.user_attrs["cell"] for trial in done}) == 2
    # A killed attempt stays as a failed one.
    assert [trial.state for trial in stored.trials if trial not in done] in ([], [TrialState.FAIL])
    weights = Weights(folder / design.study / "weights")
    for cell in design.cells():
        state = NETWORKS[cell.variant.name].state_dict()
        kept = weights.load(cell).state_dict()
        assert all(torch.equal(kept[name], value) for name, value in state.items()), design.study
    assert len(list(weights.folder.iterdir())) == 2, design.study
    # A driver that died between storing an outcome and removing the checkpoint leaves an unused file.
    assert len(list((folder / design.study).glob("checkpoints/*"))) <= 1, design.study
    client = MlflowClient(study.uri)
    runs = client.search_runs([client.get_experiment_by_name(design.study).experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted([design.study, "groups=4 r0", "none r0"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert run.data.params, (design.study, run.info.run_name)
        assert run.inputs.dataset_inputs, (design.study, run.info.run_name)
        if "cell" in run.data.tags:
            history = client.get_metric_history(run.info.run_id, "top1")
            assert [(metric.step, metric.value) for metric in history] == [(1, 50.0), (2, 51.0)]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.mark.parametrize("after", [False, True])
def test_a_driver_that_dies_at_any_write_neither_loses_nor_duplicates_cells(
    tmp_path: Path, uri: str, after: bool
) -> None:
    number, died = 0, True
    while died:
        number += 1
        study = Study(tmp_path, f"killed-{number}-{after}", uri)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, patch, after=after)
            try:
                study.run()
                died = False
            except Killed:
                pass
        study.run()
        check(study)
    assert number > 20  # one undisturbed drive makes more than twenty writes, and each was the last one once
