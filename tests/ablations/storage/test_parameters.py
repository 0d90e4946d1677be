"""A study's settings as Optuna's parameters: for each sweep, as studies grow, and in Optuna's tools."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
import optuna.visualization.matplotlib as plots
import pytest

from ablations.config.compose import compose_config
from ablations.config.groups import sweep_questions
from ablations.design import make_design
from ablations.storage.cell_states import CellState
from ablations.storage.parameters import ABSENT, OTHER, choices_of, distributions_of, parameters_of
from ablations.storage.study import StudyStore, open_store
from ablations.training.events import Epoch
from tests.builders.picks import some_picks

mpl.use("agg")
METRICS = ("top1", "train_time_ratio", "peak_memory_mib")
ONE_OBJECTIVE = (plots.plot_param_importances, plots.plot_slice, plots.plot_parallel_coordinate,
                 plots.plot_intermediate_values, plots.plot_optimization_history, plots.plot_edf,
                 plots.plot_timeline)  # fmt: skip


class Stored:
    """A study in a folder whose results are computed by a formula."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'optuna.db'}"

    def store(self, *overrides: str) -> StudyStore:
        design = make_design(compose_config(["device=cpu", "study=mine", *overrides]))
        store = open_store(self.url, design.study, create=True, directions=design.directions)
        store.initialise(design)
        return store

    def train(self, *overrides: str, picked: int = 0) -> None:
        """Trains the missing cells of a design, and `picked` combinations of a search's levels."""
        config = compose_config(["device=cpu", "study=mine", *overrides])
        design = make_design(config)
        store = self.store(*overrides)
        done = {cell.key for cell in store.cells() if cell.state.is_done}
        tried = replace(design, variants=(*design.variants, *some_picks(config, design, picked)))
        cells = tried.selection_cells() if design.is_search else design.cells()
        for cell in cells:
            if cell.key in done:
                continue
            store.start(cell)
            top1 = 50.0 + len(str(cell.variant.network)) % 7 + cell.replicate
            for number in range(3):
                store.report(cell, Epoch(number, 1.0, 1.0, top1 - 3 + number, 0.1, 1.0, 1e9))
            values = dict(zip(METRICS, (top1, 1 + top1 / 100, 10.0 + len(cell.key)), strict=True))
            store.finish(cell, {"result": values | {"epochs": []}, "environment": {}})

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(storage=self.url, study_name="mine")


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


@pytest.mark.parametrize("sweep", sorted(sweep_questions()))
def test_every_trial_of_every_sweep_has_a_value_for_each_varied_option(sweep: str) -> None:
    design = make_design(compose_config([f"sweep={sweep}", "device=cpu"]))
    choices = choices_of(design.varied, design.variants, {})
    distributions = distributions_of(choices)
    assert set(design.factors) <= set(choices)
    for variant in design.variants:
        values = parameters_of(variant.network, choices)
        assert values.keys() == distributions.keys() == choices.keys()
        # Optuna refuses a value outside its distribution.
        optuna.create_study().add_trial(optuna.trial.create_trial(value=1, params=values, distributions=distributions))


@pytest.mark.parametrize(
    ("overrides", "picked"),
    [(["sweep=groups"], 0), (["sweep=factorial"], 0), (["sweep=search", "sweep.objectives=[top1]"], 6)],
)
def test_optunas_tools_read_a_study_with_one_objective(stored: Stored, overrides: list[str], picked: int) -> None:
    stored.train(*overrides, "replicates=2", picked=picked)
    study, factors = stored.study, make_design(compose_config([*overrides, "device=cpu"])).factors
    frame = study.trials_dataframe()
    assert {f"params_{path}" for path in factors} <= set(frame.columns)
    assert not frame[[f"params_{path}" for path in factors]].isna().any(axis=None)
    assert set(factors) <= set(optuna.importance.get_param_importances(study))
    assert frame["value_top1"].notna().all()
    for plot in ONE_OBJECTIVE:
        assert plot(study) is not None
    curves = plots.plot_intermediate_values(study)
    assert len(curves.lines) == len(study.trials)


def test_optunas_tools_read_a_search_with_three_objectives(stored: Stored) -> None:
    overrides = ("sweep=search", "replicates=1")
    stored.train(*overrides, picked=8)
    study = stored.study
    assert study.metric_names == list(METRICS)
    factors = make_design(compose_config([*overrides, "device=cpu"])).factors
    assert {f"params_{path}" for path in factors} <= set(study.trials_dataframe().columns)
    importances = optuna.importance.get_param_importances(study, target=lambda trial: trial.values[0])
    assert set(factors) <= set(importances)
    assert plots.plot_pareto_front(study, targets=lambda trial: trial.values[:2], target_names=METRICS[:2]) is not None
    assert plots.plot_param_importances(study, target=lambda trial: trial.values[0]) is not None
    assert study.best_trials


