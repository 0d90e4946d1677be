"""Measures relative speed: subjects are rebuilt repeatedly and timed in interleaved order within one process.

A comparison consists of generations. In each, every subject is rebuilt, in random order and at other addresses, and so
is `TWIN`, a second copy of the baseline. All are warmed up and timed in rounds: a round has two turns, with every
subject once in random order and once in reverse order (with two subjects: A B B A), so that neither drift nor other
processes bias the comparison. All samples of a comparison are means over the same number of calls.

Each copy yields one value: the median over its turns of the ratio to the baseline's time in the same turn, which is
robust to preempted samples. Confidence intervals are over copies, because the turns of one copy share its memory
addresses and vary less than copies do. The interval of `TWIN` is the noise floor: the resolution of the comparison for
two identical subjects.

Sources: Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009 (memory layout);
Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013 (repetition at the level that varies); Hoefler
and Belli, "Scientific benchmarking of parallel computing systems", SC 2015 (ratios, medians, stopping by precision).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from ablations.measure.record import Timing

Array = NDArray[np.float64]
Act = Callable[[], object]
Make = Callable[[], Act]
Clock = Callable[[Act, int], float]

TWIN = "baseline again"  # name of the second copy of the baseline
CONFIDENCE = 0.95
LEAST_COPIES = 6  # with fewer copies a sign-flip test cannot reach p = 0.05
_FEWEST_CALLS, _MOST_CALLS = 3, 20  # minimum and maximum number of warm-up calls of each subject
_WARM_UP_SHARE = 0.25  # maximum share of a generation's time
_STABLE = 0.95  # a warm-up round that takes at least this share of the previous one ends the warm-up
_SAMPLE = 0.0005  # seconds of the fastest subject's samples: short, so that most of them are not preempted
_ROUNDS = (5, 20)  # rounds per generation: default, and maximum if building takes long
_PADDING = 1 << 14  # maximum number of bytes by which the heap is shifted before each build


def wall_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds of wall-clock time."""
    started = time.perf_counter()
    for _ in range(repeats):
        act()
    return time.perf_counter() - started


def thread_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds of this thread's CPU time, which excludes the time of other processes."""
    started = time.thread_time()
    for _ in range(repeats):
        act()
    return time.thread_time() - started


def cuda_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds on the GPU, with events on the current CUDA stream."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        act()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def clock_of(device: torch.device) -> Clock:
    """Returns the clock for a device: on the CPU, the thread's CPU time if torch uses a single thread."""
    if device.type == "cuda":
        return cuda_clock
    is_fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return thread_clock if is_fine and torch.get_num_threads() == 1 else wall_clock


@dataclass(frozen=True)
class Samples:
    """Raw times of a comparison.

    Attributes:
        names: names of the subjects, `TWIN` last.
        baseline: name of the baseline of the ratios.
        seconds: seconds per call, (copies, turns, subjects), in the order of measurement; two turns are a round.
        positions: position of each subject in its turn, of the same shape.
        repeats: number of calls over which each time is averaged.
    """

    names: tuple[str, ...]
    baseline: str
    seconds: Array
    positions: NDArray[np.int64]
    repeats: int

    @property
    def copies(self) -> int:
        """The number of generations."""
        return len(self.seconds)

    def of(self, name: str) -> Array:
        """Returns a subject's times in seconds, (copies, turns)."""
        return self.seconds[:, :, self.names.index(name)]

    def log_ratios(self, name: str) -> Array:
        """Returns the log of a subject's time relative to the baseline's, for each copy, (copies,).

        The value of a copy is the median over its turns of the log ratio to the baseline's time in the same turn.
        """
        return np.asarray(np.median(np.log(self.of(name) / self.of(self.baseline)), axis=1))

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Returns the geometric mean over copies of the time relative to the baseline, and its 95 % CI.

        The interval is Student's t on log ratios; its bounds are NaN for a single copy.
        """
        logs = self.log_ratios(name)
        mean, half = float(np.mean(logs)), half_width(logs)
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)

    def timing(self, name: str) -> Timing:
        """Summarizes a subject's times, with the noise floor and without a verdict."""
        ms = float(np.median(self.of(name))) * 1000
        return Timing(self.copies, ms, *self.ratio(name), *self.ratio(TWIN)[1:])

    def rows(self) -> Iterator[dict[str, object]]:
        """Yields one row per time: `copy`, `round`, `turn`, `position`, `timed`, `repeats`, `seconds`."""
        for (copy, turn, place), seconds in np.ndenumerate(self.seconds):
            yield {
                "copy": copy, "round": turn // 2, "turn": turn % 2, "position": int(self.positions[copy, turn, place]),
                "timed": self.names[place], "repeats": self.repeats, "seconds": float(seconds),
            }  # fmt: skip


