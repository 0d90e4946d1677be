from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.observe import CHANNEL, SPATIAL
from ablations.reporting.figures.gates import between_classes, draw_gates, gates_frame, gates_start
from tests.builders.drawings import LONG, SHORT, STRANGE, UNBROKEN, cut, overlapping, points, words, written
from tests.builders.kept import trained
from tests.wording import worded

BRANCHES = ("sweep=branches", "attention.groups=2")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetworks:
    return trained(tmp_path_factory.mktemp("branches"), *BRANCHES)


def analysis_of_variance(values: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Epsilon squared by definition: (SS_between - df_between MS_within) / SS_total, summed over columns."""
    between = within = 0.0
    n, classes = len(labels), sorted(set(labels.tolist()))
    for column in values.T.tolist():
        mean = math.fsum(column) / n
        for label in classes:
            own = [value for value, known in zip(column, labels.tolist(), strict=True) if known == label]
            middle = math.fsum(own) / len(own)
            between += len(own) * (middle - mean) ** 2
            within += math.fsum((value - middle) ** 2 for value in own)
    k = len(classes)
    return (between - (k - 1) * within / (n - k)) / (between + within)


@given(st.lists(st.integers(2, 5), min_size=2, max_size=5), st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
def test_the_share_between_classes_agrees_with_an_analysis_of_variance(
    counts: list[int], gates: int, seed: int, told: bool
) -> None:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    values = (random.normal(size=(len(labels), gates)) + told * labels[:, None]).astype(np.float32)
    expected = analysis_of_variance(values.astype(np.float64), labels)
    assert between_classes(values, labels) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(-100, 100), st.floats(0.1, 100), st.booleans())
def test_the_share_does_not_depend_on_shift_scale_or_the_order_of_images(
    seed: int, shift: float, scale: float, mirrored: bool
) -> None:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 4).astype(np.int64)
    values = random.normal(size=(12, 5)) + labels[:, None]
    order = random.permutation(12)
    moved = (-scale if mirrored else scale) * values[order] + shift
    share = between_classes(values.astype(np.float32), labels)
    assert between_classes(moved.astype(np.float32), labels[order]) == pytest.approx(share, abs=1e-2)


def test_the_share_of_gates_independent_of_classes_is_0_on_average() -> None:
    labels = np.repeat(np.arange(10), 4).astype(np.int64)
    shares = [
        between_classes(np.random.default_rng(seed).normal(size=(40, 8)).astype(np.float32), labels)
        for seed in range(300)
    ]
    assert abs(np.mean(shares)) < 4 * np.std(shares) / math.sqrt(300)
    assert np.std(shares) / math.sqrt(300) < 0.005  # 9 / 39 without the correction
    assert min(shares) < 0


def test_the_share_of_gates_determined_by_classes_is_1() -> None:
    labels = np.repeat(np.arange(4), 3).astype(np.int64)
    decided = np.random.default_rng(0).random((4, 7)).astype(np.float32)[labels]
    assert between_classes(decided, labels) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.full((6, 3), 0.731), [0, 0, 0, 1, 1, 1]),  # constant
        (np.full((6, 3), 1 / 3) + 1e-9, [0, 0, 0, 1, 1, 1]),  # constant within rounding
        (np.arange(6.0)[:, None], [0, 0, 0, 1, 1, 2]),  # a class of one image
        (np.arange(6.0)[:, None], [0, 1, 2, 3, 4, 5]),
        (np.arange(6.0)[:, None], [3] * 6),  # one class
        (np.arange(1.0)[:, None], [0]),
    ],
)
def test_an_undefined_share_is_nan(values: NDArray[np.float64], labels: list[int]) -> None:
    assert math.isnan(between_classes(values.astype(np.float32), np.array(labels, dtype=np.int64)))


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({}, 0.7310585786300049),
        ({"gate": "hard_sigmoid"}, 4 / 6),
        ({"gate": "hard_sigmoid", "gate_bias": 9.0}, 1.0),
        ({"gate": "hard_sigmoid", "gate_bias": -9.0}, 0.0),
        ({"gate": "tanh1", "gate_bias": 0.0}, 1.0),
        ({"gate_bias": 0.0, "transform": "conv1x1"}, 0.5),
        ({"transform": "none"}, math.nan),
        ({"transform": "affine_channel"}, math.nan),  # the spatial branch's gates have another initial value
        ({"gate": "none"}, math.nan),
        ({"name": "frozen"}, math.nan),
    ],
)
def test_the_initial_gate_is_determined_by_the_bias(settings: dict[str, object], start: float) -> None:
    attention = {"name": "sa", "gate": "sigmoid", "gate_bias": 1.0, "transform": "affine"} | settings
    assert gates_start(attention) == pytest.approx(start, nan_ok=True)


def test_a_row_summarises_the_gates_of_a_class(networks: TrainedNetworks) -> None:
    frame = gates_frame(networks)
    labels = networks.sample.labels.numpy()
    assert frame["class"].tolist()[:10] == list("0123456789")
    assert (frame["images"] == 16).all()
    for variant in networks.variants:
        for gates in networks.observations[variant.name].gates:
            place = (frame["variant"] == variant.name) & (frame["stage"] == gates.stage)
            own = frame[place & (frame["branch"] == gates.branch)]
            assert len(own) == 10
            share = analysis_of_variance(gates.opened[:, :20].astype(np.float64), labels)
            assert between_classes(gates.opened[:, :20], labels) == pytest.approx(share, abs=1e-6)
            assert (own["between"] == between_classes(gates.opened, labels)).all()
            assert set(own["module"]) == {gates.path}
            for row in own.to_dict("records"):
                values = np.sort(gates.opened[labels == int(row["class"])].astype(np.float64).ravel())
                assert row["mean"] == pytest.approx(values.mean(), abs=1e-5)
                for name, share in (("p5", 0.05), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p95", 0.95)):
                    place_in_order = share * (len(values) - 1)
                    low, high = values[math.floor(place_in_order)], values[math.ceil(place_in_order)]
                    assert low - 1e-6 <= row[name] <= high + 1e-6


def test_variants_have_rows_for_their_branches_only(networks: TrainedNetworks) -> None:
    frame = gates_frame(networks)
    found = {str(variant): set(own["branch"]) for variant, own in frame.groupby("variant", sort=False)}
    expected = {
        variant.name: {
            "both": {CHANNEL, SPATIAL}, "channel": {CHANNEL}, "spatial": {SPATIAL}, "none": set(),
        }[variant.attention["branches"]]
        for variant in networks.variants
        if variant.attention["name"] == "sa"
    }  # fmt: skip
    assert found == {name: branches for name, branches in expected.items() if branches}
    assert len(found) >= 3


def test_without_shuffle_attention_there_is_nothing_to_show(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("none")
    frame = gates_frame(trained(folder, "sweep=rivals", "sweep.factors.attention=[se]"))
    assert frame.empty
    assert {"variant", "stage", "branch", "class", "p5", "between", "start"} <= set(frame.columns)


def test_the_figure_shows_the_quantiles(networks: TrainedNetworks) -> None:
    frame = gates_frame(networks)
    both = frame[frame["variant"] == "branches=both"]
    drawn = draw_gates(both, "caption")
    assert len(drawn.axes) == 3
    for stage, axes in enumerate(drawn.axes, start=1):
        for branch in (CHANNEL, SPATIAL):
            own = both[(both["stage"] == stage) & (both["branch"] == branch)]
            above = branch == CHANNEL  # above the middle of its row
            medians = sorted((y, x) for x, y in points(axes) if (y < round(y)) == above)
            assert [x for _, x in medians] == own["p50"].tolist()
        shares = [max(100 * share, 0) for share in both[both["stage"] == stage]["between"].unique()]
        expected = f"Stage {stage} channel {shares[0]:.0f} % spatial {shares[1]:.0f} %"
        assert words(axes.get_title(loc="left")) == expected
        assert axes.get_ylim() == (9.5, -0.5)
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == list("0123456789")
    assert set(written(drawn)) >= {"channel branch", "spatial branch", "start", "Gate"}
    assert cut(drawn) == overlapping(drawn) == []


def gates_of(
    variants: Sequence[str], stages: int, classes: Sequence[str], branches: Sequence[str] = (CHANNEL, SPATIAL)
) -> pd.DataFrame:
    """A frame with given variants, stages and classes."""
    rows = []
    for index, variant in enumerate(variants):
        for stage in range(1, stages + 1):
            for number, branch in enumerate(branches):
                for place, name in enumerate(classes):
                    middle = 0.4 + 0.01 * place + 0.03 * number + 0.02 * stage
                    quantiles = {f"p{p}": middle + (p - 50) / 300 for p in (5, 25, 50, 75, 95)}
                    row = {"variant": variant, "stage": stage, "module": f"layer{stage}.0.sa", "branch": branch}
                    row |= {"class": name, "images": 4, "mean": middle} | quantiles
                    share = math.nan if index == 1 else 0.9999 if stage == 1 else -0.02
                    rows.append(row | {"between": share, "start": math.nan if index == 2 else 0.731})
    return pd.DataFrame(rows)


CLASSES = {
    "short": [str(number) for number in range(30)],
    "words": [f"class {number} of a long name" for number in range(30)],
    "unbroken": [f"n{number:08d}_greater_swiss_mountain" for number in range(30)],
}


@STRANGE
@pytest.mark.parametrize(
    ("variants", "stages", "classes", "number"),
    [
        (SHORT[:1], 1, "short", 2),
        (SHORT, 3, "short", 10),
        (SHORT[:4], 4, "short", 2),
        (SHORT[:1], 4, "short", 30),
        (SHORT[:2], 4, "words", 30),
        (SHORT[:1], 1, "words", 2),
        (SHORT[:3], 4, "unbroken", 10),
        (LONG[:1], 4, "short", 10),
        (LONG, 4, "words", 30),
        (LONG[:2], 3, "short", 2),
        (UNBROKEN[:4], 2, "short", 3),
    ],
)
def test_unusual_gates_are_drawn_and_nothing_is_cut(
    variants: list[str], stages: int, classes: str, number: int
) -> None:
    shown = CLASSES[classes][:number]
    drawn = draw_gates(gates_of(variants, stages, shown), "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    assert len(drawn.axes) == min(len(variants), 4) * stages
    for axes in drawn.axes:
        assert axes.get_window_extent().width > 0.5 * drawn.dpi  # inches
        assert axes.get_window_extent().height > 0.1 * min(number, 10) * drawn.dpi
    text = "\n".join(written(drawn)).replace("\n", " ")
    assert (worded("figures.more", what="8 more variants") in text) == (len(variants) == 12)
    assert (worded("figures.more", what="20 more classes") in text) == (number == 30)


@STRANGE
def test_the_panel_of_a_missing_stage_is_empty() -> None:
    frame = gates_of(["a", "b"], 2, ["x", "y"])
    frame = frame[(frame["variant"] == "a") | ((frame["stage"] == 2) & (frame["branch"] == CHANNEL))]
    drawn = draw_gates(frame, "caption")
    titles = [words(axes.get_title(loc="left")) for axes in drawn.axes]
    assert titles == ["Stage 1 channel 100 % spatial 100 %", "Stage 2 channel 0 % spatial 0 %", "", "Stage 2"]
    assert cut(drawn) == overlapping(drawn) == []


@STRANGE
def test_the_name_of_a_variant_without_the_first_stage_is_shown() -> None:
    frame = gates_of(["all stages", "last stage"], 3, ["x", "y"])
    drawn = draw_gates(frame[(frame["variant"] == "all stages") | (frame["stage"] == 3)], "caption")
    assert {"all stages", "last stage", "x", "y"} <= set(written(drawn))
