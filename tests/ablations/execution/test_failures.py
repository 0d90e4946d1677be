"""Failures of cells, planted into real runs, from the first command to the report and the next run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from torch import Tensor, nn

from ablations import cli
from ablations.analyze import analyze
from ablations.run import PURPOSE, run
from ablations.storage.cell_states import CellState
from ablations.storage.study import StoredCell, open_store
from ablations.training.learner import Learner
from tests.builders.faults import ASSERTION, ILLEGAL_ACCESS, raise_fault
from tests.builders.launched import timeless
from tests.conftest import TINY
from tests.wording import worded

STUDY = "groups-digits-resnet8"
Plant = Callable[[Learner, Tensor], None]


def plant(monkeypatch: pytest.MonkeyPatch, groups: int, what: Plant, replicate: int | None = None) -> None:
    """Calls `what` before each (micro-)batch of a variant's training, or of one replicate."""
    made: list[Learner] = []

    class Planted(Learner):
        def __init__(self, network: dict[str, Any], *arguments: Any, **options: Any) -> None:
            super().__init__(network, *arguments, **options)
            if network["attention"].get("groups") == groups:
                if replicate in (None, len(made)):
                    self.model.register_forward_pre_hook(self.before)
                made.append(self)

        def before(self, model: nn.Module, given: tuple[Tensor, ...]) -> None:
            if model.training:
                what(self, given[0])

    monkeypatch.setattr("ablations.training.train.Learner", Planted)


def call(folder: Path, *arguments: str) -> int:
    return cli.main("run", PURPOSE, run, [*TINY, "device=cpu", f"results_dir={folder}", *arguments])


def cells(folder: Path) -> dict[str, StoredCell]:
    stored = open_store(f"sqlite:///{folder / 'optuna.db'}", STUDY, create=False).cells()
    return {f"{cell.variant} r{cell.replicate}": cell for cell in stored}


def report(folder: Path) -> str:
    return (folder / STUDY / "report.md").read_text()


