"""Tuning on a real Optuna database, with results computed by a formula of the recipe."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ablations.analysis.tuning import trials_of
from ablations.design import Split
from ablations.stats import Verdict
from ablations.storage.cell_states import CellState
from tests.builders.tuned import OPTIMA, RATE, TunableLauncher, TunedStudy

TRIALS, REPLICATES = 5, 2
CELLS = 2 * TRIALS + 2 * 2 * REPLICATES  # trials of two variants, and their replicates under two recipes


def test_all_trials_precede_the_replicates_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    launcher = TunableLauncher(study.config)
    study.drive(launcher)
    assert launcher.trained[: 2 * TRIALS] == [f"{name} trial {i}" for i in range(TRIALS) for name in OPTIMA]
    kinds = [f"{name} {tuned}r{i}" for i in range(REPLICATES) for tuned in ("", "tuned ") for name in OPTIMA]
    assert launcher.trained[2 * TRIALS :] == kinds
    assert study.last.outlook().to_train == 0
    assert study.last.count_done() == study.last.total == CELLS
    assert {cell.state for cell in study.store.cells()} == {CellState.FINISHED}

    again = TunableLauncher(study.config)
    study.drive(again)
    assert again.trained == []


def test_all_variants_get_the_same_quasi_random_recipes(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    launcher = TunableLauncher(study.config)
    study.drive(launcher)
    first, second = launcher.recipes.values()
    assert first == second
    assert len(set(first)) == TRIALS
    rates = sorted(rate for rate, _ in first)
    # The default space is 1/8 to 4 times the recipe's learning rate of 0.3, evenly on a logarithmic scale.
    assert 0.0375 <= rates[0] < 0.12
    assert 0.4 < rates[-1] <= 1.2


def test_trials_share_seeds_between_variants_but_not_with_replicates(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    launcher = TunableLauncher(study.config)
    study.drive(launcher)
    trials, results = (launcher.seeds[split] for split in (Split.VALIDATION, Split.TEST))
    assert [len(seeds) for seeds in (*trials.values(), *results.values())] == [1] * (TRIALS + REPLICATES)
    assert not set.union(*trials.values()) & set.union(*results.values())
    keys = [cell.key for cell in study.store.cells()]
    assert len(set(keys)) == len(keys) == CELLS


def test_recipes_depend_only_on_the_validation_images(tmp_path: Path) -> None:
    first, second = TunedStudy(tmp_path / "one"), TunedStudy(tmp_path / "other")
    first.drive(TunableLauncher(first.config))
    second.drive(TunableLauncher(second.config, on_test=-1.0))  # on test images the order of recipes is reversed
    best = [study.analysis().tuned for study in (first, second)]
    assert best[0] is not None
    assert best[1] is not None
    assert best[0].recipes == best[1].recipes


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
@pytest.mark.parametrize("stop_after", [1, 9, 10, 15])
def test_resumed_tuning_ends_like_uninterrupted_tuning(tmp_path: Path, stop_after: int, sampler: str) -> None:
    whole, parts = (TunedStudy(tmp_path / name, f"tune.sampler={sampler}") for name in ("whole", "parts"))
    undisturbed = TunableLauncher(whole.config)
    whole.drive(undisturbed)
    first, second = TunableLauncher(parts.config), TunableLauncher(parts.config)
    parts.drive(first, stop_after=stop_after)
    parts.drive(second)
    assert first.trained + second.trained == undisturbed.trained
    keys = [sorted(cell.key for cell in study.store.cells()) for study in (whole, parts)]
    assert keys[0] == keys[1]


def test_an_interrupted_trial_is_started_again_with_the_same_recipe(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path, "tune.sampler=tpe")
    study.drive(TunableLauncher(study.config), stop_after=9)
    cell = next(study.schedule(study.store).cells())
    assert cell is not None
    study.store.start(cell)  # then its process is killed
    launcher = TunableLauncher(study.config)
    study.drive(launcher)
    assert launcher.trained[0] == cell.name
    attempts = [trial for trial in _optuna_trials(study) if trial.user_attrs["cell"] == cell.key]
    assert [trial.state.name for trial in attempts] == ["FAIL", "COMPLETE"]
    assert attempts[0].params == attempts[1].params


def test_tpe_follows_the_results_of_each_variant(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path, "tune.sampler=tpe", "tune.trials=18", "tune.space={train.learning_rate: [0.01, 3]}")
    launcher = TunableLauncher(study.config)
    study.drive(launcher)
    rates = {name: [rate for rate, _ in recipes] for name, recipes in launcher.recipes.items()}
    start = [recipe_rates[:4] for recipe_rates in rates.values()]
    assert start[0] == start[1]  # drawn with the same random numbers
    tuned = study.analysis().tuned
    assert tuned is not None
    for name, optimum in OPTIMA.items():
        assert 1 / 2 < tuned.recipes[name][RATE] / optimum < 2
        later = sorted(rates[name][10:])
        assert 1 / 3 < later[len(later) // 2] / optimum < 3  # the median of the later proposals


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_parallel_training_has_the_same_cells(tmp_path: Path, sampler: str) -> None:
    study = TunedStudy(tmp_path, f"tune.sampler={sampler}")
    launcher = TunableLauncher(study.config, capacity=3)
    study.drive(launcher)
    assert launcher.most == 3
    assert len(launcher.trained) == len(set(launcher.trained)) == CELLS
    first_result = next(i for i, name in enumerate(launcher.trained) if "trial" not in name)
    assert first_result == 2 * TRIALS


def test_a_diverged_trial_counts_as_worse_than_any_other(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    launcher = TunableLauncher(study.config, diverges=lambda job: job.recipe.learning_rate > 0.2)
    study.drive(launcher)
    tuned = study.analysis().tuned
    assert tuned is not None
    assert all(recipe[RATE] < 0.2 for recipe in tuned.recipes.values())
    assert tuned.trials["top1"].isna().sum() > 0
    assert tuned.expected["expected"].notna().all()


def test_a_variant_whose_trials_all_diverge_has_no_best_recipe_and_does_not_affect_others(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)

    def diverges(job: object) -> bool:
        cell = job.cell  # type: ignore[attr-defined]
        return cell.variant.name == "groups=4" and cell.split is Split.VALIDATION

    study.drive(TunableLauncher(study.config, diverges=diverges))
    analysis = study.analysis()
    assert analysis.tuned is not None
    assert set(analysis.tuned.recipes) == {"none"}
    assert [contrast.variant for contrast in analysis.contrasts] == ["groups=4"]
    assert study.last.outlook().to_train == 0


def test_variants_that_differ_only_in_the_best_learning_rate_differ_only_under_the_common_recipe(
    tmp_path: Path,
) -> None:
    study = TunedStudy(tmp_path, "replicates=8", "tune.trials=8")
    study.drive(TunableLauncher(study.config))
    analysis = study.analysis()
    best = analysis.at_best
    assert best is not None
    assert [contrast.verdict for contrast in analysis.contrasts] == [Verdict.HURTS]
    assert [contrast.verdict for contrast in best.contrasts] == [Verdict.EQUIVALENT]
    for name, optimum in OPTIMA.items():
        assert 1 / 2 < best.tried.variants[list(OPTIMA).index(name)].recipe[RATE] / optimum < 2


def test_tuning_extends_a_study_with_cells_and_more_trials_extend_tuning(tmp_path: Path) -> None:
    plain = TunedStudy(tmp_path, "tune.trials=0")
    plain.drive(TunableLauncher(plain.config))
    three = TunedStudy(tmp_path, "tune.trials=3")
    launcher = TunableLauncher(three.config)
    three.drive(launcher)
    assert len(launcher.trained) == 2 * 3 + 2 * REPLICATES
    assert all("trial" in name or "tuned" in name for name in launcher.trained)
    five = TunedStudy(tmp_path)
    more = TunableLauncher(five.config)
    five.drive(more)
    trials = [name for name in more.trained if "trial" in name]
    assert trials == [f"{name} trial {i}" for i in (3, 4) for name in OPTIMA]
    assert len(trials_of(five.design, five.store.cells())) == 2 * TRIALS


def test_tuned_options_are_parameters_in_optuna(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path)
    study.drive(TunableLauncher(study.config))
    trials = _optuna_trials(study)
    assert all({RATE, "train.weight_decay", "attention.groups"} <= trial.params.keys() for trial in trials)
    for trial in trials:
        recipe = trial.user_attrs.get("recipe", {RATE: 0.3})
        assert trial.params[RATE] == recipe[RATE]
    importances = optuna.importance.get_param_importances(
        optuna.load_study(storage=study.url, study_name=study.design.study)
    )
    assert RATE in importances


def test_a_plan_counts_trials_and_the_replicates_of_both_comparisons(tmp_path: Path) -> None:
    for sampler in ("qmc", "tpe"):
        study = TunedStudy(tmp_path / sampler, f"tune.sampler={sampler}")
        outlook = study.schedule(study.store).outlook()
        assert outlook.total == outlook.to_train == CELLS
        assert outlook.planned == outlook.missing == dict.fromkeys(OPTIMA, TRIALS + 2 * REPLICATES)


def _optuna_trials(study: TunedStudy) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(storage=study.url, study_name=study.design.study).trials
