"""The configuration of tuning: search spaces, samplers, and invalid options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.errors import UsageError
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, Split, make_design
from ablations.design.tuning import Dimension, Tuning, recipe_of, widened
from tests.wording import refusal

RATE = "train.learning_rate"


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", *overrides]))


def tuning(*overrides: str) -> Tuning:
    configured = design("tune.trials=8", *overrides).tuning
    assert configured is not None
    return configured


def test_a_study_is_tuned_if_it_has_trials() -> None:
    assert design().tuning is None
    tuned = tuning()
    assert (tuned.trials, tuned.sampler, tuned.validation) == (8, "qmc", 0.2)
    assert tuning("data.validation=0.1").validation == 0.1


@pytest.mark.parametrize(("recipe", "rate", "decay"), [("quick", 0.3, 5e-4), ("imagenet", 0.4, 1e-4)])
def test_the_default_space_is_relative_to_the_recipe(recipe: str, rate: float, decay: float) -> None:
    space = tuning(f"train={recipe}").space
    assert space[RATE] == Dimension(pytest.approx(rate / 8, rel=0.01), pytest.approx(4 * rate), is_log=True)
    assert space["train.weight_decay"] == Dimension(pytest.approx(decay / 10), pytest.approx(10 * decay), is_log=True)


def test_without_weight_decay_the_default_space_is_the_learning_rate() -> None:
    assert list(tuning("train.weight_decay=0").space) == [RATE]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("{train.learning_rate: [0.05, 0.8]}", Dimension(0.05, 0.8, is_log=True)),
        ("{train.momentum: [0.8, 0.99]}", Dimension(0.8, 0.99)),
        ("{train.label_smoothing: [0, 0.2]}", Dimension(0.0, 0.2)),
        ("{train.batch_size: [16, 64]}", Dimension(16, 64)),
        ("{train.batch_size: [16, 32, 64]}", Dimension(choices=(16, 32, 64))),
        ("{train.schedule: [onecycle, cosine]}", Dimension(choices=("onecycle", "cosine"))),
    ],
)
def test_two_numbers_are_a_range_and_other_values_are_choices(space: str, expected: Dimension) -> None:
    (dimension,) = tuning(f"tune.space={space}").space.values()
    assert dimension == expected


def test_an_option_with_an_effect_for_some_tuned_choice_can_be_tuned() -> None:
    space = tuning("tune.space={train.optimizer: [sgd, adamw], train.momentum: [0.5, 0.8]}").space
    assert list(space) == ["train.optimizer", "train.momentum"]


def test_a_space_can_be_written_as_a_mapping_or_by_option() -> None:
    as_mapping = tuning("tune.space={train.learning_rate: [0.05, 0.8]}")
    by_option = tuning("tune.space.train.learning_rate=[0.05,0.8]")
    assert as_mapping == by_option
    assert as_mapping.id == by_option.id


def test_the_number_of_trials_does_not_change_the_id() -> None:
    assert tuning("tune.trials=5").id == tuning().id
    assert tuning("tune.space.train.learning_rate=[0.05,0.8]").id != tuning().id
    assert tuning("tune.sampler=tpe").id != tuning().id


def test_tuning_does_not_change_the_protocol_or_keys_of_other_cells() -> None:
    plain, tuned = design("sweep=rivals"), design("sweep=rivals", "tune.trials=8")
    assert plain.protocol == tuned.protocol
    assert [cell.key for cell in plain.cells()] == [cell.key for cell in tuned.cells()]


def test_the_cells_of_a_variant_differ_by_recipe_split_and_share() -> None:
    tuned, other = design("tune.trials=8"), design("tune.trials=8", "data.validation=0.3")
    plain = tuned.variants[0]
    best = replace(plain, recipe={RATE: 0.1})
    cells: list[Cell] = [
        tuned.cell(plain, 0),
        tuned.cell(best, 0),
        tuned.cell(replace(plain, recipe={RATE: 0.2}), 0),
        tuned.cell(best, 0, Split.VALIDATION),
        tuned.cell(best, 1, Split.VALIDATION),
        other.cell(best, 0, Split.VALIDATION),
    ]
    assert len({cell.key for cell in cells}) == len(cells)
    assert [cell.is_tested_once for cell in cells] == [True] * 3 + [False] * 3
    assert [bool(cell.tuning) for cell in cells] == [False] * 3 + [True] * 3
    assert [cell.name for cell in cells[:4]] == ["none r0", "none tuned r0", "none tuned r0", "none trial 0"]


def test_a_variants_recipe_is_the_common_one_with_its_tuned_values() -> None:
    variant = replace(design().variants[0], recipe={RATE: 0.1, "train.batch_size": 16})
    recipe = recipe_of(TrainConfig(epochs=3), variant)
    assert recipe == TrainConfig(epochs=3, learning_rate=0.1, batch_size=16)


@given(
    low=st.floats(1e-6, 0.1),
    ratio=st.floats(1.5, 1e3),
    edge=st.sampled_from([-1, 1]),
)
def test_a_widened_range_is_within_the_bounds_of_the_option(low: float, ratio: float, edge: int) -> None:
    high = min(low * ratio, 9.9)
    dimension = Dimension(low, high, is_log=high / low >= 10)
    wider = widened("train.weight_decay", dimension, edge)
    assert 0 <= wider[0] <= low * 1.01
    assert high * 0.99 <= wider[1] <= 10
    assert (wider[0] < low) if edge < 0 else (wider[1] > high * 1.001)


@pytest.mark.parametrize(
    ("overrides", "subject", "reason", "values"),
    [
        (["tune.space={train.lerning_rate: [0.1, 1]}"], "tune.space.train.lerning_rate", "tuning.unknown", {}),
        (["tune.space={learning_rate: [0.1, 1]}"], "tune.space.learning_rate", "tuning.unknown", {}),
        (["tune.space={data.crop: [1, 4]}"], "tune.space.data.crop", "tuning.unknown", {}),
        (["tune.space={attention.groups: [1, 4]}"], "tune.space.attention.groups=[1,4]", "tuning.varied", {}),
        (["tune.space={attention.gate: [sigmoid, tanh1]}"], "tune.space.attention.gate=[sigmoid,tanh1]",
         "tuning.network", {}),
        (["tune.space={train.epochs: [1, 4]}"], "tune.space.train.epochs=[1,4]", "tuning.budget", {}),
        (["tune.space={train.precision: [fp32, bf16]}"], "tune.space.train.precision=[fp32,bf16]",
         "tuning.computed", {}),
        (["tune.space={train.learning_rate: [0.8, 0.05]}"], "tune.space.train.learning_rate=[0.8,0.05]",
         "tuning.reversed", {"ends": "[0.05,0.8]"}),
        (["tune.space={train.learning_rate: [0.1, 0.1]}"], "tune.space.train.learning_rate=[0.1,0.1]",
         "tuning.empty", {}),
        (["tune.space={train.learning_rate: []}"], "tune.space.train.learning_rate=[]", "tuning.few", {}),
        (["tune.space={train.learning_rate: [0.1]}"], "tune.space.train.learning_rate=[0.1]", "tuning.few", {}),
        (["tune.space={train.learning_rate: 0.1}"], "tune.space.train.learning_rate=0.1", "tuning.form", {}),
        (["tune.space={train.learning_rate: [0, 1]}"], "tune.space.train.learning_rate=0", "tuning.least",
         {"least": 1e-12}),
        (["tune.space={train.batch_size: [16, 16, 32]}"], "tune.space.train.batch_size=[16,16,32]", "tuning.twice", {}),
        (["tune.space={train.warmup: [0, 0.5]}", "train.schedule=cosine"], "tune.space.train.warmup=[0.0,0.5]",
         "tuning.no_effect", {"why": "train.schedule=cosine"}),
        (["tune.space={train.momentum: [0.5, 0.8]}", "train.optimizer=adamw"], "tune.space.train.momentum=[0.5,0.8]",
         "tuning.no_effect", {"why": "train.optimizer=adamw"}),
        (["tune.trials=1"], "tune.trials=1", "tuning.too_few", {"sampler": "qmc", "least": 2}),
        (["tune.trials=4", "tune.sampler=tpe"], "tune.trials=4", "tuning.too_few", {"sampler": "tpe", "least": 5}),
        (["data.validation=0"], "data.validation=0", "tuning.no_validation", {}),
        (["data.seed=replicate"], "data.seed=replicate", "search.drawn_digits", {}),
        (["replicates=auto"], "replicates=auto", "tuning.auto", {}),
        (["sweep=search"], "tune.trials=8", "design.no_search", {}),
        (["tune.trials=0", "tune.sampler=tpe"], "tune.sampler=tpe", "tuning.no_trials", {}),
    ],
)  # fmt: skip
def test_invalid_tuning_is_refused_with_the_reason(
    overrides: list[str], subject: str, reason: str, values: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=refusal(subject, reason, **values)):
        tuning(*overrides)
