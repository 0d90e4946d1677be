"""How long things take, side by side: in turns within one process, so that what the machine does meanwhile hits all.

A round has every subject once in a random order and once in the reverse of it (with two subjects: A B B A), so that
neither a drift nor a neighbour favours anybody. What is reported is the median of the ratios to the baseline that was
timed in the same turn, with a confidence interval that assumes nothing about how times are distributed, and beside it
the same of the baseline against another copy of itself (A/A): the noise floor of this very run.

Ideas: interleaving and A/A as in `perf stat` experiments of Kalibera and Jones, "Rigorous benchmarking in reasonable
time", ISMM 2013; order statistics as in Hoefler and Belli, "Scientific benchmarking of parallel computing systems",
SC 2015.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from ablations.measure.record import Timing

CONFIDENCE = 0.95
TWIN = "baseline again"  # name of the other copy of the baseline
_STABLE = 0.95  # a warm-up round that takes at least this much of the one before it is no longer warming up
_WARM_UP_SHARE = 0.25  # of the time there is
_WARM_UP_ROUNDS = 20
_TURNS = 40  # that samples should be short enough for
_LONGEST_SAMPLE = 0.05  # seconds that calls are repeated for, at most

Act = Callable[[], object]
Clock = Callable[[Act, int], float]


def wall_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls by the clock on the wall, in seconds."""
    started = time.perf_counter()
    for _ in range(repeats):
        act()
    return time.perf_counter() - started


def cuda_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls by events on the current CUDA stream, in seconds: from when the first begins on the GPU."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        act()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def clock_of(device: torch.device) -> Clock:
    """Returns the clock that suits a device."""
    return cuda_clock if device.type == "cuda" else wall_clock


@dataclass(frozen=True)
class Samples:
    """Raw times in seconds a call, of shape (turns, subjects), two turns a round, in the order in which they came.

    `positions`, of the same shape, is when in its turn a subject was timed; a time is the mean of `repeats` calls.
    """

    names: tuple[str, ...]
    baseline: str
    seconds: NDArray[np.float64]
    positions: NDArray[np.int64]
    repeats: tuple[int, ...]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self.seconds) // 2

    def of(self, name: str) -> NDArray[np.float64]:
        """Returns a subject's times in seconds."""
        return self.seconds[:, self.names.index(name)]

    def rows(self) -> Iterator[dict[str, object]]:
        """Yields a tidy row a time."""
        for turn, (times, positions) in enumerate(zip(self.seconds, self.positions, strict=True)):
            for name, repeats, value, position in zip(self.names, self.repeats, times, positions, strict=True):
                yield {
                    "round": turn // 2, "turn": turn % 2, "position": int(position), "timed": name,
                    "repeats": repeats, "seconds": float(value),
                }  # fmt: skip

    def timing(self, name: str) -> Timing:
        """Sums a subject's times up, beside the baseline's and the noise floor."""
        ms = float(np.median(self.of(name))) * 1000
        ratio, low, high = self.ratio(name)
        noise_low, noise_high = self.ratio(TWIN)[1:] if TWIN in self.names else (math.nan, math.nan)
        said = "baseline" if name == self.baseline else verdict(ratio, low, high, noise_low, noise_high)
        return Timing(self.rounds, ms, ratio, low, high, noise_low, noise_high, said)

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Returns the median ratio of a subject's time to the baseline's of the same turn, and its 95 % CI."""
        if name == self.baseline:
            return 1.0, 1.0, 1.0
        ratios = np.sort(self.of(name) / self.of(self.baseline))
        low, high = median_interval(len(ratios))
        return float(np.median(ratios)), float(ratios[low]), float(ratios[high])


def median_interval(count: int) -> tuple[int, int]:
    """Returns which of `count` sorted values bound the median with 95 % confidence: from 0, both included.

    By the binomial distribution of how many values lie below the median. Below six values the extremes cover less
    than that: 94 % of five, 88 % of four.
    """
    low = max(int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5)) - 1, 0)
    return low, count - 1 - low


def verdict(ratio: float, low: float, high: float, noise_low: float, noise_high: float) -> str:
    """Says `slower` or `faster` of a ratio whose interval excludes 1 and that is outside of the noise floor.

    The floor reaches as far on both sides as the interval of the A/A comparison does on its farther one.
    """
    floor = max(abs(math.log(noise_low)), abs(math.log(noise_high))) if noise_low == noise_low else 0.0
    if low > 1 and math.log(ratio) > floor:
        return "slower"
    if high < 1 and -math.log(ratio) > floor:
        return "faster"
    return "no difference seen"


def compare(
    subjects: Mapping[str, Act],
    baseline: str,
    clock: Clock,
    *,
    seconds: float,
    least_rounds: int = 3,
    most_rounds: int = 500,
    seed: int = 0,
) -> Samples:
    """Times subjects in turns for about so many seconds, warming up included.

    Args:
        subjects: what is timed, by name; under `TWIN` another copy of the baseline, for the noise floor.
        baseline: name of the one that others are compared with.
        clock: `clock_of(device)`.
        seconds: to spend; what takes longer is still timed for `least_rounds` rounds.
        least_rounds: three rounds are six turns, the fewest whose extremes are a 95 % interval.
        most_rounds: after which there is nothing more to learn.
        seed: of the order in each round.
    """
    names = tuple(subjects)
    acts = [subjects[name] for name in names]
    started = time.perf_counter()
    typical = _warm_up(acts, clock, seconds * _WARM_UP_SHARE)
    sample = min(_LONGEST_SAMPLE, seconds * (1 - _WARM_UP_SHARE) / (len(acts) * _TURNS))
    repeats = [max(1, math.ceil(sample / max(value, 1e-9))) for value in typical]
    twin = names.index(TWIN) if TWIN in names else names.index(baseline)
    repeats[twin] = repeats[names.index(baseline)]  # copies are treated alike
    random = np.random.default_rng(seed)
    taken: list[NDArray[np.float64]] = []
    places: list[NDArray[np.int64]] = []
    for done in range(1, most_rounds + 1):
        begun = time.perf_counter()
        order = random.permutation(len(acts))
        for turn in (order, order[::-1]):
            times = np.empty(len(acts))
            for index in turn:
                times[index] = clock(acts[index], repeats[index]) / repeats[index]
            taken.append(times)
            places.append(np.argsort(turn))
        now = time.perf_counter()
        if done >= least_rounds and now - started + (now - begun) > seconds:
            break
    return Samples(names, baseline, np.stack(taken), np.stack(places), tuple(repeats))


def _warm_up(acts: list[Act], clock: Clock, seconds: float) -> list[float]:
    """Calls all until a round takes no less than the one before it, and returns the last time of each."""
    started = time.perf_counter()
    before = math.inf
    for _ in range(_WARM_UP_ROUNDS):
        times = [clock(act, 1) for act in acts]
        if sum(times) > _STABLE * before or time.perf_counter() - started > seconds:
            break
        before = sum(times)
    return times