def statuses(folder: Path) -> dict[str, str]:
    """The state of each cell's run in MLflow."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_out_of_memory_halves_the_micro_batch_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhaust(_: Learner, pixels: Tensor) -> None:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    plant(monkeypatch, 4, exhaust)
    assert call(tmp_path) == 0
    said = capsys.readouterr().out
    assert said.count(worded("run.halved")) == 2
    found = cells(tmp_path)
    assert all(cell.state == CellState.FINISHED for cell in found.values())
    parts = {name: (cell.outcome or {}).get("micro_batches") for name, cell in found.items()}
    assert parts == dict.fromkeys(found) | {"groups=4 r0": 2, "groups=4 r1": 2}
    assert worded("conclusions.mixed_batches", cells="2 cells", variant="groups=4") in report(tmp_path)
    assert set(statuses(tmp_path).values()) == {"FINISHED"}
    assert call(tmp_path) == 0
    assert "nothing to train" in capsys.readouterr().out


def test_a_real_lack_of_memory_is_distinguished_from_other_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(_: Learner, pixels: Tensor) -> None:
        if len(pixels) > 4:
            torch.empty(2**50, dtype=torch.uint8)

    plant(monkeypatch, 4, exhaust)
    assert call(tmp_path, "replicates=1", "tracking.enabled=false") == 0
    assert (cells(tmp_path)["groups=4 r0"].outcome or {})["micro_batches"] == 2


def test_too_little_memory_for_half_a_batch_fails_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhaust(_: Learner, pixels: Tensor) -> None:
        del pixels
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    plant(monkeypatch, 4, exhaust)
    assert call(tmp_path, "replicates=1") == 1
    failed = cells(tmp_path)["groups=4 r0"]
    assert (failed.state, failed.failed_as) == (CellState.FAILED, "out of memory")
    assert "failed: torch.OutOfMemoryError: CUDA out of memory." in capsys.readouterr().out
    assert statuses(tmp_path)["groups=4 r0"] == "FAILED"


def test_a_nan_loss_counts_as_diverged_and_is_excluded_from_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(learner: Learner, _: Tensor) -> None:
        with torch.no_grad():
            next(learner.model.parameters()).fill_(float("nan"))

    plant(monkeypatch, 4, spoil, replicate=1)
    assert call(tmp_path, "replicates=3", "measure=off") == 0
    said = capsys.readouterr().out
    reason = worded("train.diverged", loss="nan", where="training")
    assert re.search(rf"groups=4 r1 +diverged: {reason}, in epoch 1", said)
    assert worded("run.diverged", number=1) in said
    text = report(tmp_path)
    mean = worded("conclusions.mean_of_others")
    assert worded("conclusions.diverged", variant="groups=4", number=1, replicates=3, mean=mean) in text
    assert re.search(r"\| groups=4 +\| 2 \(\+1 diverged\) +\|", text)
    assert re.search(rf"\| groups=4 +\| 1 +\| diverged +\| {reason}", text)
    assert statuses(tmp_path)["groups=4 r1"] == "FAILED"
    assert call(tmp_path, "replicates=3", "measure=off") == 0
    assert "nothing to train" in capsys.readouterr().out
    typed = [
        *TINY,
        "device=cpu",
        f"results_dir={tmp_path}",
        "replicates=3",
        "measure=off",
        "figures=[forest]",
        "sync=true",
    ]
    assert cli.main("analyze", PURPOSE, analyze, typed) == 0
    assert statuses(tmp_path)[STUDY] == "FINISHED"  # nothing is left to train


def digits(folder: Path) -> dict[str, Any]:
    """The numbers of each cell that has a result, without what the clock decides."""
    return {
        name: timeless(cell.outcome["result"])
        for name, cell in cells(folder).items()
        if cell.outcome and cell.state == CellState.FINISHED
    }


@pytest.mark.parametrize("text", [ILLEGAL_ACCESS, ASSERTION], ids=["illegal access", "assertion"])
def test_a_run_whose_process_loses_its_gpu_goes_on_in_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """What is planted is planted in this process alone."""
    options = ("replicates=1", "tracking.enabled=false", "measure=off")
    assert call(tmp_path / "calm", *options) == 0
    trained: list[int] = []

    def strike(learner: Learner, _: Tensor) -> None:
        trained.append(id(learner))
        raise_fault(text)

    plant(monkeypatch, 1, strike)
    is_retried = text == ILLEGAL_ACCESS
    capsys.readouterr()
    assert call(tmp_path / "struck", *options) == (0 if is_retried else 1)
    assert len(trained) == 1
    expected, found = digits(tmp_path / "calm"), digits(tmp_path / "struck")
    lost = cells(tmp_path / "struck")["groups=1 r0"]
    assert worded("train.lost_gpu", error=text.splitlines()[0]) in capsys.readouterr().out
    if is_retried:
        assert found == expected
        assert (lost.outcome or {})["lost"] == 1
    else:
        assert (lost.state, lost.failed_as) == (CellState.FAILED, "error")
        assert found == {name: result for name, result in expected.items() if name != "groups=1 r0"}
        assert len(found) == 2


def test_a_run_without_kernels_says_so_once_and_records_what_computed_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ablations.common.machine.built_kernels", list)
    assert call(tmp_path, "replicates=1", "train.epochs=1", "tracking.enabled=false") == 0
    assert capsys.readouterr().out.count(worded("run.no_kernels")) == 1
    by = {name: (cell.outcome or {})["result"]["attention_by"] for name, cell in cells(tmp_path).items()}
    assert by == {"none r0": "", "groups=1 r0": "torch", "groups=4 r0": "torch"}


def test_an_exception_is_stored_with_its_traceback_and_the_sweep_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:

        def fail(_: Learner, pixels: Tensor) -> None:
            raise ValueError(f"planted at {tuple(pixels.shape)}")

        plant(patch, 1, fail)
        assert call(tmp_path) == 1
    found = cells(tmp_path)
    assert [name for name, cell in found.items() if cell.state == CellState.FAILED] == ["groups=1 r0", "groups=1 r1"]
    for name in ("groups=1 r0", "groups=1 r1"):
        reason = found[name].failure or ""
        assert reason.startswith("Traceback")
        assert reason.endswith("ValueError: planted at (8, 3, 20, 20)\n")
    assert worded("conclusions.failed", cells="2 cells", are="are") in report(tmp_path)
    assert worded("run.tries_again") in capsys.readouterr().out
    assert call(tmp_path) == 0
    assert set(statuses(tmp_path).values()) == {"FINISHED"}


def test_a_cell_beyond_the_time_limit_is_ended_and_resumes_with_a_longer_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Clock:
        """A clock that advances by one second for each step of one variant."""

        now = 0.0

        def perf_counter(self) -> float:
            return self.now

        def take_a_second(self, _: Learner, pixels: Tensor) -> None:
            del pixels
            self.now += 1

    options = ("replicates=1", "train.epochs=5", "checkpoint_every=0", "measure=off")
    with monkeypatch.context() as patch:
        clock = Clock()
        plant(patch, 4, clock.take_a_second)
        patch.setattr("ablations.training.job.time", clock)
        assert call(tmp_path, *options, "limits.seconds=9.5") == 1
    failed = cells(tmp_path)["groups=4 r0"]
    assert failed.failed_as == "time limit"
    assert "failed: " + worded("train.too_long", seconds=9.5) in capsys.readouterr().out
    (kept,) = (tmp_path / STUDY / "checkpoints").iterdir()
    epochs: list[Any] = torch.load(kept, weights_only=True)["epochs"]
    assert len(epochs) == 3  # three steps each
    assert call(tmp_path, *options) == 0
    outcome = cells(tmp_path)["groups=4 r0"].outcome or {}
    assert outcome["result"]["epochs"][:3] == epochs
    assert len(outcome["result"]["epochs"]) == 5
    assert not kept.parent.exists()