def test_optunas_command_line_finds_the_best_trial(stored: Stored) -> None:
    stored.train("sweep=groups", "replicates=1")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("optuna")), "best-trial", "--storage", stored.url, "--study-name", "mine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "attention.groups" in done.stdout


def test_later_levels_modules_replicates_and_variants_belong_to_the_same_study(stored: Stored) -> None:
    stored.train("sweep=groups", "replicates=1")
    stored.train("sweep=groups", "replicates=2", "sweep.factors.attention.groups=[2,8]")
    stored.train("sweep=groups", "replicates=2", "sweep.variants.ours={attention: sge}")
    trials = stored.study.trials
    assert {trial.params["attention.groups"] for trial in trials} >= {0, 1, 2, 4, 8}
    assert {trial.params["attention"] for trial in trials} == {"none", "sa", "sge"}
    assert {tuple(sorted(trial.params)) for trial in trials} == {("attention", "attention.groups")}
    importances = optuna.importance.get_param_importances(stored.study)
    assert set(importances) == {"attention", "attention.groups"}


def test_a_failed_and_repeated_cell_does_not_change_the_importances(stored: Stored) -> None:
    store = stored.store("sweep=groups", "replicates=1")
    cell = next(make_design(compose_config(["sweep=groups", "replicates=1", "device=cpu", "study=mine"])).cells())
    store.start(cell)
    store.fail(cell, "error", "planted")
    stored.train("sweep=groups", "replicates=1")
    assert [trial.state.name for trial in stored.study.trials][:2] == ["FAIL", "COMPLETE"]
    assert {known.state for known in store.cells()} == {CellState.FINISHED}
    assert set(optuna.importance.get_param_importances(stored.study)) == {"attention", "attention.groups"}


def network(model: str = "resnet8", **attention: Any) -> dict[str, Any]:
    return {"model": {"name": model}, "attention": attention}


@pytest.mark.parametrize(
    ("path", "trained", "value"),
    [
        ("attention", network(name="sa"), "sa"),
        ("attention", network(name="of a later version"), OTHER),
        ("attention.groups", network(name="sa", groups=8), 8),
        ("attention.groups", network(name="none"), 0),
        ("attention.reduction", network(name="se", reduction=4), 4),
        ("attention.reduction", network(name="sa"), 0),
        ("attention.kernel_size", network(name="eca", kernel_size=0), 0),
        ("attention.kernel_size", network(name="sa"), -1),
        ("attention.gate_bias", network(name="sa", gate_bias=-2.5), -2.5),
        ("attention.gate_bias", network(name="se"), 1.0),
        ("attention.shuffle", network(name="sa", shuffle=False), False),
        ("attention.shuffle", network(name="se"), ABSENT),
        ("attention.norm", network(name="sa", norm="batch"), "batch"),
        ("attention.norm", network(name="sa", norm="group:2"), OTHER),
        ("attention.stages", network(name="sa", stages="2+3"), OTHER),
        ("model", network("timm/resnet18"), OTHER),
        ("model.stem", network(), ABSENT),
    ],
)
def test_each_kind_of_option_has_a_value_in_each_network(path: str, trained: dict[str, Any], value: object) -> None:
    choices = choices_of([path], [], {})
    assert parameters_of(trained, choices) == {path: value}


def test_an_open_kind_of_option_has_the_values_at_the_start_of_the_study() -> None:
    design = make_design(
        compose_config(
            ["device=cpu", "sweep=norm", "sweep.factors.attention.norm=[instance,'group:2']", "sweep.baseline=none",
             "sweep.variants={none: {attention: none}, deep: {attention.stages: 2+3}}"]
        )
    )  # fmt: skip
    choices = choices_of(design.varied, design.variants, {})
    values = {variant.name: parameters_of(variant.network, choices) for variant in design.variants}
    assert values["norm=group:2"] == {"attention": "sa", "attention.norm": "group:2", "attention.stages": "all"}
    assert values["deep"]["attention.stages"] == "2+3"
    later = choices_of([*design.varied, "attention.groups"], [], choices)
    assert {path: later[path] for path in choices} == choices
    assert parameters_of(network(name="sa", norm="group:4", stages="all", groups=2), later) == {
        "attention": "sa", "attention.norm": OTHER, "attention.stages": "all", "attention.groups": 2,
    }  # fmt: skip
