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


def cells(design: Design, value: Callable[[Settings, int], float], replicates: int = 2) -> pd.DataFrame:
    rows = [
        {"variant": variant.name, "replicate": replicate, "top1": value(variant.levels, replicate)}
        for variant in design.variants
        for replicate in range(replicates)
    ]
    return pd.DataFrame(rows)


def by_name(design: Design, frame: pd.DataFrame) -> dict[str, float]:
    return {effect.name: effect.estimate.mean for effect in factorial_effects(frame, design)}


def test_additive_effects_are_recovered_without_interactions() -> None:
    def value(levels: Settings, replicate: int) -> float:
        shuffle = {True: 0.0, False: -2.0}.get(levels.get("attention.shuffle", True))
        norm = {"instance": 0.0, "layer": 0.5, "none": 3.0}[levels.get("attention.norm", "instance")]
        return 50.0 + replicate + (shuffle or 0.0) + norm

    effects = by_name(TWO_BY_THREE, cells(TWO_BY_THREE, value))
    assert effects == pytest.approx(
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
def test_effects_are_differences_of_means_and_interactions_differences_of_differences(values: list[float]) -> None:
    tops = {
        (shuffle, norm, replicate): values[index]
        for index, (shuffle, norm, replicate) in enumerate(
            itertools.product((True, False), ("instance", "layer", "none"), (0, 1))
        )
    }

    def value(levels: Settings, replicate: int) -> float:
        if not levels:
            return 0.0
        return tops[levels["attention.shuffle"], levels["attention.norm"], replicate]

    def mean(**wanted: Any) -> float:
        chosen = [
            value
            for (shuffle, norm, _), value in tops.items()
            if wanted.get("shuffle", shuffle) == shuffle and wanted.get("norm", norm) == norm
        ]
        return sum(chosen) / len(chosen)

    effects = by_name(TWO_BY_THREE, cells(TWO_BY_THREE, value))
    assert effects["shuffle=off"] == pytest.approx(mean(shuffle=False) - mean(shuffle=True), abs=1e-9)
    assert effects["norm=none"] == pytest.approx(mean(norm="none") - mean(norm="instance"), abs=1e-9)
    without = mean(shuffle=False, norm="none") - mean(shuffle=False, norm="instance")
    with_it = mean(shuffle=True, norm="none") - mean(shuffle=True, norm="instance")
    assert effects["shuffle=off x norm=none"] == pytest.approx(without - with_it, abs=1e-9)


def test_three_factors_have_effects_of_every_order() -> None:
    design = crossed()

    def value(levels: Settings, _: int) -> float:
        # An interaction of all three factors.
        return 8.0 if list(levels.values()) == ["spatial", False, "none"] else 0.0

    effects = factorial_effects(cells(design, value), design)
    assert [effect.order for effect in effects] == [1, 1, 1, 2, 2, 2, 3]
    assert [effect.estimate.mean for effect in effects] == pytest.approx([2, 2, 2, 4, 4, 4, 8])
    assert effects[-1].reference == "branches=both x shuffle=on x norm=instance"


def test_an_effect_is_paired_by_replicate() -> None:
    design = crossed()
    effects = factorial_effects(cells(design, lambda _, replicate: 10.0 * replicate**0.5, replicates=4), design)
    assert all(effect.estimate.mean == pytest.approx(0) for effect in effects)
    assert all(effect.estimate.high - effect.estimate.low < 0.01 for effect in effects)
    assert {effect.estimate.n for effect in effects} == {4}


def test_a_replicate_without_all_combinations_is_ignored() -> None:
    design = crossed()
    frame = cells(design, lambda *_: 1.0, replicates=3)
    frame = frame[(frame["variant"] != design.variants[3].name) | (frame["replicate"] != 1)]
    assert {effect.estimate.n for effect in factorial_effects(frame, design)} == {2}
    assert factorial_effects(frame[frame["variant"] != design.variants[3].name], design) == []


def test_a_single_factor_has_no_effects() -> None:
    design = make_design(compose_config(["device=cpu", "sweep=norm"]))
    assert factorial_effects(cells(design, lambda *_: 1.0), design) == []
