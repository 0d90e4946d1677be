from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import Estimate, cells_by_variant, estimate, judge
from ablations.stats.estimates import estimate_of
from tests.builders.frames import frame

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@given(VALUES)
def test_the_interval_is_students(values: list[float]) -> None:
    result = estimate(values)
    if np.std(values) < 1e-6:
        assert result.high - result.low < 1e-3
        return
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (result.low, result.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    result = estimate([3.0])
    assert (result.n, result.mean, result.has_interval) == (1, 3.0, False)
    assert math.isnan(result.low)


def test_a_mean_of_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def difference_of(cells: pd.DataFrame) -> Estimate | None:
    (contrast,) = judge(cells, {"none": "none", "sa": "none"}, margin=0.2)
    return contrast.difference


def test_differences_are_paired_by_replicate() -> None:
    # Replicates differ widely, but the pairs always differ by one point, which only a paired comparison detects.
    difference = difference_of(frame({"none": [50.013, 70.0, 90.0], "sa": [51.013, 71.0, 91.0]}))
    assert difference is not None
    assert (difference.n, difference.mean) == (3, pytest.approx(1.0))
    assert difference.low == pytest.approx(1.0)


def test_unpaired_replicates_are_left_out_of_the_difference() -> None:
    difference = difference_of(frame({"none": [50.0, 70.0, 0.0], "sa": [51.0, 72.0]}))
    assert difference is not None
    assert (difference.n, difference.mean) == (2, 1.5)


def test_without_a_pair_there_is_no_difference() -> None:
    assert difference_of(frame({"sa": [51.0]})) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(0.5, 0.94))
def test_a_higher_confidence_level_widens_the_interval(values: list[float], confidence: float) -> None:
    narrow, wide = estimate(values, confidence), estimate(values)
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high
    if wide.has_spread:
        assert wide.high - wide.low > narrow.high - narrow.low


def test_equal_values_have_an_interval_but_no_spread() -> None:
    result = estimate([0.1] * 7)
    assert (result.has_interval, result.has_spread) == (True, False)
    assert estimate([0.1, 0.2]).has_spread
    assert not estimate([0.1]).has_spread


def test_an_estimate_from_a_standard_error_uses_its_degrees_of_freedom() -> None:
    result = estimate_of(3, 1.5, 0.2, 7.5, 0.9)
    half = float(scipy_stats.t.ppf(0.95, 7.5)) * 0.2
    assert (result.n, result.mean, result.low, result.high) == (
        3,
        1.5,
        pytest.approx(1.5 - half),
        pytest.approx(1.5 + half),
    )
    normal = estimate_of(3, 1.5, 0.2, math.inf)
    assert normal.high - normal.mean == pytest.approx(1.96 * 0.2, rel=1e-3)


def test_cells_are_grouped_by_variant_in_order_of_appearance() -> None:
    cells = frame({"b": [1.0, 2.0], "a": [3.0]})
    groups = cells_by_variant(cells.iloc[[2, 0, 1]])
    assert list(groups) == ["a", "b"]
    assert groups["b"]["top1"].tolist() == [1.0, 2.0]
