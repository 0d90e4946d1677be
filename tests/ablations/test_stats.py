from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from ablations.stats import Typical, estimate, paired_difference, summarise

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@given(VALUES)
def test_the_interval_is_students(values: list[float]) -> None:
    made = estimate(values)
    if np.std(values) < 1e-6:
        assert made.high - made.low < 1e-3
        return
    low, high = scipy_stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=scipy_stats.sem(values))
    assert (made.low, made.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    made = estimate([3.0])
    assert (made.n, made.mean, made.has_interval) == (1, 3.0, False)
    assert math.isnan(made.low)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def frame(**top1: list[float]) -> pd.DataFrame:
    rows = [
        {"variant": variant, "replicate": replicate, "top1": value, "train_images_per_second": 100.0 + replicate,
         "train_time_ratio": [1.2, math.nan, 1.4][replicate], "peak_memory_mib": 5.0, "parameters": 10}
        for variant, values in top1.items()
        for replicate, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_difference_is_taken_replicate_by_replicate() -> None:
    # Far apart between replicates, always one point apart within: pairing sees that, a pooled comparison would not.
    made = paired_difference(frame(none=[50.0, 70.0, 90.0], sa=[51.0, 71.0, 91.0]), "sa", "none")
    assert made is not None
    assert (made.n, made.mean) == (3, 1.0)
    assert made.low == pytest.approx(1.0)


def test_replicates_that_only_one_variant_has_are_left_out_of_the_difference() -> None:
    made = paired_difference(frame(none=[50.0, 70.0, 0.0], sa=[51.0, 72.0]), "sa", "none")
    assert made is not None
    assert (made.n, made.mean) == (2, 1.5)


def test_without_a_pair_there_is_no_difference() -> None:
    assert paired_difference(frame(sa=[51.0]), "sa", "none") is None


def test_a_summary_has_each_variant_that_was_trained_in_the_order_of_the_design() -> None:
    made = summarise(
        frame(sa=[51.0, 53.0], none=[50.0, 50.0]), ["none", "sa", "untrained"], dict.fromkeys(["none", "sa"], "none")
    )
    assert [(summary.variant, summary.is_baseline) for summary in made] == [("none", True), ("sa", False)]
    assert made[0].difference is None
    assert made[1].difference is not None
    assert (made[1].difference.mean, made[1].top1.mean, made[1].train_images_per_second) == (2.0, 52.0, 100.5)


def test_costs_are_those_of_the_replicates_that_they_were_measured_of() -> None:
    (made,) = summarise(frame(sa=[51.0, 53.0, 55.0]), ["sa"], {})
    assert made.train_time_ratio is not None
    assert made.train_time_ratio == Typical(2, pytest.approx(1.3), 1.2, 1.4)
    (unknown,) = summarise(frame(sa=[51.0, 53.0, 55.0]).assign(train_time_ratio=math.nan), ["sa"], {})
    assert unknown.train_time_ratio is None
