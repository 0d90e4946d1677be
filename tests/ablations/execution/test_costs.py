from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.analysis.costs import collect_costs
from ablations.data.device import DeviceImages
from ablations.execution import costs as module
from ablations.execution.interrupts import StudyInterruptedError
from ablations.execution.launchers.base import WorkerLostError
from ablations.measure.costs import PLAIN
from ablations.storage.costs import stored_costs
from tests.builders.costs import HERE
from tests.builders.driven import DrivenStudy
from tests.builders.launchers import Launcher
from tests.builders.measuring import Measuring
from tests.conftest import MEASURED, TINY
from tests.wording import worded

GROUPS = "sweep.factors.attention.groups"


def study_of(folder: Path, *overrides: str) -> DrivenStudy:
    return DrivenStudy(folder, *TINY, *MEASURED, *overrides)


def measured_ratios(study: DrivenStudy) -> dict[str, float]:
    costs = collect_costs(study.store.attributes, study.design)
    known = costs.metrics if costs else {}
    return {name: cost["train_time_ratio"] for name, cost in known.items() if cost}


def test_all_variants_are_measured_once_before_the_first_cell(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    trained: list[int] = []
    launcher = Measuring(study.config, lambda: trained.append(len(launcher.trained)))
    study.drive(launcher)
    assert (launcher.runs, trained) == ([["groups=1", "groups=4"]], [0])
    assert measured_ratios(study) == pytest.approx({"none": 1.0, "groups=1": 1.1, "groups=4": 1.4})
    more = study_of(tmp_path, "replicates=3")
    again = Measuring(more.config)
    more.drive(again)
    assert len(again.trained) == 3
    assert again.runs == []


def test_without_measuring_the_launcher_is_not_called(tmp_path: Path) -> None:
    study = study_of(tmp_path, "measure=off")

    def alone(*_: Any) -> None:
        raise AssertionError

    launcher = Measuring(study.config)
    launcher.alone = alone  # type: ignore[method-assign]
    study.drive(launcher)
    assert "costs" not in study.store.attributes


def test_new_variants_are_measured_together_with_their_baseline(tmp_path: Path) -> None:
    baseline = ("sweep.baseline=groups=4",)
    first = study_of(tmp_path, *baseline)
    first.drive(Measuring(first.config))
    more = study_of(tmp_path, *baseline, f"{GROUPS}=[1,4,8]")
    launcher = Measuring(more.config)
    more.drive(launcher)
    assert launcher.runs == [["groups=8", "groups=4"]]
    costs = collect_costs(more.store.attributes, more.design)
    assert costs is not None
    assert {contrast.variant: contrast.n for contrast in costs.judge("train", 0.05)} == {
        "none": 16, "groups=1": 8, "groups=8": 8,
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_measuring_resumes_with_the_interrupted_run(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)
    study = study_of(tmp_path, f"{GROUPS}=[1,2,4]")

    def interrupt() -> None:
        if len(launcher.runs) == 2:
            os.kill(os.getpid(), number)

    launcher = Measuring(study.config, interrupt)
    with pytest.raises(StudyInterruptedError):
        study.drive(launcher)
    assert launcher.trained == []
    assert launcher.runs == [[], ["groups=1"]]
    resumed = Measuring(study.config)
    study.drive(resumed)
    assert resumed.runs == [["groups=2"], ["groups=4"]]
    assert measured_ratios(study) == pytest.approx({"none": 1.0, "groups=1": 1.1, "groups=2": 1.2, "groups=4": 1.4})


def test_killed_measuring_resumes_with_the_killed_run(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from ablations import cli\n"
        "from ablations.execution import costs\n"
        "from ablations.run import PURPOSE, run\n"
        "costs.TOGETHER = 1\n"
        "sys.exit(cli.main('run', PURPOSE, run, sys.argv[1:]))\n"
    )
    typed = [*TINY, *MEASURED, "replicates=1", "train.epochs=1", "device=cpu", "tracking.enabled=false",
             "threads=1", f"results_dir={tmp_path}"]  # fmt: skip
    runs: list[list[str]] = []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", program, *typed], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        begun: list[str] = []
        for line in process.stdout:
            if line.startswith("Measuring the costs of "):
                begun.append(line.strip().removeprefix("Measuring the costs of "))
            if len(begun) == 2 and (not runs or line.startswith("Measured the costs of ")):
                process.kill()  # in its second run, after the first one is stored
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        runs.append(begun)
    assert runs == [["none", "groups=1"], ["groups=1", "groups=4"]]


def test_another_machine_measures_everything_again_and_reports_its_costs(tmp_path: Path) -> None:
    first = study_of(tmp_path, "replicates=1")
    first.drive(Measuring(first.config))
    more = study_of(tmp_path)
    there = Measuring(more.config)
    there.machine = {**HERE, "cpu": "another processor"}
    more.drive(there)
    assert there.runs == [["groups=1", "groups=4"]]
    machines = stored_costs(more.store.attributes)
    assert [machine.environment["cpu"] for machine in machines.values()] == [HERE["cpu"], "another processor"]
    costs = collect_costs(more.store.attributes, more.design)
    assert costs is not None
    assert costs.machine.environment["cpu"] == "another processor"
    back = study_of(tmp_path, "replicates=3")
    here = Measuring(back.config)
    back.drive(here)
    assert here.runs == []


def test_each_backbone_is_measured_separately(tmp_path: Path) -> None:
    factors = "sweep.factors={model: [resnet8, resnet20], attention: [none, sa]}"
    study = DrivenStudy(tmp_path, "sweep=backbones", factors, *TINY[1:], *MEASURED)
    launcher = Measuring(study.config)
    study.drive(launcher)
    assert launcher.runs == [["resnet8, sa"], ["resnet20, sa"]]
    assert set(measured_ratios(study)) == {"resnet8, none", "resnet8, sa", "resnet20, none", "resnet20, sa"}


def test_a_variant_that_cannot_be_measured_is_trained_and_measured_by_the_next_run(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    launcher = Measuring(study.config)
    launcher.failing = frozenset({"groups=4"})
    assert study.drive(launcher).failed == 0
    assert len(launcher.trained) == 6
    assert worded("costs.failed", name="groups=4", reason="too large") in study.said.getvalue()
    assert set(measured_ratios(study)) == {"none", "groups=1"}
    more = study_of(tmp_path, "replicates=3")
    again = Measuring(more.config)
    more.drive(again)
    assert again.runs == [["groups=4"]]
    assert set(measured_ratios(more)) == {"none", "groups=1", "groups=4"}


@pytest.mark.parametrize("error", [WorkerLostError("it was killed"), MemoryError("it was killed")])
def test_a_worker_that_dies_while_measuring_does_not_affect_the_study(tmp_path: Path, error: Exception) -> None:
    def die() -> None:
        raise error

    study = study_of(tmp_path)
    launcher = Measuring(study.config, die)
    assert study.drive(launcher).failed == 0
    assert len(launcher.trained) == 6
    for name in (PLAIN, "groups=1", "groups=4"):
        assert worded("costs.failed", name=name, reason="it was killed") in study.said.getvalue()


def test_real_networks_are_measured_without_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(tmp_path, "replicates=1", "train.epochs=1")
    is_measuring = []
    test_batches = DeviceImages.test_batches

    def watched(self: DeviceImages, *arguments: Any) -> Iterator[Any]:
        assert not is_measuring
        return test_batches(self, *arguments)

    class Watched(Launcher):
        def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
            is_measuring.append(True)
            assert not any(hasattr(argument, "test") for argument in arguments)
            found = super().alone(function, *arguments)
            is_measuring.clear()
            return found

    monkeypatch.setattr(DeviceImages, "test_batches", watched)
    assert study.drive(Watched(study.config)).failed == 0
    costs = collect_costs(study.store.attributes, study.design)
    assert costs is not None
    for name in ("none", "groups=1", "groups=4"):
        assert set(costs.of(name).metrics) == {
            "train_time_ratio", "test_time_ratio", "train_images_per_second", "test_images_per_second",
            "peak_memory_mib",
        }  # fmt: skip


def test_new_measurements_replace_the_old_ones_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 1)
    study = study_of(tmp_path)
    study.drive(Measuring(study.config))
    (before,) = stored_costs(study.store.attributes).values()
    only = study_of(tmp_path, "measure=only")

    def interrupt() -> None:
        if len(launcher.runs) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    launcher = Measuring(only.config, interrupt)
    with pytest.raises(StudyInterruptedError):
        only.measure(launcher)
    (after,) = stored_costs(only.store.attributes).values()
    assert after.runs[: len(before.runs)] == before.runs  # the old measurements are kept until then
    again = Measuring(only.config)
    only.measure(again)
    (last,) = stored_costs(only.store.attributes).values()
    assert again.runs == [[], ["groups=1"], ["groups=4"]]
    assert len(last.runs) == 3
    assert replace(last, taken="", runs=()) == replace(before, taken="", runs=())
