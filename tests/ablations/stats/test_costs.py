from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ablations.stats.costs import CostContrast, CostVerdict, judge_costs

SLOWER, FASTER, SAME, UNDECIDED, NONE = (
    CostVerdict.SLOWER,
    CostVerdict.FASTER,
    CostVerdict.SAME,
    CostVerdict.UNDECIDED,
    CostVerdict.NONE,
)


def frame(ratios: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Copies of each variant by their relative times; NaN if a copy is missing."""
    rows = [(name, copy, math.log(one)) for name, own in ratios.items() for copy, one in enumerate(own) if one == one]
    return pd.DataFrame(rows, columns=["variant", "copy", "log_ratio"])


def judged(ratios: Mapping[str, Sequence[float]], margin: float = 0.05, **baselines: str) -> dict[str, CostContrast]:
    ratios = {"none": [1.0] * max(map(len, ratios.values()))} | dict(ratios)
    pairs = dict.fromkeys(ratios, "none") | baselines
    return {contrast.variant: contrast for contrast in judge_costs(frame(ratios), pairs, margin)}


def around(ratio: float, spread: float, copies: int = 8, seed: int = 0) -> list[float]:
    """Copies whose log ratios have exactly this mean and standard deviation."""
    draws = np.random.default_rng([seed, copies]).standard_normal(copies)
    standard = (draws - draws.mean()) / draws.std(ddof=1)
    return np.exp(math.log(ratio) + spread * standard).tolist()


@pytest.mark.parametrize(
    ("ratio", "spread", "copies", "verdict"),
    [
        (1.2, 0.02, 8, SLOWER),
        (0.8, 0.02, 8, FASTER),
        (1.01, 0.02, 8, SAME),
        (1.03, 0.005, 8, SAME),  # different, but within the margin
        (1.01, 0.2, 8, UNDECIDED),
        (1.05, 0.03, 8, SLOWER),  # different, and not within the margin
        (1.2, 0.02, 6, SLOWER),  # by sign flips, whose least p is 1/32
        (1.2, 0.02, 3, SLOWER),  # by t
        (1.2, 0.02, 2, SLOWER),
        (1.2, 0.1, 2, UNDECIDED),
    ],
)
def test_a_verdict_is_slower_faster_same_or_undecided(
    ratio: float, spread: float, copies: int, verdict: CostVerdict
) -> None:
    contrast = judged({"sa": around(ratio, spread, copies)})["sa"]
    assert contrast.verdict == verdict
    assert contrast.ratio == pytest.approx(ratio)
    assert contrast.n == copies


@pytest.mark.parametrize("ratios", [[1.2], [math.nan, 1.2]])
def test_a_single_copy_has_a_ratio_but_no_verdict(ratios: list[float]) -> None:
    contrast = judged({"sa": ratios})["sa"]
    assert contrast.verdict == NONE
    assert (contrast.n, contrast.ratio) == (1, pytest.approx(1.2))
    assert math.isnan(contrast.low)
    assert (contrast.p, contrast.p_equivalence) == (1, 1)


def test_without_copies_there_is_no_ratio() -> None:
    (contrast,) = judge_costs(frame({"none": [1.0]}), {"none": "none", "sa": "none"}, 0.05)
    assert (contrast.n, contrast.verdict) == (0, NONE)
    assert math.isnan(contrast.ratio)
    assert judge_costs(frame({}), {}, 0.05) == []


def test_a_contrast_uses_the_common_copies() -> None:
    sa, se = around(1.3, 0.02, 9), around(1.1, 0.02, 9, seed=1)
    sa[0] = se[8] = math.nan
    contrast = judged({"sa": sa, "se": se}, sa="se")["sa"]
    logs = np.log(sa[1:8]) - np.log(se[1:8])
    assert contrast.n == 7
    assert contrast.ratio == pytest.approx(math.exp(logs.mean()))
    assert (contrast.variant, contrast.baseline, contrast.verdict) == ("sa", "se", SLOWER)


@given(st.integers(2, 20), st.floats(0.3, 3), st.floats(0.001, 0.3))
def test_the_interval_is_student_s_on_log_ratios(copies: int, ratio: float, spread: float) -> None:
    values = around(ratio, spread, copies)
    contrast = judged({"sa": values})["sa"]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, copies - 1, logs.mean(), stats.sem(logs))
    assert (contrast.low, contrast.high) == pytest.approx((math.exp(low), math.exp(high)))


@given(st.integers(6, 12), st.floats(0.8, 1.25), st.floats(0.005, 0.1), st.floats(0.01, 0.2))
def test_swapping_variant_and_baseline_mirrors_the_contrast(
    copies: int, ratio: float, spread: float, margin: float
) -> None:
    values = {"none": [1.0] * copies, "sa": around(ratio, spread, copies)}
    (forth,), (back,) = (judge_costs(frame(values), pair, margin) for pair in ({"sa": "none"}, {"none": "sa"}))
    assert back.ratio == pytest.approx(1 / forth.ratio)
    assert (back.low, back.high) == pytest.approx((1 / forth.high, 1 / forth.low))
    assert (back.p, back.p_equivalence) == pytest.approx((forth.p, forth.p_equivalence))
    mirrored = {SLOWER: FASTER, FASTER: SLOWER}
    assert back.verdict == mirrored.get(forth.verdict, forth.verdict)


def test_p_values_are_corrected_for_the_family() -> None:
    one = {"sa": around(1.02, 0.035, 12)}
    many = one | {f"v{seed}": around(1.02, 0.0351, 12, seed=seed) for seed in range(1, 9)}
    alone, together = judged(one)["sa"], judged(many)["sa"]
    assert together.p > alone.p
    assert together.p_equivalence == pytest.approx(9 * alone.p_equivalence)  # Holm's factor for the smallest p
    assert (together.ratio, together.low, together.high) == (alone.ratio, alone.low, alone.high)


def test_below_six_copies_the_spreads_of_other_variants_are_not_used() -> None:
    """Ratios of one copy are correlated through its plain network, so variances cannot be pooled."""
    alone = judged({"sa": around(1.1, 0.02, 4)})["sa"]
    beside = judged({"sa": around(1.1, 0.02, 4), "se": around(1.0, 0.5, 4, seed=3), "eca": around(1.0, 0.4, 4, seed=4)})
    assert beside["sa"].p == pytest.approx(min(1.0, 3 * alone.p))
    assert (beside["sa"].low, beside["sa"].high) == pytest.approx((alone.low, alone.high))


def test_the_margin_is_relative_and_symmetric() -> None:
    for ratio, margin, verdict in ((1.19, 0.2, SAME), (1 / 1.19, 0.2, SAME), (1.21, 0.2, SLOWER), (0.82, 0.2, FASTER)):
        assert judged({"sa": around(ratio, 0.005)}, margin)["sa"].verdict == verdict


def test_small_differences_in_time_are_not_rounding_errors() -> None:
    ratios = around(1.00001, 1e-6, 8)
    contrast = judged({"sa": ratios})["sa"]
    assert contrast.verdict == SAME
    assert contrast.p < 0.05
    assert judged({"sa": ratios}, margin=5e-6)["sa"].verdict == SLOWER


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_the_margin_must_be_above_0(margin: float) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        judged({"sa": [1.0, 1.1]}, margin)


def test_a_duplicate_copy_is_refused() -> None:
    twice = pd.concat([frame({"sa": [1.1]}), frame({"sa": [1.2]})])
    with pytest.raises(ValueError, match="is there twice"):
        judge_costs(twice, {"sa": "none"}, 0.05)


def test_contrasts_keep_the_order_of_the_baselines() -> None:
    contrasts = judge_costs(frame({"a": [1, 1.1], "none": [1, 1], "b": [1, 1.2]}), {"b": "none", "a": "none"}, 0.1)
    assert [contrast.variant for contrast in contrasts] == ["b", "a"]
