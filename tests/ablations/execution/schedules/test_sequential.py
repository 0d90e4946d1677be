"""`replicates=auto` on a real store, with accuracies computed by a formula instead of training."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ablations import cli
from ablations.analysis.results import collect
from ablations.common.errors import UsageError
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.execution.schedules.sequential import SequentialSchedule, interims_of
from ablations.run import PURPOSE, run
from ablations.stats import InterimAnalyses, Verdict, judge
from ablations.storage.cell_states import CellState
from ablations.storage.errors import StorageError
from ablations.storage.study import open_store
from ablations.training.events import ERROR, Failed, Finished, Progress
from ablations.training.job import Job
from ablations.training.train import Epoch, Result
from tests.builders.driven import DrivenStudy
from tests.builders.several import Several
from tests.conftest import Command
from tests.wording import refusal, worded

# With up to 16 replicates there are interim analyses at 8, 11 and 16.
SIZES = (8, 11, 16)
TINY = ("device=cpu", "sweep.factors.attention.groups=[1,4]", "data.train_images=64", "data.test_images=10",
        "train.epochs=1", "sweep.margin=0.2", "measure=off")  # fmt: skip
AUTO = ("replicates=auto", "replicates.max=16")


def wiggle(replicate: int) -> float:
    """Noise that averages out: neither a difference nor equivalence is significant."""
    return (1 + 0.1 * replicate) * (-1.0 if replicate % 2 else 1.0)


def mixed(variant: str, replicate: int) -> float:
    """groups=1 helps clearly, and groups=4 stays undecided."""
    noise = wiggle(replicate)
    return {"none": 50.0 + noise, "groups=1": 55.0 + 0.1 * replicate + noise, "groups=4": 50.0 - noise}[variant]


def clear(variant: str, replicate: int) -> float:
    """groups=1 helps, and groups=4 is equivalent."""
    return {"none": 50.0, "groups=1": 55.0, "groups=4": 50.0}[variant] + 0.001 * wiggle(replicate) * (variant != "none")


def hopeless(variant: str, replicate: int) -> float:
    """All contrasts stay undecided."""
    return 50.0 + wiggle(replicate) * (-1.0 if variant == "none" else 1.0)


def later(variant: str, replicate: int) -> float:
    """groups=4 also helps, but a bad replicate hides it at the first interim analysis."""
    if variant != "groups=4":
        return clear(variant, replicate)
    return 47.0 if replicate == 3 else 52.0 + 0.001 * wiggle(replicate)


class MadeUpLauncher(Several):
    """Cells that take no time, with results computed by a formula."""

    def __init__(self, config: Config, top1: Callable[[str, int], float], failing: str = "", capacity: int = 1) -> None:
        super().__init__(make_design(config), config.data)
        self.hold(capacity)
        self._top1, self._failing = top1, failing
        self.trained: list[str] = []

    def work(self, job: Job) -> Iterator[Progress]:
        cell = job.cell
        self.trained.append(cell.name)
        if cell.name == self._failing:
            yield Failed(ERROR, "ValueError: planted")
            return
        top1 = self._top1(cell.variant.name, cell.replicate)
        result = Result(top1, 1.0, 10, 1.0, (Epoch(0, 1.0, 1.0, top1, 0.1, 1.0, 1e9),))
        yield Finished(result.to_dict(), {"cpu": "one"})


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Turns off synchronous commits, which would take most of the time of these tests."""

    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)


