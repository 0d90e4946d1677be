from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from ablations.measure import speed
from ablations.measure.speed import (
    LEAST_COPIES,
    TWIN,
    Act,
    Samples,
    clock_of,
    compare,
    half_width,
    thread_clock,
    wall_clock,
)

Noise = Callable[[float], float]
CPU = torch.device("cpu")


class Machine:
    """Simulated time: a call takes its subject's seconds, times a factor of the copy, times `noise` at that time."""

    def __init__(
        self, seconds: dict[str, float], noise: Noise = lambda _: 1.0, luck: float = 0.0, seed: int = 0
    ) -> None:
        self.now = 0.0
        self.log: list[tuple[str, str, int]] = []  # event, subject and number of calls
        self.lucks: dict[str, list[float]] = {name: [] for name in seconds}
        self._seconds, self._noise, self._luck = seconds, noise, luck
        self._random = np.random.default_rng(seed)

    @property
    def makes(self) -> dict[str, speed.Make]:
        return {name: lambda name=name: self._built(name) for name in self._seconds}  # type: ignore[misc]

    def _built(self, name: str) -> Act:
        luck = math.exp(self._random.normal(0, self._luck))
        self.lucks[name].append(luck)
        self.log.append(("built", name, 0))
        took = self._seconds[name] * luck

        def act() -> tuple[str, float]:
            return name, took

        return act

    def clock(self, act: Act, repeats: int) -> float:
        name, took = act()  # type: ignore[misc]
        self.log.append(("timed", name, repeats))
        elapsed = 0.0
        for _ in range(repeats):
            elapsed += took * self._noise(self.now + elapsed)
        self.now += elapsed
        return elapsed

    def compare(self, baseline: str = "plain", **options: float) -> Samples:
        settings = {"seconds": 0.0} | options
        return compare(self.makes, baseline, self.clock, **settings)  # type: ignore[arg-type]


