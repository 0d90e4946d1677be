from __future__ import annotations

import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.stats.layout import Layout
from ablations.stats.significance import ALPHA, family_tests
from tests.builders.frames import against_nothing, frame

REPLICATES = st.dictionaries(st.integers(0, 12), st.floats(0, 100), max_size=8)
NAN = math.nan


def test_values_are_arranged_by_replicate_and_variant() -> None:
    layout = Layout.of(frame({"none": {2: 52.0, 0: 50.0}, "a": {0: 60.0, 3: NAN}}), "top1")
    assert layout.variants == ("none", "a")
    assert layout.replicates.tolist() == [0, 2, 3]
    assert layout.column("none") == pytest.approx([50.0, 52.0, NAN], nan_ok=True)
    assert layout.column("a") == pytest.approx([60.0, NAN, NAN], nan_ok=True)
    assert layout.ended.tolist() == [[True, True], [True, False], [False, True]]
    assert layout.results("none").tolist() == [50.0, 52.0]
    assert layout.results("unknown").tolist() == []


def test_any_metric_is_arranged() -> None:
    layout = Layout.of(frame({"a": [0.5, 0.25]}, "test_loss"), "test_loss")
    assert layout.results("a").tolist() == [0.5, 0.25]


@settings(deadline=None)
@given(REPLICATES, REPLICATES, st.randoms(use_true_random=False))
def test_differences_are_of_common_replicates_by_number(
    own: dict[int, float], other: dict[int, float], random: Random
) -> None:
    rows = [("a", *row) for row in own.items()] + [("none", *row) for row in other.items()] + [("else", 0, 1.0)]
    random.shuffle(rows)
    cells = pd.DataFrame(rows, columns=["variant", "replicate", "top1"])
    layout = Layout.of(cells, "top1")
    # Fewer unpaired baseline runs than pairs, so that none is averaged in.
    responses = layout.responses({"a": "none"})
    both = sorted(own.keys() & other.keys())
    if len(other) < 2 * len(both) or len(both) < 6:
        differences = responses.differences[np.isin(layout.replicates, both), 0]
        assert differences.tolist() == [own[replicate] - other[replicate] for replicate in both]
        assert responses.squared_weights.tolist() == [2.0]
    assert responses.counts.tolist() == [len(both)]


@pytest.mark.parametrize(("own", "other"), [([0, 0], [0, 1]), ([0, 1], [0, 0]), ([0, 0, 1], [0, 1]), ([0, 0], [0, 0])])
def test_a_duplicate_replicate_is_an_error(own: list[int], other: list[int]) -> None:
    rows = [("a", replicate, 1.0) for replicate in own] + [("none", replicate, 2.0) for replicate in other]
    with pytest.raises(ValueError, match=r"replicate 0 of .* is there twice"):
        Layout.of(pd.DataFrame(rows, columns=["variant", "replicate", "top1"]), "top1")


def test_a_cell_that_diverged_has_ended() -> None:
    layout = Layout.of(frame({"none": [1.0, 2.0, 3.0], "a": [1.0, NAN, 3.0], "b": {0: 1.0, 2: 3.0}}), "top1")
    assert [layout.has_ended("a", size) for size in (1, 2, 3, 4)] == [True, True, True, False]
    assert [layout.has_ended("b", size) for size in (1, 2, 3)] == [True, False, False]
    assert not layout.has_ended("unknown", 1)
    assert [layout.lost(name) for name in ("none", "a", "b", "unknown")] == [0, 1, 0, 0]


def test_the_first_replicates_are_those_of_the_lowest_numbers() -> None:
    layout = Layout.of(frame({"none": [1.0, 2.0, 3.0], "a": {2: 7.0, 0: 5.0}}), "top1").before(2)
    assert layout.replicates.tolist() == [0, 1]
    assert layout.column("none").tolist() == [1.0, 2.0]
    assert layout.results("a").tolist() == [5.0]
    assert layout.lost("a") == 0
    assert layout.has_ended("none", 2)


