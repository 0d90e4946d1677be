from __future__ import annotations

import pandas as pd
import pytest

from ablations.analysis.effects import interactions_frame
from ablations.common.metrics import METRICS
from ablations.common.settings import Settings
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.figures.interactions import MOST_PAIRS, draw_interactions, shown_pairs
from tests.builders.drawings import cut, overlapping, written

TOP1 = METRICS["top1"]
NORMS = {"instance": 0.0, "layer": 0.5, "none": 3.0}


def crossed(factors: str) -> Design:
    return make_design(compose_config(["device=cpu", "sweep=factorial", f"sweep.factors={{attention: {{{factors}}}}}"]))


def top1_of(levels: Settings, together: float) -> float:
    """Adds the effects of the shuffle and the norm; `together` is their interaction."""
    off = levels.get("attention.shuffle", True) is False
    norm = levels.get("attention.norm", "instance")
    return 50.0 - 2 * off + NORMS[norm] + together * (off and norm == "none")


def cells(made: Design, together: float, replicates: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"variant": variant.name, "replicate": number, "top1": top1_of(variant.levels, together) + number}
            for variant in made.variants
            for number in range(replicates)
        ]
    )


SHUFFLE_AND_NORM = "shuffle: [true, false], norm: [instance, layer, none]"


def test_a_pair_of_levels_has_its_mean_and_its_departure_from_the_sum_of_main_effects() -> None:
    made = crossed(SHUFFLE_AND_NORM)
    frame = interactions_frame(cells(made, 6.0, 3), made)
    assert (frame["n"] == 3).all()
    first, last = frame.iloc[0], frame.iloc[-1]
    assert (first["level"], first["other_level"], first["mean"]) == ("shuffle=on", "norm=instance", 51.0)
    assert (last["level"], last["other_level"], last["mean"]) == ("shuffle=off", "norm=none", 58.0)
    assert last["departure"] == pytest.approx(6 - 6 / 2 - 6 / 3 + 6 / 6)
    table = frame.pivot_table("departure", "level", "other_level")
    for axis, levels in enumerate((3, 2)):
        assert table.sum(axis=axis).to_list() == pytest.approx([0] * levels)


def test_additive_effects_have_no_departure() -> None:
    made = crossed(SHUFFLE_AND_NORM)
    assert interactions_frame(cells(made, 0.0, 2), made)["departure"].to_list() == pytest.approx([0.0] * 6)


def test_other_factors_are_averaged_over() -> None:
    made = crossed(f"{SHUFFLE_AND_NORM}, gate: [sigmoid, tanh1]")
    frame = interactions_frame(cells(made, 6.0, 1), made)
    pairs = frame[["factor", "other"]].drop_duplicates().to_numpy().tolist()
    paths = ["attention.shuffle", "attention.norm", "attention.gate"]
    assert pairs == [[paths[0], paths[1]], [paths[0], paths[2]], [paths[1], paths[2]]]
    without_gate = frame[frame["other"] != "attention.gate"]["departure"]
    assert without_gate.iloc[-1] == pytest.approx(2.0)
    assert frame[frame["other"] == "attention.gate"]["departure"].to_list() == pytest.approx([0.0] * 10)
    assert frame["low"].isna().all()  # one replicate
    assert shown_pairs(frame)[0] == (paths[0], paths[1])


def test_without_crossed_factors_or_a_common_replicate_there_are_no_rows() -> None:
    made = crossed("norm: [instance, layer, none]")
    assert interactions_frame(cells(made, 0.0, 2), made).empty
    made = crossed(SHUFFLE_AND_NORM)
    assert interactions_frame(cells(made, 0.0, 1).iloc[:-1], made).empty


@pytest.mark.parametrize(
    "factors",
    [
        SHUFFLE_AND_NORM,
        f"{SHUFFLE_AND_NORM}, gate: [sigmoid, tanh1]",
        f"{SHUFFLE_AND_NORM}, gate: [sigmoid, hard_sigmoid, tanh1], pooling: [avg, max], groups: [1, 2, 4]",
    ],
    ids=["one pair", "three pairs", "more than are shown"],
)
def test_every_pair_has_its_panel_and_nothing_is_cut(factors: str) -> None:
    made = crossed(factors)
    frame = interactions_frame(cells(made, 6.0, 3), made)
    drawn = draw_interactions(frame, TOP1, "A caption of some words. " * 5)
    pairs = shown_pairs(frame)
    assert len(pairs) <= MOST_PAIRS
    assert sum(bool(axes.texts) for axes in drawn.axes) == len(pairs)
    assert "58.0\n+2.00" in written(drawn) or len(pairs) > 1
    assert cut(drawn) == overlapping(drawn) == []