def loaded(seed: int) -> Noise:
    """A busy machine: slow drift, bursts, jitter, and preemption, which multiplies one call in twenty by 2 to 8."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 6)

    def noise(now: float) -> float:
        drift = 1 + 0.3 * math.sin(now * 3 + phase)
        burst = 1.5 if math.sin(now * 7 + 2 * phase) > 0.8 else 1.0
        preempted = random.uniform(2, 8) if random.random() < 0.05 else 1.0
        return drift * burst * preempted * math.exp(random.normal(0, 0.03))

    return noise


# Generations.


def test_every_generation_rebuilds_all_subjects_and_a_twin_of_the_baseline() -> None:
    machine = Machine({"plain": 0.1, "a": 0.1, "b": 0.1})
    samples = machine.compare(least_copies=4, most_copies=4)
    built = [name for what, name, _ in machine.log if what == "built"]
    generations = [built[start : start + 4] for start in range(0, 16, 4)]
    assert [sorted(one) for one in generations] == [["a", "b", "plain", "plain"]] * 4
    assert len(set(map(tuple, generations))) > 1  # in random order
    assert samples.names == ("plain", "a", "b", TWIN)
    assert samples.copies == 4


def test_a_generation_is_freed_before_the_next_one_is_built() -> None:
    alive: list[weakref.ref[nn.Module]] = []
    most = 0

    def make() -> Act:
        nonlocal most
        gc.collect()
        most = max(most, sum(one() is not None for one in alive))
        module = nn.Linear(2, 2)
        module.register_forward_hook(lambda *_: module)  # a reference cycle, as in compiled modules
        alive.append(weakref.ref(module))
        return lambda: module(torch.ones(2))

    compare({"plain": make, "other": make}, "plain", wall_clock, seconds=0.0)
    assert len(alive) == 3 * LEAST_COPIES
    assert most == 2  # both of the same generation


def test_a_round_has_every_subject_once_in_each_of_two_opposite_orders() -> None:
    machine = Machine({"plain": 0.1, "a": 0.1, "b": 0.1})
    samples = machine.compare(seconds=1e3, least_copies=1, most_copies=1)
    turns = samples.seconds.shape[1]
    assert turns == 10
    names = [name for _, name, _ in machine.log[-4 * turns :]]
    orders = [names[start : start + 4] for start in range(0, 4 * turns, 4)]
    for there, back in zip(orders[::2], orders[1::2], strict=True):
        assert sorted(there) == ["a", "b", "plain", "plain"]
        assert back == there[::-1]
    assert len(set(map(tuple, orders[::2]))) > 1
    for places, order in zip(samples.positions[0], orders, strict=True):
        timed = [samples.names[place] for place in np.argsort(places)]
        assert ["plain" if name == TWIN else name for name in timed] == order


def test_there_is_one_row_for_each_time() -> None:
    samples = Machine({"plain": 0.1, "a": 0.2}).compare(least_copies=3, most_copies=3)
    rows = list(samples.rows())
    assert len(rows) == samples.seconds.size
    assert {row["copy"] for row in rows} == {0, 1, 2}
    assert list(rows[0]) == ["copy", "round", "turn", "position", "timed", "repeats", "seconds"]
    for row in rows:
        turn = 2 * row["round"] + row["turn"]  # type: ignore[operator]
        place = samples.names.index(str(row["timed"]))
        assert row["seconds"] == samples.seconds[row["copy"], turn, place]  # type: ignore[index]


# Repeats.


def test_all_subjects_are_called_equally_often_in_a_sample() -> None:
    machine = Machine({"plain": 1e-5, "a": 1.3e-5, "long": 2e-4})
    samples = machine.compare(seconds=10.0, most_copies=6)
    timed = {repeats for what, _, repeats in machine.log if what == "timed"}
    assert timed == {1, samples.repeats}  # warm-up calls, and samples
    assert samples.repeats == 50  # half a millisecond of the fastest subject
    assert samples.of("plain") == pytest.approx(1e-5)


@pytest.mark.parametrize("preempted", ["plain", "a"])
def test_a_preempted_warm_up_call_does_not_change_the_number_of_repeats(preempted: str) -> None:
    def clock(act: Act, repeats: int) -> float:
        nonlocal calls
        name = act()
        calls += 1
        return repeats * 1e-5 * (100.0 if name == preempted and calls <= 3 else 1.0)

    calls = 0
    subjects: dict[str, speed.Make] = {"plain": lambda: lambda: "plain", "a": lambda: lambda: "a"}
    disturbed = compare(subjects, "plain", clock, seconds=10.0, most_copies=6)
    calls = 100
    assert disturbed.repeats == compare(subjects, "plain", clock, seconds=10.0, most_copies=6).repeats


def test_warm_up_ends_when_times_no_longer_fall_and_is_not_reported() -> None:
    def make() -> Act:
        calls = iter([8.0, 4.0, 2.0, 1.0])
        return lambda: next(calls, 1.0)

    def clock(act: Act, repeats: int) -> float:
        return sum(float(act()) for _ in range(repeats))  # type: ignore[arg-type]

    samples = compare({"plain": make}, "plain", clock, seconds=1e9, most_copies=6)
    assert (samples.seconds == 1.0).all()


def test_long_calls_are_not_repeated() -> None:
    assert Machine({"plain": 0.5, "a": 0.7}).compare(seconds=60.0, most_copies=6).repeats == 1


# Stopping.


def test_a_comparison_ends_when_all_intervals_are_precise_enough() -> None:
    samples = Machine({"plain": 0.01, "a": 0.02, "b": 0.03}, luck=0.02).compare(seconds=1e9, precision=0.01)
    halves = [half_width(samples.log_ratios(name)) for name in samples.names]
    assert max(halves) <= math.log(1.01)
    assert LEAST_COPIES < samples.copies < 200
    fewer = Samples(samples.names, "plain", samples.seconds[:-1], samples.positions[:-1], samples.repeats)
    assert max(half_width(fewer.log_ratios(name)) for name in samples.names) > math.log(1.01)


@pytest.mark.parametrize(("precision", "copies"), [(0.02, LEAST_COPIES), (0.0, 30)])
def test_precise_comparisons_have_the_minimum_of_copies_unless_precision_is_off(precision: float, copies: int) -> None:
    samples = Machine({"plain": 0.01, "a": 0.02}).compare(seconds=1e9, precision=precision, most_copies=30)
    assert samples.copies == copies


def test_the_minimum_of_copies_is_timed_even_after_the_time_limit() -> None:
    assert Machine({"plain": 0.01, "a": 0.01}, luck=0.5).compare(seconds=0.0, precision=0.001).copies == LEAST_COPIES
    assert Machine({"plain": 0.01, "a": 0.01}).compare(seconds=0.0, least_copies=2).copies == 2


# Ratios.


def test_a_copy_s_ratio_is_the_median_over_its_turns() -> None:
    seconds = np.array([[[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 50.0, 1.0]], [[1.0, 3.0, 1.0]] * 3])
    samples = Samples(("plain", "a", TWIN), "plain", seconds, np.zeros(seconds.shape, dtype=np.int64), 1)
    assert samples.log_ratios("a") == pytest.approx(np.log([2, 3]))
    assert samples.log_ratios("plain").tolist() == [0, 0]
    ratio, low, high = samples.ratio("a")
    assert ratio == pytest.approx(math.sqrt(6))
    assert low * high == pytest.approx(6)
    timing = samples.timing("a")
    assert (timing.copies, timing.ms, timing.verdict) == (2, 3000.0, "")
    assert (timing.ratio, timing.noise_low, timing.noise_high) == pytest.approx((math.sqrt(6), 1, 1))


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=30))
def test_the_interval_is_student_s(values: list[float]) -> None:
    logs = np.array(values)
    if np.std(logs) < 1e-9:
        return
    low, high = stats.t.interval(0.95, len(logs) - 1, np.mean(logs), stats.sem(logs))
    assert half_width(logs) == pytest.approx((high - low) / 2)


def test_one_copy_has_no_interval() -> None:
    ratio, low, high = Machine({"plain": 0.1, "a": 0.2}).compare(least_copies=1, most_copies=1).ratio("a")
    assert ratio == pytest.approx(2)
    assert math.isnan(low)
    assert math.isnan(high)


def test_intervals_are_over_copies_and_include_the_variation_between_them() -> None:
    """Copies differ by 5 %, but turns of a copy are equal: an interval over turns would have zero width."""
    covered = 0
    for seed in range(100):
        samples = Machine({"plain": 0.01, "a": 0.011}, luck=0.05, seed=seed).compare()
        _, low, high = samples.ratio("a")
        covered += low <= 1.1 <= high
    assert covered >= 90


def test_the_noise_floor_is_the_variation_between_copies() -> None:
    samples = Machine({"plain": 0.01, "a": 0.01}, luck=0.1).compare()
    timing = samples.timing("a")
    assert timing.noise_high / timing.noise_low > 1.1
    assert (timing.noise_low, timing.noise_high) == samples.ratio(TWIN)[1:]


def test_a_steady_drift_does_not_bias_ratios() -> None:
    samples = Machine({"plain": 0.01, "other": 0.02}, lambda now: 1 + now).compare(seconds=60.0, most_copies=6)
    assert samples.ratio("other")[0] == pytest.approx(2, rel=0.01)
    assert samples.ratio(TWIN)[0] == pytest.approx(1, rel=0.01)


def test_a_loaded_machine_hardly_moves_ratios() -> None:
    found = [
        Machine({"plain": 1e-4, "other": 1.1e-4}, loaded(seed)).compare(seconds=60.0, most_copies=8).ratio("other")
        for seed in range(50)
    ]
    assert np.median([ratio for ratio, _, _ in found]) == pytest.approx(1.1, abs=0.02)
    assert sum(low <= 1.1 <= high for _, low, high in found) >= 44


# Clocks and failures.


def test_a_single_thread_is_timed_by_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock_of(CPU) is thread_clock
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clock_of(CPU) is wall_clock


@pytest.mark.parametrize("clock", [wall_clock, thread_clock])
def test_a_clock_makes_the_given_number_of_calls(clock: speed.Clock) -> None:
    calls: list[int] = []
    assert clock(lambda: calls.append(1), 7) >= 0
    assert len(calls) == 7


@pytest.mark.parametrize("where", ["built", "called"])
def test_errors_of_a_subject_propagate(where: str) -> None:
    def fail() -> None:
        raise MemoryError("planted")

    def make() -> Act:
        if where == "built":
            fail()
        return fail

    with pytest.raises(MemoryError, match="planted"):
        compare({"plain": make}, "plain", wall_clock, seconds=0.0)


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_eight_times_the_work_takes_longer_on_a_real_clock(kind: str) -> None:
    device = torch.device(kind)
    x = torch.zeros(1 << 20, device=device)
    makes: dict[str, speed.Make] = {
        "plain": lambda: lambda: x + 1,
        "eight": lambda: lambda: [x + 1 for _ in range(8)],
    }
    assert compare(makes, "plain", clock_of(device), seconds=0.5).ratio("eight")[0] > 1
