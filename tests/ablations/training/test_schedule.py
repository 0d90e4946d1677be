from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.config import TrainConfig
from ablations.training.schedule import learning_rate_share, learning_rates


def test_learning_rates_are_fractions_of_the_peak() -> None:
    recipe = TrainConfig(schedule="cosine", learning_rate=0.4)
    assert learning_rates(recipe, 4) == [0.4 * learning_rate_share("cosine", 0.0, step, 4) for step in range(4)]


@given(st.sampled_from(["onecycle", "cosine", "warmup_cosine"]), st.floats(0, 0.9), st.integers(1, 400))
def test_a_schedule_of_any_length_rises_to_its_peak_and_falls(schedule: str, warmup: float, steps: int) -> None:
    shares = [learning_rate_share(schedule, warmup, step, steps) for step in range(steps + 1)]
    assert all(0 <= share <= 1 for share in shares)
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert peak == (0 if schedule == "cosine" else min(round(warmup * steps), steps - 1))
    assert shares[-1] == pytest.approx(0, abs=1e-12)


@given(st.floats(0, 0.9), st.integers(2, 400))
def test_a_linear_warm_up_rises_by_equal_increments(warmup: float, steps: int) -> None:
    rise = min(round(warmup * steps), steps - 1)
    shares = [learning_rate_share("warmup_cosine", warmup, step, steps) for step in range(rise + 1)]
    assert shares == pytest.approx([(step + 1) / (rise + 1) for step in range(rise + 1)])