def test_only_variants_of_the_contrasts_contribute_to_the_variance() -> None:
    layout = Layout.of(frame({"else": [1.0, 9.0], "none": [1.0, 2.0], "a": [2.0, 3.0]}), "top1")
    responses = layout.responses({"a": "none", "missing": "none"})
    assert np.array_equal(responses.values, [[2.0, 1.0], [3.0, 2.0]])
    assert responses.counts.tolist() == [2, 0]
    assert layout.responses({}).differences.shape == (2, 0)


@pytest.mark.parametrize("extra", [1, 2, 3])
def test_unpaired_replicates_of_a_baseline_are_averaged_in(extra: int) -> None:
    pairs, draws = 6, np.random.default_rng(extra)
    none, a, b = draws.random(pairs * (1 + extra)), draws.random(pairs), draws.random(pairs)
    responses = Layout.of(frame({"none": none, "a": a, "b": b}), "top1").responses({"a": "none", "b": "none"})
    shared = none[pairs:].reshape(pairs, extra)
    baseline = (none[:pairs] + shared.sum(axis=1)) / (1 + extra)
    assert responses.counts.tolist() == [pairs, pairs]
    assert responses.differences[:pairs] == pytest.approx(np.column_stack([a - baseline, b - baseline]))
    assert responses.squared_weights == pytest.approx([1 + 1 / (1 + extra)] * 2)


def test_fewer_unpaired_replicates_than_pairs_are_left_out() -> None:
    none = [float(number) for number in range(11)]
    responses = Layout.of(frame({"none": none, "a": none[:6]}), "top1").responses({"a": "none"})
    assert responses.differences[:6, 0].tolist() == [0.0] * 6
    assert responses.squared_weights.tolist() == [2.0]


def test_each_baseline_uses_only_its_unpaired_replicates() -> None:
    none, a, b = ([float(number) for number in range(most)] for most in (12, 12, 6))
    responses = Layout.of(frame({"none": none, "a": a, "b": b}), "top1").responses({"a": "none", "b": "a"})
    assert responses.counts.tolist() == [12, 6]
    assert responses.squared_weights.tolist() == [2.0, 1.5]


def test_contrasts_of_fewer_than_6_pairs_use_no_unpaired_replicates() -> None:
    # One contrast has too few pairs, the other has enough.
    none = np.random.default_rng(0).random(14)
    cells = frame({"none": none, "a": [1.0] * 5, "b": [1.0] * 7})
    responses = Layout.of(cells, "top1").responses({"a": "none", "b": "none"})
    assert responses.squared_weights.tolist() == [2.0, 1.5]
    assert responses.differences[:5, 0] == pytest.approx(1 - none[:5])
    assert responses.differences[:7, 1] == pytest.approx(1 - (none[:7] + none[7:]) / 2)


@pytest.mark.parametrize("pairs", [3, 6])
def test_unpaired_baseline_replicates_keep_the_error_rate_if_replicates_differ(pairs: int) -> None:
    # The common variation of a replicate, as from a data subset, has three times the spread of a run, and unpaired
    # runs do not have it. Averaged in at 3 pairs, they would make 39 % of studies wrong.
    draws, wrong, studies = np.random.default_rng(pairs), 0, 400
    baselines = against_nothing("a", "b", "c", "d")
    for _ in range(studies):
        values = draws.standard_normal((4 * pairs, 5)) + 3 * draws.standard_normal((4 * pairs, 1))
        values[pairs:, 1:] = NAN
        layout = Layout(tuple(baselines), np.arange(4 * pairs), values, ~np.isnan(values))
        contrasts = {name: other for name, other in baselines.items() if name != other}
        wrong += bool(family_tests(layout.responses(contrasts)).p.min() <= ALPHA)
    assert wrong / studies <= 0.06 + 2 * math.sqrt(0.06 * 0.94 / studies)
