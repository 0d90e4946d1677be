"""Searches on a real Optuna database, with results computed by a formula of the levels instead of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from ablations.analysis.load import Maker, with_found_variants
from ablations.analysis.selection import collect_selection
from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import Split, make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.execution.schedules.search import can_prune
from ablations.storage.cell_states import CellState
from ablations.storage.errors import StorageError
from ablations.training.events import ERROR, Failed, Progress
from ablations.training.job import Job
from tests.builders.searches import BEST, EPOCHS, FormulaLauncher, Study, score
from tests.wording import refusal, worded


def test_each_pick_is_tried_once_and_the_best_are_confirmed_with_all_replicates(tmp_path: Path) -> None:
    study = Study(tmp_path)
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    picked, confirmed = study.picked(), study.confirmed()
    assert len(picked) == len(set(picked)) == 8
    selection = [f"{name} selection" for name in ["none", *picked]]
    results = [f"{name} r{replicate}" for replicate in range(2) for name in ["none", *confirmed]]
    assert launcher.trained == selection + results
    assert {cell.state for cell in study.store.cells()} == {CellState.FINISHED}
    scores = dict(zip(picked, study.results(), strict=True))
    assert [scores[name] for name in confirmed] == sorted(scores.values(), reverse=True)[:2]
    assert study.last.total == 9 + 3 * 2

    again = FormulaLauncher(study.config)
    study.drive(again)
    assert again.trained == []


def test_confirmation_shares_no_seed_and_no_key_with_selection(tmp_path: Path) -> None:
    study = Study(tmp_path)
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    assert len(launcher.seeds[Split.VALIDATION]) == 1  # all variants are compared under one seed
    assert len(launcher.seeds[Split.TEST]) == 2
    assert not launcher.seeds[Split.VALIDATION] & launcher.seeds[Split.TEST]
    keys = [cell.key for cell in study.store.cells()]
    assert len(keys) == len(set(keys)) == 9 + 3 * 2


def test_picks_depend_only_on_the_validation_images(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    first, second = Study(tmp_path / "one"), Study(tmp_path / "other")
    first.drive(FormulaLauncher(first.config))
    # On test images the order is reversed; results on validation images are the same.
    second.drive(
        FormulaLauncher(second.config, value=lambda levels: -score(levels), bonus=lambda levels: 2 * score(levels))
    )
    assert (second.picked(), second.confirmed()) == (first.picked(), first.confirmed())


@pytest.mark.parametrize("stop_after", [2, 9, 12])  # the first 9 select
def test_a_search_resumed_in_either_phase_ends_like_an_uninterrupted_one(tmp_path: Path, stop_after: int) -> None:
    uninterrupted, resumed = (Study(tmp_path / name) for name in ("whole", "parts"))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    undisturbed = FormulaLauncher(uninterrupted.config)
    uninterrupted.drive(undisturbed)
    first, second = FormulaLauncher(resumed.config), FormulaLauncher(resumed.config)
    resumed.drive(first, stop_after=stop_after)
    resumed.drive(second)
    assert first.trained + second.trained == undisturbed.trained
    assert resumed.confirmed() == uninterrupted.confirmed()


@pytest.mark.parametrize("capacity", [2, 40])
@pytest.mark.parametrize("prune", [False, True])
def test_a_parallel_search_confirms_after_all_picks_have_ended(tmp_path: Path, capacity: int, prune: bool) -> None:
    study = Study(tmp_path, prunes=prune)
    launcher = FormulaLauncher(study.config, capacity=capacity)
    study.drive(launcher)
    assert launcher.most == min(capacity, 9)
    assert len(launcher.trained) == len(set(launcher.trained)) == 9 + 3 * 2
    assert all(name.endswith(" selection") for name in launcher.trained[:9])
    assert len(study.picked()) == len(set(study.picked())) == 8
    given_up = {cell.variant for cell in study.store.cells() if cell.state is CellState.PRUNED}
    assert len(launcher.stopped) == len(given_up)
    assert not given_up & set(study.confirmed())
    again = FormulaLauncher(study.config, capacity=capacity)
    study.drive(again)
    assert again.trained == []


def test_more_trials_extend_a_search_and_keep_confirmed_variants(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.drive(FormulaLauncher(study.config))
    before, confirmed = study.picked(), study.confirmed()
    more = Study(tmp_path, "sweep.trials=10")
    launcher = FormulaLauncher(more.config, value=lambda levels: score(levels) + 200)  # later results are better
    more.drive(launcher)
    assert more.picked()[:8] == before
    new = more.picked()[8:]
    assert launcher.trained[:2] == [f"{name} selection" for name in new]
    assert len(launcher.trained) == 2 + 2 * 2
    assert more.confirmed()[:2] == confirmed
    assert set(more.confirmed()[2:]) == set(new)


def test_a_failed_pick_is_repeated_before_others_are_confirmed(tmp_path: Path) -> None:
    best = "groups=4, gate=tanh1"
    space = "sweep.factors={attention: {groups: [2, 4], gate: [sigmoid, tanh1]}}"  # four combinations
    study = Study(tmp_path, space, "sweep.confirm=1", "replicates=1")

    class Failing(FormulaLauncher):
        def work(self, job: Job) -> Iterator[Progress]:
            if job.cell.variant.name == best:
                yield Failed(ERROR, "lost")
            else:
                yield from super().work(job)

    study.drive(Failing(study.config))
    (second,) = study.confirmed()
    assert second != best
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    assert launcher.trained == [f"{best} selection", f"{best} r0"]
    assert study.confirmed() == [second, best]  # confirmed variants stay


def test_with_several_objectives_the_best_in_each_are_confirmed(tmp_path: Path) -> None:
    space = "sweep.factors={attention: {groups: [2, 4], gate: [sigmoid, tanh1]}}"  # memory is the number of groups
    study = Study(tmp_path, space, "sweep.objectives=[top1,peak_memory_mib]", "sweep.confirm=3", "replicates=1")
    study.drive(FormulaLauncher(study.config))
    assert study.confirmed() == ["groups=4, gate=tanh1", "groups=2, gate=tanh1"]  # the others are dominated


def test_the_sampler_learns_from_earlier_results(tmp_path: Path) -> None:
    study = Study(tmp_path, "sweep.trials=20", "sweep.factors.attention.transform=[affine,conv1x1,none]",
                  "sweep.factors.attention.shuffle=[true,false]", "replicates=1", "sweep.confirm=1")  # fmt: skip
    study.drive(FormulaLauncher(study.config))
    assert max(study.results()) == score(BEST)  # 6 of the 144 combinations have it


def test_an_objective_to_minimize_is_minimized(tmp_path: Path) -> None:
    study = Study(tmp_path, "sweep.objectives=[peak_memory_mib]", "sweep.trials=16", "replicates=1")
    study.drive(FormulaLauncher(study.config))
    memory = study.results("peak_memory_mib")  # the number of groups, here
    assert sum(memory[-6:]) < sum(memory[:6])
    assert memory[-6:].count(1.0) >= 3


def test_variants_with_too_many_parameters_are_not_trained(tmp_path: Path) -> None:
    study = Study(tmp_path, "sweep.max_parameters=5", count=lambda variant: variant.attention["groups"])
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    assert launcher.trained
    assert not any("groups=8" in name for name in launcher.trained)
    assert study.last.ending == ""


def test_parameter_counts_are_those_of_the_trained_network() -> None:
    config = compose_config(["device=cpu", "sweep=search"])
    design = make_design(config)
    launcher = SerialLauncher(design, config.data)
    assert launcher.count_parameters(design.variants[0]) == 75_290


def test_a_search_ends_if_no_combination_is_left(tmp_path: Path) -> None:
    study = Study(tmp_path, "sweep.factors={attention: {branches: [both, channel], norm: [instance, batch]}}")
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    assert study.last.ending == worded("search.exhausted")
    # branches=channel with norm=batch is the same network as with another norm.
    assert sorted(study.picked()) == [
        "branches=both, norm=batch", "branches=both, norm=instance", "branches=channel, norm=instance",
    ]  # fmt: skip


def test_pruned_variants_are_not_resumed(tmp_path: Path) -> None:
    study = Study(tmp_path, "sweep.trials=16", prunes=True)
    launcher = FormulaLauncher(study.config)
    study.drive(launcher)
    cells = study.store.cells()
    given_up = [cell for cell in cells if cell.state == CellState.PRUNED]
    finished = {cell.variant for cell in cells if cell.state == CellState.FINISHED}
    assert {cell.variant for cell in cells if cell.split is Split.TEST} <= finished
    assert given_up
    assert {cell.split for cell in given_up} == {Split.VALIDATION}
    assert not {cell.variant for cell in given_up} & finished
    for cell in given_up:
        assert score(cell.levels) < max(study.results())
        assert cell.outcome is not None
        assert 1 <= len(cell.outcome["result"]["epochs"]) < EPOCHS
        assert "is worse than the median" in cell.outcome["pruned"]

    again = FormulaLauncher(study.config)
    study.drive(again)
    assert again.trained == []

    design = with_found_variants(study.design, cells, Maker(study.config))
    unfinished = collect_selection(design, cells).results.unfinished
    assert set(unfinished["state"]) == {"pruned"}
    assert sorted(unfinished["variant"]) == sorted(cell.variant for cell in given_up)
    assert unfinished["reason"].str.contains("median").all()


def test_a_cell_pruned_before_its_driver_died_stays_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    study = Study(tmp_path)
    store = study.store
    cell = next(study.schedule(store).cells())
    assert cell is not None
    store.start(cell)
    outcome = {"result": {"epochs": [{"epoch": 0, "top1": 3.0}]}, "pruned": "hopeless", "environment": {}}
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", killed)
        with pytest.raises(Killed):
            store.finish(cell, outcome)
    again = study.store
    again.take_over()
    assert [cell.state for cell in again.cells()] == [CellState.PRUNED]


def test_pruning_needs_a_single_objective_measured_after_every_epoch() -> None:
    assert can_prune(["top1"])
    assert can_prune(["test_loss"])
    assert not can_prune(["peak_memory_mib"])
    assert not can_prune(["top1", "test_loss"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sweep.factors={}"], refusal("sweep.factors", "design.empty_factors")),
        (["sweep.factors.attention.groups=[1,2,1]"], refusal("groups=[1,2,1]", "search.twice")),
        (["sweep.objectives=[]"], refusal("sweep.objectives=[]", "options.empty", valid="top1")),
        (["sweep.objectives=[accuracy]"], refusal("sweep.objectives=accuracy", "search.no_metric", valid="top1")),
        (["sweep.objectives=[top1,top1]"], refusal("sweep.objectives=[top1,top1]", "search.same_objective")),
        (
            ["sweep.objectives=[top1,train_time_ratio]", "measure=off"],
            refusal("measure=off", "search.unmeasured", objective="train_time_ratio"),
        ),
        (["sweep.confirm=0"], refusal("sweep.confirm=0", "options.below", least=1)),
        (["data.validation=0"], refusal("data.validation=0", "search.no_validation")),
        (["data.seed=replicate"], refusal("data.seed=replicate", "search.drawn_digits")),
        (["sweep.trials=0"], refusal("sweep.trials=0", "options.below", least=1)),
        (
            ["sweep.factors.attention.gate=[sigmoid,relu]"],
            refusal("gate=relu", "options.unknown", valid="sigmoid, hard_sigmoid"),
        ),
        (
            ["sweep.factors.attention.groups=[1,3]"],
            refusal("attention.groups=3: at layer1.0.sa of resnet8: groups=3", "knobs.not_split", channels=16),
        ),
    ],
)
def test_an_impossible_search_is_refused_before_training(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_design(compose_config(["device=cpu", "sweep=search", *overrides]))


def test_a_level_that_is_valid_only_in_some_combinations_is_accepted() -> None:
    make_design(compose_config(["device=cpu", "sweep=search", "sweep.factors.attention.removed=[identity,reassign]"]))


def test_a_stored_search_with_other_objectives_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path)
    study.drive(FormulaLauncher(study.config), stop_after=1)
    other = Study(tmp_path, "sweep.objectives=[test_loss]")
    with pytest.raises(StorageError, match=worded("search.stored", stored="top1", asked="test_loss")):
        _ = other.store
