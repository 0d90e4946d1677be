"""Relative speed: rebuilt copies of every subject, timed in turns within one process.

A comparison consists of generations. In each, every subject is built anew, in random order and at other addresses, and
so is `TWIN`, a second copy of the baseline. All are warmed up and timed in turns: a round has every subject once in a
random order and once in the reverse of it (with two subjects: A B B A), so that neither a drift nor another process
favours one of them. All samples of a comparison are means over the same number of calls.

A copy yields one number: the median over its turns of the ratio to the baseline's time in the same turn, which a few
preempted samples do not move. Confidence intervals are over copies, because turns of one copy share its luck (where its
tensors lie in memory) and agree with each other better than with the next copy. The interval of `TWIN` is the noise
floor: how well this comparison resolves two copies of the same thing.

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
LEAST_COPIES = 6  # below which a sign-flip test cannot reach p = 0.05
_FEWEST_CALLS, _MOST_CALLS = 3, 20  # of each subject to warm up
_WARM_UP_SHARE = 0.25  # of a generation's time
_STABLE = 0.95  # a warm-up round that takes at least this share of the one before ends the warm-up
_SAMPLE = 0.0005  # seconds of the fastest subject's samples: short, so that most of them are not preempted
_ROUNDS = (5, 20)  # of a generation: usual, and at most where building takes long
_PADDING = 1 << 14  # bytes by which the heap is shifted before each build, at most


def wall_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds of wall-clock time."""
    started = time.perf_counter()
    for _ in range(repeats):
        act()
    return time.perf_counter() - started


def thread_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds of this thread's CPU time, which stands still while other processes run."""
    started = time.thread_time()
    for _ in range(repeats):
        act()
    return time.thread_time() - started


def cuda_clock(act: Act, repeats: int) -> float:
    """Times `repeats` calls in seconds by events on the current CUDA stream, from the start of the first on the GPU."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        act()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def clock_of(device: torch.device) -> Clock:
    """Returns the clock for a device: on the CPU, the thread's own where torch computes with a single thread."""
    if device.type == "cuda":
        return cuda_clock
    is_fine = time.get_clock_info("thread_time").resolution <= 1e-6
    return thread_clock if is_fine and torch.get_num_threads() == 1 else wall_clock


@dataclass(frozen=True)
class Samples:
    """Raw times of a comparison.

    Attributes:
        names: of the subjects, `TWIN` last.
        baseline: the subject that ratios relate to.
        seconds: a call, (copies, turns, subjects), in the order in which they were taken; two turns are a round.
        positions: the place of each subject in its turn, of the same shape.
        repeats: calls that each time is the mean of.
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
        """Returns the log of a subject's time relative to the baseline's, of each copy, (copies,).

        That is the median over the copy's turns of the ratio to the baseline's time in the same turn.
        """
        return np.asarray(np.median(np.log(self.of(name) / self.of(self.baseline)), axis=1))

    def ratio(self, name: str) -> tuple[float, float, float]:
        """Returns the geometric mean over copies of the time relative to the baseline, and its 95 % CI.

        The interval is Student's t on log ratios; its bounds are nan where there is one copy.
        """
        logs = self.log_ratios(name)
        mean, half = float(np.mean(logs)), half_width(logs)
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)

    def timing(self, name: str) -> Timing:
        """Sums a subject's times up beside the noise floor, without a verdict."""
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
    """Returns half the width of Student's 95 % CI of a mean; nan of a single value."""
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
    """Times copies of subjects in turns until their ratios are precise enough or the time is spent.

    All subjects of a generation exist at the same time, one copy each and `TWIN`; they are dropped before the next
    generation is built.

    Args:
        subjects: by name, functions that build a fresh copy and return the call to be timed; `TWIN` is added.
        baseline: the name of the subject that others are compared with.
        clock: as of `clock_of(device)`.
        seconds: time to spend, building and warming up included; exceeded where `least_copies` take longer.
        precision: relative half width of 95 % confidence intervals at which the comparison ends (0.02 is 2 %), once all
            subjects have reached it; 0 spends all `seconds`.
        least_copies, most_copies: bounds of the number of generations.
        seed: of the order of builds and turns.

    Raises:
        Exception: whatever a subject raises when it is built or called.
    """
    names = (*subjects, TWIN)
    random = np.random.default_rng(seed)
    started = begun = time.perf_counter()
    taken: list[tuple[Array, NDArray[np.int64]]] = []
    plan: _Plan | None = None
    makes = [*subjects.values(), subjects[baseline]]
    with _new_garbage_only():
        while len(taken) < most_copies:
            plan, turns = _generation(makes, clock, seconds / least_copies, plan, random)
            taken.append(turns)
            gc.collect()  # nothing of a generation outlives it: the next one needs the memory, and other addresses
            times, positions = (np.stack(arrays) for arrays in zip(*taken, strict=True))
            samples = Samples(names, baseline, times, positions, plan.repeats)
            now = time.perf_counter()
            is_over, begun = now - started + (now - begun) > seconds, now
            if len(taken) >= least_copies and (is_over or _is_precise(samples, precision)):
                break
    return samples


