from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ablations.measure.speed import TWIN, Samples, clock_of, compare, median_interval, verdict, wall_clock

Draw = Callable[[float], float]


class Machine:
    """A clock that tells simulated times: each subject's own, bent by what `noise` makes of the time of day."""

    def __init__(self, seconds: dict[str, float], noise: Draw) -> None:
        self.now, self.calls = 0.0, list[tuple[str, int]]()
        self.seconds, self.noise = seconds, noise
        self.acts = {name: self._act(name) for name in seconds}

    def _act(self, name: str) -> Callable[[], object]:
        return lambda: name

    def clock(self, act: Callable[[], object], repeats: int) -> float:
        name = str(act())
        self.calls.append((name, repeats))
        took = repeats * self.seconds[name] * self.noise(self.now)
        self.now += took
        return took


def drifting(seed: int) -> Draw:
    """Noise as on a shared machine: a slow drift, bursts, spikes, and jitter."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 6)

    def noise(now: float) -> float:
        drift = 1 + 0.3 * math.sin(now / 3 + phase)
        burst = 1.5 if math.sin(now * 0.7 + 2 * phase) > 0.8 else 1.0
        spike = 3.0 if random.random() < 0.02 else 1.0
        return drift * burst * spike * math.exp(random.normal(0, 0.03))

    return noise


def timed(seconds: dict[str, float], noise: Draw, rounds: int) -> Samples:
    machine = Machine(seconds, noise)
    return compare(machine.acts, "plain", machine.clock, seconds=0.0, least_rounds=rounds, most_rounds=rounds)


def test_equal_subjects_are_rarely_called_different_whatever_the_machine_does() -> None:
    verdicts = [
        timed({"plain": 0.01, TWIN: 0.01, "same": 0.01}, drifting(seed), 15).timing("same").verdict
        for seed in range(300)
    ]
    assert sum(verdict != "no difference seen" for verdict in verdicts) <= 15


@pytest.mark.parametrize(("factor", "expected"), [(1.1, "slower"), (0.9, "faster")])
def test_a_tenth_more_or_less_is_seen_whatever_the_machine_does(factor: float, expected: str) -> None:
    timings = [
        timed({"plain": 0.01, TWIN: 0.01, "other": 0.01 * factor}, drifting(seed), 15).timing("other")
        for seed in range(100)
    ]
    assert sum(timing.verdict == expected for timing in timings) >= 90
    covered = [timing.ratio_low <= factor <= timing.ratio_high for timing in timings]
    assert sum(covered) >= 93


def test_a_steady_drift_favours_nobody() -> None:
    samples = timed({"plain": 0.01, TWIN: 0.01, "other": 0.02}, lambda now: 1 + now, 30)
    assert samples.timing("other").ratio == pytest.approx(2, rel=0.02)
    assert samples.timing(TWIN).ratio == pytest.approx(1, rel=0.02)


def test_a_round_has_every_subject_once_in_each_of_two_opposite_orders() -> None:
    machine = Machine({"plain": 0.1, "a": 0.1, "b": 0.1, "c": 0.1}, lambda _: 1.0)
    samples = compare(machine.acts, "plain", machine.clock, seconds=0.0, least_rounds=5, most_rounds=5)
    names = [name for name, _ in machine.calls[-40:]]
    for start in range(0, 40, 8):
        there, back = names[start : start + 4], names[start + 4 : start + 8]
        assert sorted(there) == ["a", "b", "c", "plain"]
        assert back == there[::-1]
    assert len({tuple(names[start : start + 4]) for start in range(0, 40, 8)}) > 1
    rows = list(samples.rows())
    assert [row["timed"] for row in sorted(rows[:4], key=lambda row: row["position"])] == names[:4]  # type: ignore[arg-type, return-value]


def test_warming_up_ends_when_times_fall_no_more_and_is_not_reported() -> None:
    begun = iter([8.0, 4.0, 2.0, 1.0])

    def clock(act: Callable[[], object], repeats: int) -> float:
        act()
        return repeats * next(begun, 1.0)

    samples = compare({"plain": lambda: None}, "plain", clock, seconds=1e9, least_rounds=3, most_rounds=4)
    assert samples.rounds == 4
    assert (samples.seconds == 1.0).all()


def test_short_calls_are_repeated_within_a_time_and_copies_as_often_as_each_other() -> None:
    machine = Machine({"plain": 1e-4, TWIN: 1.3e-4, "long": 0.2}, lambda _: 1.0)
    samples = compare(machine.acts, "plain", machine.clock, seconds=12.0, least_rounds=3, most_rounds=3)
    repeats = dict(zip(samples.names, samples.repeats, strict=True))
    assert repeats["long"] == 1
    assert repeats["plain"] == repeats[TWIN] > 100
    assert samples.of("plain") == pytest.approx(1e-4)


def test_without_time_left_there_are_still_the_fewest_rounds() -> None:
    machine = Machine({"plain": 0.01, "a": 0.01}, lambda _: 1.0)
    assert compare(machine.acts, "plain", machine.clock, seconds=0.0, least_rounds=2).rounds == 2


@given(st.integers(6, 400))
def test_the_interval_of_a_median_covers_it_with_95_percent_and_no_narrower_one_does(count: int) -> None:
    low, high = median_interval(count)
    assert low + high == count - 1
    assert 1 - 2 * binom.cdf(low, count, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(low + 1, count, 0.5) < 0.95


@pytest.mark.parametrize(
    ("ratio", "low", "high", "noise", "expected"),
    [
        (1.2, 1.1, 1.3, (0.99, 1.02), "slower"),
        (1.2, 0.9, 1.3, (0.99, 1.02), "no difference seen"),  # its interval has 1 in it
        (1.2, 1.1, 1.3, (0.95, 1.25), "no difference seen"),  # a copy of the baseline differs as much
        (1.2, 1.1, 1.3, (0.8, 1.01), "no difference seen"),  # the floor has no side
        (0.8, 0.7, 0.9, (0.99, 1.02), "faster"),
        (0.8, 0.7, 1.0, (0.99, 1.02), "no difference seen"),
        (1.001, 1.0005, 1.002, (math.nan, math.nan), "slower"),  # nothing was compared with itself
    ],
)
def test_a_difference_is_one_that_excludes_1_and_exceeds_the_noise(
    ratio: float, low: float, high: float, noise: tuple[float, float], expected: str
) -> None:
    assert verdict(ratio, low, high, *noise) == expected


def test_the_baseline_says_that_it_is_one() -> None:
    timing = timed({"plain": 0.01, "a": 0.02}, lambda _: 1.0, 3).timing("plain")
    assert (timing.verdict, timing.ratio, timing.ratio_low, timing.rounds) == ("baseline", 1.0, 1.0, 3)
    assert timing.ms == pytest.approx(10)


def test_what_a_subject_raises_is_raised() -> None:
    def fail() -> None:
        raise MemoryError("planted")

    with pytest.raises(MemoryError, match="planted"):
        compare({"plain": fail}, "plain", wall_clock, seconds=0.0)


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_twice_the_work_takes_longer_on_a_real_clock(kind: str) -> None:
    device = torch.device(kind)
    x = torch.zeros(1 << 20, device=device)
    acts = {"plain": lambda: x + 1, "eight": lambda: [x + 1 for _ in range(8)]}
    samples = compare(acts, "plain", clock_of(device), seconds=0.5)
    assert samples.timing("eight").verdict == "slower"