def half_width(logs: Array) -> float:
    """Returns half the width of Student's 95 % CI of a mean; NaN for a single value."""
    if len(logs) < 2:
        return math.nan
    quantile = float(stdtrit(len(logs) - 1, 0.5 + CONFIDENCE / 2))
    return quantile * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))


def compare(
    subjects: Mapping[str, Make],
    baseline: str,
    clock: Clock,
    *,
    seconds: float,
    precision: float = 0.0,
    least_copies: int = LEAST_COPIES,
    most_copies: int = 200,
    seed: int = 0,
) -> Samples:
    """Times copies of subjects in interleaved order until their ratios are precise enough, or up to a time limit.

    One copy of each subject and `TWIN` exist at the same time; they are freed before the next generation is built.

    Args:
        subjects: by name, functions that build a new copy and return the call to be timed; `TWIN` is added.
        baseline: the name of the baseline.
        clock: such as `clock_of(device)`.
        seconds: time limit, including building and warm-up; exceeded if `least_copies` take longer.
        precision: the comparison ends when the 95 % confidence intervals of all subjects have at most this relative
            half width (0.02 is 2 %); 0 always uses all `seconds`.
        least_copies, most_copies: minimum and maximum number of generations.
        seed: the seed of the order of builds and turns.

    Raises:
        Exception: any error of building or calling a subject.
    """
    names = (*subjects, TWIN)
    random = np.random.default_rng(seed)
    started = begun = time.perf_counter()
    taken: list[tuple[Array, NDArray[np.int64]]] = []
    plan: _Rounds | None = None
    makes = [*subjects.values(), subjects[baseline]]
    with _new_garbage_only():
        while len(taken) < most_copies:
            plan, turns = _generation(makes, clock, seconds / least_copies, plan, random)
            taken.append(turns)
            gc.collect()  # frees the generation: the next one needs its memory, and other addresses
            times, positions = (np.stack(arrays) for arrays in zip(*taken, strict=True))
            samples = Samples(names, baseline, times, positions, plan.repeats)
            now = time.perf_counter()
            is_over, begun = now - started + (now - begun) > seconds, now
            if len(taken) >= least_copies and (is_over or _is_precise(samples, precision)):
                break
    return samples


@contextmanager
def _new_garbage_only() -> Iterator[None]:
    """Excludes existing objects from garbage collection, which takes milliseconds instead of tenths of a second."""
    is_frozen = gc.get_freeze_count() > 0
    if not is_frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:
            gc.unfreeze()


def _is_precise(samples: Samples, precision: float) -> bool:
    """Returns whether the intervals of all subjects have at most the requested half width."""
    halves = [half_width(samples.log_ratios(name)) for name in samples.names]
    return bool(np.max(halves) <= math.log1p(precision)) and precision > 0


