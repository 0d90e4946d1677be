from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.analysis.effects import factorial_effects
from ablations.common.settings import Settings
from ablations.config.compose import compose_config
from ablations.design import Design, make_design


def crossed(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", "sweep=factorial", *overrides]))


TWO_BY_THREE = crossed(
    "sweep.factors={attention: {shuffle: [true, false], norm: [instance, layer, none]}}", "sweep.baseline=none"
)


def cells(made: Design, value: Callable[[Settings, int], float], replicates: int = 2) -> pd.DataFrame:
    rows = [
        {"variant": variant.name, "replicate": replicate, "top1": value(variant.levels, replicate)}
        for variant in made.variants
        for replicate in range(replicates)
    ]
    return pd.DataFrame(rows)


def by_name(made: Design, frame: pd.DataFrame) -> dict[str, float]:
    return {effect.name: effect.estimate.mean for effect in factorial_effects(frame, made)}


def test_effects_that_add_up_are_found_and_do_not_interact() -> None:
    def value(levels: Settings, replicate: int) -> float:
        shuffle = {True: 0.0, False: -2.0}.get(levels.get("attention.shuffle", True))
        norm = {"instance": 0.0, "layer": 0.5, "none": 3.0}[levels.get("attention.norm", "instance")]
        return 50.0 + replicate + (shuffle or 0.0) + norm

    found = by_name(TWO_BY_THREE, cells(TWO_BY_THREE, value))
    assert found == pytest.approx(
        {
            "shuffle=off": -2.0,
            "norm=layer": 0.5,
            "norm=none": 3.0,
            "shuffle=off x norm=layer": 0.0,
            "shuffle=off x norm=none": 0.0,
        }
    )


@settings(max_examples=30)
@given(st.lists(st.floats(-10, 10), min_size=12, max_size=12))
def test_effects_are_differences_of_means_and_interactions_differences_of_those(values: list[float]) -> None:
    places = {
        (shuffle, norm, replicate): values[index]
        for index, (shuffle, norm, replicate) in enumerate(
            itertools.product((True, False), ("instance", "layer", "none"), (0, 1))
        )
    }

    def value(levels: Settings, replicate: int) -> float:
        if not levels:
            return 0.0
        return places[levels["attention.shuffle"], levels["attention.norm"], replicate]

    def mean(**wanted: Any) -> float:
        chosen = [
            value
            for (shuffle, norm, _), value in places.items()
            if wanted.get("shuffle", shuffle) == shuffle and wanted.get("norm", norm) == norm
        ]
        return sum(chosen) / len(chosen)

    found = by_name(TWO_BY_THREE, cells(TWO_BY_THREE, value))
    assert found["shuffle=off"] == pytest.approx(mean(shuffle=False) - mean(shuffle=True), abs=1e-9)
    assert found["norm=none"] == pytest.approx(mean(norm="none") - mean(norm="instance"), abs=1e-9)
    without = mean(shuffle=False, norm="none") - mean(shuffle=False, norm="instance")
    with_it = mean(shuffle=True, norm="none") - mean(shuffle=True, norm="instance")
    assert found["shuffle=off x norm=none"] == pytest.approx(without - with_it, abs=1e-9)


def test_three_factors_have_effects_of_every_order() -> None:
    made = crossed()

    def value(levels: Settings, _: int) -> float:
        # Something that only the three together do.
        return 8.0 if list(levels.values()) == ["spatial", False, "none"] else 0.0

    effects = factorial_effects(cells(made, value), made)
    assert [effect.order for effect in effects] == [1, 1, 1, 2, 2, 2, 3]
    assert [effect.estimate.mean for effect in effects] == pytest.approx([2, 2, 2, 4, 4, 4, 8])
    assert effects[-1].reference == "branches=both x shuffle=on x norm=instance"


def test_an_effect_is_paired_by_replicate() -> None:
    made = crossed()
    effects = factorial_effects(cells(made, lambda _, replicate: 10.0 * replicate**0.5, replicates=4), made)
    assert all(effect.estimate.mean == pytest.approx(0) for effect in effects)
    assert all(effect.estimate.high - effect.estimate.low < 0.01 for effect in effects)
    assert {effect.estimate.n for effect in effects} == {4}


def test_a_replicate_that_lacks_a_combination_does_not_count() -> None:
    made = crossed()
    frame = cells(made, lambda *_: 1.0, replicates=3)
    frame = frame[(frame["variant"] != made.variants[3].name) | (frame["replicate"] != 1)]
    assert {effect.estimate.n for effect in factorial_effects(frame, made)} == {2}
    assert factorial_effects(frame[frame["variant"] != made.variants[3].name], made) == []


def test_one_factor_has_no_effects_beyond_its_contrasts() -> None:
    made = make_design(compose_config(["device=cpu", "sweep=norm"]))
    assert factorial_effects(cells(made, lambda *_: 1.0), made) == []
