from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from scipy.stats import t as student

from ablations.reporting.figures.overhead import draw_overhead, overhead_of_variants
from tests.builders.costs import costs_of
from tests.builders.drawings import LONG, SHORT, STRANGE, UNBROKEN, cut, design_of, overlapping, written

NAMES = ["none", "sa", "se"]
ADDS = {"none": 4e6, "sa": 4.1e6, "se": 4.0e6}
PLAIN = dict.fromkeys(NAMES, 4e6)
STEPS = {"none": [0.98, 1.0, 1 / 0.98], "sa": [1.2, 1.3, 1.3**2 / 1.2], "se": [0.9]}
FORWARDS = {"none": [1.0, 1.0, 1.0], "sa": [2.0, 2.2, 2.42], "se": [1.1]}


def frame_of(steps: Mapping[str, Sequence[float]] = STEPS, forwards: Mapping[str, Sequence[float]] = FORWARDS,
             attentions: Sequence[str] = NAMES, models: Sequence[str] = ()) -> pd.DataFrame:  # fmt: skip
    design = design_of(list(steps), attentions, models)
    costs = costs_of(design, train_time_ratio=steps, test_time_ratio=forwards)
    return overhead_of_variants(costs, design, ADDS, PLAIN)


def rows_of(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    return {(str(row["name"]), str(row["mode"])): row for row in frame.to_dict("records")}  # type: ignore[misc]


def test_percentages_are_those_over_the_plain_network() -> None:
    rows = rows_of(frame_of())
    assert set(rows) == {(name, mode) for name in ("sa", "se") for mode in ("forward", "training step")}
    row = rows["sa", "training step"]
    assert row["predicted"] == pytest.approx(2.5)
    half = student.ppf(0.975, 2) * math.log(1.3 / 1.2) / math.sqrt(3)  # half-width, of the mean log ratio
    bounds = [100 * (1.3 * math.exp(sign * half) - 1) for sign in (-1, 1)]
    assert (row["measured"], row["low"], row["high"], row["n"]) == pytest.approx((30, *bounds, 3))
    half = student.ppf(0.975, 2) * math.log(1 / 0.98) / math.sqrt(3)
    noise = [100 * math.expm1(sign * half) for sign in (-1, 1)]
    assert (row["noise_low"], row["noise_high"]) == pytest.approx(noise)
    row = rows["sa", "forward"]
    assert row["measured"] == pytest.approx(120)
    assert (row["noise_low"], row["noise_high"]) == (0, 0)
    row = rows["se", "training step"]
    assert (row["predicted"], row["measured"], row["n"]) == pytest.approx((0, -10, 1))
    assert math.isnan(row["low"])
    assert math.isnan(row["high"])


def test_the_fastest_variants_are_first_in_each_mode() -> None:
    frame = frame_of()
    assert frame[["mode", "name"]].to_numpy().tolist() == [
        ["forward", "se"], ["forward", "sa"], ["training step", "se"], ["training step", "sa"],
    ]  # fmt: skip
    assert frame["label"].tolist() == ["se", "sa", "se", "sa"]
    assert set(frame["place"]) == {"resnet8"}


def test_without_a_plain_network_the_noise_is_unknown() -> None:
    frame = frame_of({name: STEPS[name] for name in ("sa", "se")}, attentions=["sa", "se"])
    assert len(frame) == 4
    assert frame[["noise_low", "noise_high"]].isna().all(axis=None)
    assert frame["measured"].notna().all()


def test_untimed_variants_are_left_out() -> None:
    frame = frame_of(STEPS | {"sa": []}, FORWARDS | {"none": []})
    assert set(rows_of(frame)) == {("se", "training step"), ("se", "forward"), ("sa", "forward")}
    assert math.isnan(rows_of(frame)["sa", "forward"]["noise_low"])
    for nothing in (
        frame_of(dict.fromkeys(NAMES, ()), dict.fromkeys(NAMES, ())),
        overhead_of_variants(None, design_of(NAMES, NAMES), ADDS, PLAIN),
    ):
        assert nothing.empty
        assert list(nothing.columns) == list(frame.columns)


def test_each_backbone_has_the_noise_of_its_plain_network() -> None:
    names = ["resnet8, none", "resnet8, sa", "resnet20, none", "resnet20, sa", "other"]
    steps = {names[0]: [1.1] * 2, names[1]: [1.2] * 2, names[2]: [1.3] * 2, names[3]: [1.4] * 2, names[4]: [1.5] * 2}
    design = design_of(names, ["none", "sa", "none", "sa", "se"], ["resnet8"] * 2 + ["resnet20"] * 3)
    costs = costs_of(design, train_time_ratio=steps)
    adds = dict(zip(names, (4e6, 5e6, 8e6, 9e6, 8e6), strict=True))
    frame = overhead_of_variants(costs, design, adds, dict(zip(names, (4e6, 4e6, 8e6, 8e6, 8e6), strict=True)))
    rows = rows_of(frame)
    assert set(frame["mode"]) == {"training step"}
    assert rows["resnet8, sa", "training step"]["noise_high"] == pytest.approx(10)
    assert rows["resnet20, sa", "training step"]["noise_high"] == pytest.approx(30)
    assert rows["resnet8, sa", "training step"]["predicted"] == pytest.approx(25)
    assert rows["resnet20, sa", "training step"]["predicted"] == pytest.approx(12.5)
    assert frame["label"].tolist() == ["resnet20, sa", "resnet20, other", "resnet8, sa"]


def test_a_name_that_starts_like_a_backbone_keeps_its_backbone_in_the_label() -> None:
    names = ["resnet18 wide", "resnet101 wide"]
    design = design_of(names, ["sa", "sa"], ["resnet18", "resnet101"])
    costs = costs_of(design, train_time_ratio={name: [1.2] for name in names})
    frame = overhead_of_variants(costs, design, dict.fromkeys(names, 2.0), dict.fromkeys(names, 1.0))
    assert sorted(frame["label"]) == sorted(names)


def test_the_legend_explains_the_bars() -> None:
    drawn = draw_overhead(frame_of(), "caption")
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["Inference", "Training step"]
    assert "measured time, 95 % CI" in written(drawn)
    assert "no attention against itself (A/A), 95 % CI" in written(drawn)
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == [
        "se\npredicted 0 %",
        "sa\npredicted +2.5 %",
    ]
    assert cut(drawn) == overlapping(drawn) == []


@STRANGE
@pytest.mark.parametrize(
    ("names", "step", "copies", "plain"),
    [
        (SHORT[:2], 0.0, 1, False),  # no predicted and no measured overhead
        (SHORT[:2], 0.0, 2, True),
        (SHORT[:2], 0.3, 1, True),
        (SHORT, 0.3, 8, True),
        (SHORT, 4.0, 8, False),
        (LONG, 0.3, 8, True),
        (LONG[:2], 0.3, 1, False),
        (UNBROKEN, -0.02, 2, True),
    ],
)
def test_unusual_studies_are_drawn_and_nothing_is_cut(names: list[str], step: float, copies: int, plain: bool) -> None:
    ratios = {name: [1.0 + step * number * (1 + 0.1 * i) for i in range(copies)] for number, name in enumerate(names)}
    design = design_of(names, ["none" if plain else "sa", *["sa"] * (len(names) - 1)])
    costs = costs_of(design, train_time_ratio=ratios, test_time_ratio=ratios)
    adds = {name: 1.0 + (step != 0) * 0.001 * number for number, name in enumerate(names)}
    frame = overhead_of_variants(costs, design, adds, dict.fromkeys(names, 1.0))
    drawn = draw_overhead(frame, "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    for axes in drawn.axes:
        assert axes.get_window_extent().width > 0.8 * drawn.dpi  # inches