@contextmanager
def _new_garbage_only() -> Iterator[None]:
    """Lets garbage collections skip the objects that exist: they take tenths of a second, new ones milliseconds."""
    is_frozen = gc.get_freeze_count() > 0
    if not is_frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:
            gc.unfreeze()


def _is_precise(samples: Samples, precision: float) -> bool:
    """Says whether the intervals of all subjects have the wanted half width."""
    halves = [half_width(samples.log_ratios(name)) for name in samples.names]
    return bool(np.max(halves) <= math.log1p(precision)) and precision > 0


def _generation(
    makes: Sequence[Make], clock: Clock, share: float, plan: _Plan | None, random: np.random.Generator
) -> tuple[_Plan, tuple[Array, NDArray[np.int64]]]:
    """Builds, warms up and times a copy of each subject within about `share` seconds; the first one makes the plan."""
    begun = time.perf_counter()
    acts, _padding = _build(makes, random)
    fewest = _FEWEST_CALLS if plan is None or plan.is_short else 1  # a long call is hardly longer when it is the first
    least, stretch = _warm_up(acts, clock, share * _WARM_UP_SHARE, fewest)
    plan = plan or _Plan.of(least, share, time.perf_counter() - begun, stretch)
    return plan, _take_turns(acts, clock, plan, random)


@dataclass(frozen=True)
class _Plan:
    """How a generation is timed: the same for all, so that copies are treated alike."""

    repeats: int
    rounds: int
    is_short: bool  # whether a call of the fastest subject is shorter than a sample should be

    @classmethod
    def of(cls, least: Array, share: float, overhead: float, stretch: float) -> _Plan:
        """Plans generations.

        Args:
            least: seconds that a call of each subject takes by the comparison's clock, (subjects,).
            share: seconds there are for a generation.
            overhead: seconds that building and warming up took.
            stretch: seconds that pass while the clock counts one: above 1 for the thread's own on a busy machine.
        """
        there = max(share - overhead, share / 2) / stretch
        fastest, call = max(float(least.min()), 1e-9), max(float(least.sum()), 1e-9)
        usual, most = _ROUNDS
        repeats = max(1, math.ceil(min(_SAMPLE / fastest, there / (2 * usual) / call)))
        # Where building takes long, more turns of each copy cost little (Kalibera and Jones, section 5).
        turn = (repeats + (fastest < _SAMPLE)) * call
        rounds = min(max(usual, overhead / stretch / (2 * turn)), most, there / (2 * turn))
        return cls(repeats, max(1, int(rounds)), fastest < _SAMPLE)


def _build(makes: Sequence[Make], random: np.random.Generator) -> tuple[list[Act], list[bytearray]]:
    """Builds all subjects in random order, each after a piece of memory of random size, which is kept meanwhile."""
    acts: dict[int, Act] = {}
    padding = []
    for index in random.permutation(len(makes)).tolist():
        padding.append(bytearray(int(random.integers(1, _PADDING))))
        acts[index] = makes[index]()
    return [acts[index] for index in range(len(makes))], padding


def _warm_up(acts: Sequence[Act], clock: Clock, seconds: float, fewest: int) -> tuple[Array, float]:
    """Calls all in turns, at least `fewest` times, until a round takes no less than the one before or time is over.

    Returns the least time of each, (subjects,), and how many seconds passed while the clock counted one.
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
    acts: Sequence[Act], clock: Clock, plan: _Plan, random: np.random.Generator
) -> tuple[Array, NDArray[np.int64]]:
    """Times one generation; returns seconds and positions, (turns, subjects) each."""
    taken = np.empty((2 * plan.rounds, len(acts)))
    positions = np.empty(taken.shape, dtype=np.int64)
    for turn in range(0, 2 * plan.rounds, 2):
        order = random.permutation(len(acts))
        for number, indices in ((turn, order), (turn + 1, order[::-1])):
            for index in indices.tolist():
                if plan.is_short:  # caches hold what the subject before it used
                    acts[index]()
                taken[number, index] = clock(acts[index], plan.repeats) / plan.repeats
            positions[number] = np.argsort(indices)
    return taken, positions