class Study(DrivenStudy):
    """A study in a folder, resumed any number of times."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        super().__init__(folder, *TINY, *(overrides or AUTO))

    def train(
        self,
        top1: Callable[[str, int], float],
        *,
        stop_after: int | None = None,
        failing: str = "",
        capacity: int = 1,
    ) -> list[str]:
        """Resumes the study as `run` does; returns the trained cells."""
        launcher = MadeUpLauncher(self.config, top1, failing, capacity)
        self.found.clear()
        self.drive(launcher, stop_after=stop_after)
        return launcher.trained

    def replicates(self) -> dict[str, list[int]]:
        """The finished replicates of each variant."""
        found: dict[str, list[int]] = {variant.name: [] for variant in self.design.variants}
        for cell in self.store.cells():
            if cell.state is CellState.FINISHED:
                found[cell.variant].append(cell.replicate)
        return {name: sorted(replicates) for name, replicates in found.items()}

    def verdicts(self) -> dict[str, Verdict]:
        ended = collect(self.design, self.store.cells()).ended
        interims = interims_of(self.design, self.store.attributes["looks"])
        contrasts = judge(ended, self.design.baselines, self.design.margin, interims=interims)
        return {contrast.variant: contrast.verdict for contrast in contrasts}


MIXED_ORDER = [
    *(f"{name} r{replicate}" for replicate in range(8) for name in ("none", "groups=1", "groups=4")),
    *(f"{name} r{replicate}" for replicate in range(8, 16) for name in ("none", "groups=4")),
]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def upto(number: int) -> list[int]:
    return list(range(number))


def test_only_undecided_variants_and_their_baseline_get_more_replicates(study: Study) -> None:
    trained = study.train(mixed)
    assert study.replicates() == {"none": upto(16), "groups=1": upto(8), "groups=4": upto(16)}
    assert len(trained) == len(set(trained)) == 16 + 8 + 16
    # In the order of replicates, so that an interruption leaves pairs.
    assert trained[24:28] == ["none r8", "groups=4 r8", "none r9", "groups=4 r9"]
    assert study.verdicts() == {"groups=1": Verdict.HELPS, "groups=4": Verdict.UNDECIDED}


def test_each_interim_analysis_reports_its_decisions_and_added_replicates(study: Study) -> None:
    study.train(mixed)
    assert study.found == [
        (worded("looks.look", replicates=8, decided=1, contrasts=2, named="none, groups=4", more=3), 24 + 6),
        (worded("looks.look", replicates=11, decided=1, contrasts=2, named="none, groups=4", more=5), 30 + 10),
    ]


def test_a_study_ends_when_everything_is_decided(study: Study) -> None:
    study.train(clear)
    assert study.replicates() == dict.fromkeys(["none", "groups=1", "groups=4"], upto(8))
    assert study.verdicts() == {"groups=1": Verdict.HELPS, "groups=4": Verdict.EQUIVALENT}
    assert study.found == []
    assert study.train(clear) == []


def test_an_undecided_study_ends_with_the_last_interim_analysis(study: Study) -> None:
    study.train(hopeless)
    assert len(study.found) == 2
    assert study.replicates() == dict.fromkeys(["none", "groups=1", "groups=4"], upto(16))
    assert study.train(hopeless) == []
    assert study.found == []  # a finished study reports nothing


def test_contrasts_decided_at_a_later_interim_analysis_get_no_more_replicates(study: Study) -> None:
    study.train(later)
    assert study.replicates() == {"none": upto(11), "groups=1": upto(8), "groups=4": upto(11)}
    # The difference is significant, but the variant is unstable, so its mean is not reported as an effect.
    assert study.verdicts() == {"groups=1": Verdict.HELPS, "groups=4": Verdict.UNSTABLE}


@pytest.mark.parametrize("stop_after", [5, 24, 29, 30])
def test_a_resumed_study_trains_exactly_the_missing_cells(study: Study, stop_after: int) -> None:
    first = study.train(mixed, stop_after=stop_after)
    second = study.train(mixed)
    assert len(first) == stop_after
    assert [*first, *second] == MIXED_ORDER


def test_a_run_resumed_within_a_batch_reports_the_remaining_cells_and_their_cost(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.train(mixed, stop_after=28)
    typed = [*TINY, *AUTO, "launcher=serial", f"results_dir={tmp_path}", "tracking.enabled=false"]
    assert cli.main("run", PURPOSE, run, typed) == 0
    printed = capsys.readouterr().out
    # This batch ends with its remaining cells, and another one may follow.
    assert "replicates: 8 to 16, " + worded("run.to_train", cells=30, left=2) in printed
    assert "Cost: about 2 s for 2 cells." in printed.splitlines()
    assert "[29/30] none r10" in printed
    assert worded("looks.look", replicates=8, decided=1, contrasts=2, named="none, groups=4", more=3) in printed


@pytest.mark.parametrize("capacity", [2, 5, 40])
def test_an_interim_analysis_waits_for_all_its_cells_with_any_parallelism(study: Study, capacity: int) -> None:
    trained = study.train(mixed, capacity=capacity)
    assert len(trained) == len(set(trained))
    assert set(trained[:24]) == set(MIXED_ORDER[:24])
    assert set(trained) == set(MIXED_ORDER)


def test_a_cell_started_by_a_killed_run_is_trained_once(study: Study) -> None:
    study.train(mixed, stop_after=26)
    study.store.start(study.design.cell(study.design.variants[0], 9))  # then the process is killed
    assert study.train(mixed) == MIXED_ORDER[26:]


@pytest.mark.parametrize("failing", ["groups=4 r4", "groups=4 r11", "none r14"])
def test_a_failed_cell_is_repeated(study: Study, failing: str) -> None:
    study.train(mixed, failing=failing)
    study.train(mixed)
    assert study.replicates() == {"none": upto(16), "groups=1": upto(8), "groups=4": upto(16)}
    assert study.train(mixed) == []


def test_replicates_of_a_study_with_a_fixed_number_are_used(tmp_path: Path) -> None:
    fixed, auto = Study(tmp_path, "replicates=10"), Study(tmp_path)
    assert len(fixed.train(mixed)) == 30
    assert auto.train(mixed) == [
        f"{name} r{number}" for number in range(10, 16) for name in ("none", "groups=4")
    ]  # fmt: skip
    assert auto.found[0] == (
        worded("looks.look", replicates=8, decided=1, contrasts=2, named="none, groups=4", more=3),
        30 + 2,
    )


def test_undecided_contrasts_add_replicates_only_of_their_baseline(tmp_path: Path) -> None:
    sweep = ("sweep.factors={model: [resnet8, resnet20], attention: [none, sa]}", "sweep.variants={}",
             "sweep.baseline=none")  # fmt: skip
    store = open_store(f"sqlite:///{tmp_path / 'optuna.db'}", "x", create=True)
    design = make_design(compose_config(["device=cpu", "study=x", *sweep, *AUTO]))
    store.initialise(design)
    cells = [design.cell(variant, replicate) for replicate in range(8) for variant in design.variants]
    for cell in cells:
        store.start(cell)
        clear_one = 5 * (cell.variant.name == "resnet20, sa")
        noise = wiggle(cell.replicate) * (-1.0 if cell.variant.name == "resnet8, sa" else 1.0)
        top1 = 50 + clear_one + noise
        result = Result(top1, 1.0, 10, 1.0, ()).to_dict()
        store.finish(cell, {"result": result, "environment": {}})
    found = SequentialSchedule(design, store, InterimAnalyses(SIZES)).cells()
    assert [cell.name if cell else None for cell in islice(found, 4)] == [
        "resnet8, none r8", "resnet8, sa r8", "resnet8, none r9", "resnet8, sa r9",
    ]  # fmt: skip


def test_a_study_stores_its_interim_analyses(study: Study) -> None:
    study.train(mixed)
    assert study.store.attributes["looks"] == list(SIZES)
    # More contrasts would have later interim analyses, but the error rate of earlier ones is already spent.
    study.store.remember("looks", [8, 16])
    assert interims_of(study.design, study.store.attributes["looks"]) == InterimAnalyses((8, 16))


def test_another_replicates_max_is_refused_for_a_stored_study(study: Study, tmp_path: Path) -> None:
    study.train(mixed, stop_after=1)
    other = Study(tmp_path, "replicates=auto", "replicates.max=20")
    with pytest.raises(StorageError, match=refusal("replicates.max=20", "looks.begun", begun=16, then="study=")):
        interims_of(other.design, other.store.attributes["looks"])


def test_too_few_replicates_to_decide_are_refused_with_the_minimum() -> None:
    asked = make_design(compose_config([*TINY, "replicates=auto", "replicates.max=5"]))
    with pytest.raises(UsageError, match=refusal("replicates.max=5", "looks.too_few")):
        interims_of(asked)
    assert InterimAnalyses.planned(5) is None
    assert interims_of(make_design(compose_config([*TINY, "replicates=auto", "replicates.max=6"]))).sizes == (6,)


def test_a_sweep_without_contrasts_is_refused() -> None:
    asked = make_design(compose_config(["device=cpu", "sweep.factors={}", "replicates=auto"]))
    with pytest.raises(UsageError, match=refusal("replicates=auto", "looks.nothing")):
        interims_of(asked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replicates.max=16"], "error: " + refusal("replicates.max=16", "design.no_auto")),
        (["sweep=search", "replicates=auto"], "error: " + refusal("replicates=auto", "design.compared")),
        (
            ["replicates=auto", "replicates.max=5"],
            "error: " + refusal("replicates.max=5", "looks.too_few"),
        ),
    ],
)
def test_invalid_options_give_one_message_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("run", PURPOSE, run, ["device=cpu", *arguments, f"results_dir={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert re.match(message, errors)
    assert len(errors.splitlines()) == 1


def test_a_run_with_another_replicates_max_than_stored_is_refused(
    study: Study, tmp_path: Path, command: Command
) -> None:
    study.train(mixed, stop_after=1)
    done = command("run", *TINY, "replicates=auto", "replicates.max=12", f"results_dir={tmp_path}",
                   "tracking.enabled=false")  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert re.match("error: " + refusal("replicates.max=12", "looks.begun", begun=16), done.stderr)
    assert len(study.store.cells()) == 1


REAL = ("device=cpu", "sweep=shuffle", "replicates=auto", "replicates.max=10", "train.epochs=1", "measure=off",
        "train.batch_size=16", "data.train_images=64", "data.test_images=100", "tracking.enabled=false",
        "weights=off")  # fmt: skip


def test_a_real_study_runs_until_it_is_decided_or_complete(tmp_path: Path, command: Command) -> None:
    done = command("run", *REAL, f"results_dir={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    sizes = interims_of(make_design(compose_config([*REAL]))).sizes
    first = 5 * sizes[0]
    assert f"replicates: {sizes[0]} to 10, " + worded("run.to_train", cells=first, left=first) in done.stdout
    assert "Verdicts are from paired tests" in done.stdout
    stored = optuna.load_study(study_name="shuffle-digits-resnet8", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert stored.user_attrs["looks"] == list(sizes)
    assert {trial.state for trial in stored.trials} == {optuna.trial.TrialState.COMPLETE}
    number = len(stored.trials)
    assert first <= number <= 50
    assert f"[{number}/{number}]" in done.stdout
    assert (f"Interim analysis at {sizes[0]} replicates: " in done.stdout) == (number > first)
    assert worded("conclusions.added", trained=number, most=50) in done.stdout

    again = command("run", *REAL, f"results_dir={tmp_path}")
    assert (again.returncode, again.stderr) == (0, "")
    assert worded("run.finished", cells=number) in again.stdout
    table = done.stdout[done.stdout.index("┏") :]
    assert again.stdout[again.stdout.index("┏") :] == table
