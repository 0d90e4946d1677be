"""Tests of the serial launcher with images that differ between cells, and after the loss of the GPU."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.data import DataError
from ablations.design import Split, make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.training.events import Probe
from tests.builders.alone import fail, threads_and_process
from tests.builders.faults import raise_fault
from tests.builders.trees import make_tree
from tests.wording import refusal, worded

SMALL = ("device=cpu", "train.batch_size=8", "data.train_images=40", "data.test_images=20")


def launcher_of(*overrides: str) -> SerialLauncher:
    config = compose_config(overrides)
    return SerialLauncher(make_design(config), config.data, Console(quiet=True))


def test_a_selection_cell_trains_without_validation_images_and_is_evaluated_on_them() -> None:
    launcher = launcher_of(*SMALL, "sweep=search", "data.validation=0.25")
    variant = launcher.design.variants[0]
    result, selection = (launcher.design.cell(variant, 0, split) for split in (Split.TEST, Split.VALIDATION))
    seen = {cell.split: launcher.device_images(cell.seed, cell.split) for cell in (result, selection)}
    assert (seen[Split.TEST].train_images(1), seen[Split.TEST].test_images) == (40, 20)
    assert (seen[Split.VALIDATION].train_images(1), seen[Split.VALIDATION].test_images) == (30, 10)
    assert seen[Split.TEST].fingerprint == launcher.data_set.fingerprint != seen[Split.VALIDATION].fingerprint
    assert worded("run.validation", images=10) in launcher.prepare()


def test_replicates_of_a_subset_share_pixels_and_use_different_images(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", train=6, val=2)
    typed = [f"data.root={tree}", f"data.cache={tmp_path / 'cache'}", "data.train_per_class=2", "data.seed=replicate"]
    launcher = launcher_of("device=cpu", "train.batch_size=4", "data=imagenet_subset", *typed)
    first, second = (launcher.device_images(launcher.design.seed(replicate), Split.TEST) for replicate in range(2))
    assert first.fingerprint != second.fingerprint
    assert [tensor.data_ptr() for _, tensor in first.placed] == [tensor.data_ptr() for _, tensor in second.placed]
    assert first.train_images(1) == second.train_images(1) == 6
    assert worded("run.own_subset") in launcher.prepare()


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.validation=0.2"], DataError, refusal("data.validation=0.2", "data.empty_class", name="0")),
        (
            ["data.validation=0.5", "train.batch_size=22"],
            UsageError,
            refusal("train.batch_size=22", "run.too_few", images=20),
        ),
    ],
)
def test_an_impossible_or_too_small_split_is_rejected_before_training(
    overrides: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _ = launcher_of(*SMALL, "sweep=search", *overrides).images


def test_a_function_runs_alone_in_this_process_with_the_threads_of_the_study() -> None:
    launcher = launcher_of(*SMALL)
    launcher.threads = 2
    assert launcher.alone(threads_and_process, 10) == (12, os.getpid())
    with pytest.raises(KeyError, match="planted"):
        launcher.alone(fail, "planted")


def test_functions_run_in_another_process_after_one_loses_the_gpu() -> None:
    with closing(launcher_of(*SMALL)) as launcher:
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            launcher.alone(raise_fault)
        assert launcher.alone(os.getpid) != os.getpid()


@pytest.mark.parametrize("begins", [False, True])
def test_another_process_takes_over_after_the_loss_of_the_gpu(monkeypatch: pytest.MonkeyPatch, begins: bool) -> None:
    """An earlier study or a probe may have caught the error, so the launcher itself must detect the loss."""
    launcher = launcher_of(*SMALL)
    _ = launcher.images
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "synchronize", raise_fault)
        if begins:
            launcher = launcher_of(*SMALL)
        else:
            launcher.probe(launcher.design.variants[:1], 0.0)
    with closing(launcher):
        assert not launcher.in_process
        assert launcher.prepare()
        assert [type(found) for found in launcher.probe(launcher.design.variants[:1], 0.0).values()] == [Probe]
        assert launcher.alone(os.getpid) != os.getpid()