def _generation(
    makes: Sequence[Make], clock: Clock, share: float, plan: _Rounds | None, random: np.random.Generator
) -> tuple[_Rounds, tuple[Array, NDArray[np.int64]]]:
    """Builds, warms up and times a copy of each subject in about `share` seconds; plans the rest if `plan` is None."""
    begun = time.perf_counter()
    acts, _padding = _build(makes, random)
    fewest = _FEWEST_CALLS if plan is None or plan.is_short else 1  # a first long call has little overhead
    least, stretch = _warm_up(acts, clock, share * _WARM_UP_SHARE, fewest)
    plan = plan or _Rounds.of(least, share, time.perf_counter() - begun, stretch)
    return plan, _take_turns(acts, clock, plan, random)


@dataclass(frozen=True)
class _Rounds:
    """The number of repeats and rounds, the same for all generations."""

    repeats: int
    rounds: int
    is_short: bool  # whether a call of the fastest subject is shorter than `_SAMPLE`

    @classmethod
    def of(cls, least: Array, share: float, overhead: float, stretch: float) -> _Rounds:
        """Plans generations.

        Args:
            least: shortest seconds per call of each subject on the comparison's clock, (subjects,).
            share: available seconds per generation.
            overhead: seconds for building and warm-up.
            stretch: wall-clock seconds per second of the clock: above 1 for a thread clock on a busy machine.
        """
        there = max(share - overhead, share / 2) / stretch
        fastest, call = max(float(least.min()), 1e-9), max(float(least.sum()), 1e-9)
        usual, most = _ROUNDS
        repeats = max(1, math.ceil(min(_SAMPLE / fastest, there / (2 * usual) / call)))
        # If building takes long, more turns per copy add little to the total (Kalibera and Jones, section 5).
        turn = (repeats + (fastest < _SAMPLE)) * call
        rounds = min(max(usual, overhead / stretch / (2 * turn)), most, there / (2 * turn))
        return cls(repeats, max(1, int(rounds)), fastest < _SAMPLE)


def _build(makes: Sequence[Make], random: np.random.Generator) -> tuple[list[Act], list[bytearray]]:
    """Builds all subjects in random order, each after an allocation of random size; returns both."""
    acts: dict[int, Act] = {}
    padding = []
    for index in random.permutation(len(makes)).tolist():
        padding.append(bytearray(int(random.integers(1, _PADDING))))
        acts[index] = makes[index]()
    return [acts[index] for index in range(len(makes))], padding


def _warm_up(acts: Sequence[Act], clock: Clock, seconds: float, fewest: int) -> tuple[Array, float]:
    """Calls all subjects in rounds, at least `fewest`, until the round time no longer falls, or up to a time limit.

    Returns the shortest time of each subject, (subjects,), and the wall-clock seconds per second of the clock.
    """
    started = time.perf_counter()
    rounds: list[Array] = []
    while len(rounds) < _MOST_CALLS:
        rounds.append(np.array([clock(act, 1) for act in acts]))
        is_stable = len(rounds) > 1 and rounds[-1].sum() > _STABLE * rounds[-2].sum()
        if len(rounds) >= fewest and (is_stable or time.perf_counter() - started > seconds):
            break
    stretch = (time.perf_counter() - started) / max(float(np.sum(rounds)), 1e-9)
    return np.asarray(np.min(rounds, axis=0)), max(1.0, stretch)


def _take_turns(
    acts: Sequence[Act], clock: Clock, plan: _Rounds, random: np.random.Generator
) -> tuple[Array, NDArray[np.int64]]:
    """Times one generation; returns seconds and positions, (turns, subjects) each."""
    taken = np.empty((2 * plan.rounds, len(acts)))
    positions = np.empty(taken.shape, dtype=np.int64)
    for turn in range(0, 2 * plan.rounds, 2):
        order = random.permutation(len(acts))
        for number, indices in ((turn, order), (turn + 1, order[::-1])):
            for index in indices.tolist():
                if plan.is_short:  # an untimed call: the caches still hold the data of the previous subject
                    acts[index]()
                taken[number, index] = clock(acts[index], plan.repeats) / plan.repeats
            positions[number] = np.argsort(indices)
    return taken, positions
