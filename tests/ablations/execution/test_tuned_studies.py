"""Tuned studies from the command line: real cells, real kills, and no early access to test images."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from rich.console import Console

from ablations.config.compose import compose_config
from ablations.data.device import DeviceImages
from ablations.design import Split, make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.execution.runner import StudyRunner
from ablations.storage.cell_states import CellState
from ablations.storage.study import open_store
from tests.conftest import TINY
from tests.wording import worded

KILLS = int(os.environ.get("ABLATIONS_KILLS", "2"))  # higher in a drill
STUDY = "groups-digits-resnet8"
TUNED = (*TINY, "tune.trials=2", "data.validation=0.5", "train.batch_size=4", "tracking.enabled=false", "measure=off")


def run(folder: Path, *overrides: str) -> int:
    config = compose_config(["device=cpu", *TUNED, f"results_dir={folder}", *overrides])
    return StudyRunner(config, "run", Console(file=io.StringIO())).run()


def test_test_images_are_not_read_before_the_last_epoch_of_the_replicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With test images that raise on access, all trials finish, and replicates are trained to the end."""
    config = compose_config(["device=cpu", *TUNED, f"results_dir={tmp_path}"])
    design = make_design(config)
    original = SerialLauncher.device_images
    begun: list[int] = []  # number of started epochs of the cell at each access to test images

    class Sealed(DeviceImages):
        epochs = 0

        def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Any]:
            self.epochs = epoch + 1
            return super().train_batches(batch_size, seed, epoch)

        def test_batches(self, *_: Any) -> Iterator[Any]:
            begun.append(self.epochs)
            raise RuntimeError("a test image was read")

    def sealed(self: SerialLauncher, seed: int, split: Split) -> DeviceImages:
        images = original(self, seed, split)
        if split is Split.TEST:
            images.__class__ = Sealed
        return images

    monkeypatch.setattr(SerialLauncher, "device_images", sealed)
    assert StudyRunner(config, "run", Console(file=io.StringIO())).run() == 1
    cells = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", STUDY, create=False).cells()
    trials = [cell for cell in cells if cell.split is Split.VALIDATION]
    results = [cell for cell in cells if cell.split is Split.TEST]
    assert {cell.state for cell in trials} == {CellState.FINISHED}
    assert len(trials) == 2 * len(design.variants)
    assert {cell.state for cell in results} == {CellState.FAILED}
    assert len(results) == len(begun) == 2 * 2 * len(design.variants)
    assert set(begun) == {config.train.epochs}
    assert all("a test image was read" in str(cell.failure) for cell in results)


def test_a_repeatedly_killed_tuned_study_ends_with_the_same_tables(tmp_path: Path) -> None:
    assert run(tmp_path / "whole") == 0
    arguments = [sys.executable, "-u", "-m", "ablations.run", "device=cpu", *TUNED, f"results_dir={tmp_path / 'parts'}"]
    moments, kills = random.Random(0), 0
    for _ in range(KILLS):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("["):  # a cell ended
                    break
            time.sleep(moments.uniform(0, 2))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills > 0
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert worded("tuning.comparisons") in done.stdout
    for name in ("tuning", "comparisons"):
        whole, parts = (pd.read_csv(tmp_path / run / STUDY / "tables" / f"{name}.csv") for run in ("whole", "parts"))
        pd.testing.assert_frame_equal(whole, parts, check_exact=True)
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'parts' / 'optuna.db'}")
    finished = [trial.user_attrs["cell"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(finished) == len(set(finished)) == 3 * 2 + 2 * 2 * 3


def test_a_batch_larger_than_the_data_is_refused_before_a_study_is_created(command: Any, tmp_path: Path) -> None:
    done = command("run", *TUNED, "tune.space.train.batch_size=[2,4,20]", f"results_dir={tmp_path}")
    assert done.returncode == 2
    assert "tune.space.train.batch_size=20" in done.stderr
    assert not list(tmp_path.glob("*.db"))
