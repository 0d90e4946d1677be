"""Measures the comparisons of a plan: interleaved timing, memory, complexity and energy; failures become rows.

Modules are compared with a copy of their input, networks with the plain network (`ablations.measure.speed`).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pandas as pd
import torch

from ablations.benchmarking.plan import LONGEST_REASON, MODES, MODULE, NETWORK, BenchmarkPlan, Comparison
from ablations.benchmarking.workloads import (
    FORWARD,
    Build,
    Candidate,
    Workload,
    module_inputs,
    module_workload,
    network_workload,
)
from ablations.common.sizes import MIB, SMALL_SIDE
from ablations.common.wording import first_line
from ablations.config import BenchConfig
from ablations.design.variants import plain_network
from ablations.measure.complexity import Complexity, count_operations
from ablations.measure.energy import joules_per_image
from ablations.measure.memory import buffer_count, peak_memory
from ablations.measure.record import Costs, Measurement, Subject, Timing
from ablations.measure.speed import TWIN, Act, Samples, clock_of, compare
from ablations.stats.costs import judge_costs
from ablations.training.events import OUT_OF_MEMORY
from ablations.training.job import kind_of
from ablations.training.learner import build_network, layout

_ENERGY_SECONDS = (0.5, 2.0)  # least and most duration of an energy measurement of a subject and mode

T = TypeVar("T")
Note = Callable[[str], object]
Counted = dict[str, dict[str, Complexity]]  # by backbone, then by network


class Benchmark:
    """Measures comparisons; `notify` is called with the current activity, `samples` collects rows of raw times."""

    def __init__(self, plan: BenchmarkPlan, bench: BenchConfig, notify: Note = lambda _: None) -> None:
        self._plan, self._bench, self._notify = plan, bench, notify
        self._counts: dict[tuple[Subject, str], Complexity | None] = {}
        self.samples: list[dict[str, object]] = []

    def measure(self, comparison: Comparison) -> list[Measurement]:
        """Measures all subjects of a comparison in all modes; the row of a failed subject has the reason."""
        status: dict[str, str] = {}
        build: Build | None = None
        try:
            build = self._builder(comparison)
        except Exception as error:  # creating the shared input failed
            status = dict.fromkeys(comparison.subjects, _status_of(error))
        rows = []
        for name, mode in MODES[comparison.kind].items():
            if name in self._bench.modes:
                rows += self._measure_mode(comparison, mode, build, dict(status))
        return rows

    def _builder(self, comparison: Comparison) -> Build:
        """Creates the input that all subjects share, and returns a function that builds a subject."""
        setting, shape = comparison.setting(""), comparison.shape.of_batch(comparison.batch)
        if comparison.kind == MODULE:
            x, gradient = module_inputs(shape, setting, self._plan.device)
            return lambda candidate: module_workload(candidate.make, x, gradient, setting)
        generator, model, classes = torch.Generator().manual_seed(0), comparison.model, self._classes
        pixels = torch.randn(shape, generator=generator).to(self._plan.device)
        labels = torch.randint(classes, shape[:1], generator=generator).to(self._plan.device)
        return partial(network_workload, model=model, pixels=pixels, labels=labels, classes=classes, setting=setting)

    @property
    def _classes(self) -> int:
        return 10 if self._plan.resolution <= SMALL_SIDE else 1000

    def _measure_mode(
        self, comparison: Comparison, mode: str, build: Build | None, status: dict[str, str]
    ) -> list[Measurement]:
        costs: dict[str, tuple[Costs, float]] = {}
        for name, candidate in comparison.subjects.items():
            if build is None:
                break
            self._notify(f"{comparison.title}, {mode}: first call, memory and complexity of {name}")
            try:
                costs[name] = self._costs_of(comparison, name, build(candidate), mode)
            except Exception as error:
                status[name] = _status_of(error)
        timings: dict[str, Timing] = {}
        if "speed" in self._bench.metrics and build is not None:
            timings = self._time(comparison, mode, build, status)
        rows = []
        for name in comparison.subjects:
            state, setting, timing = status.get(name, "measured"), comparison.setting(mode), timings.get(name, Timing())
            measured = costs[name] if name not in status else (Costs(), math.nan)
            rows.append(Measurement(comparison.subject(name), setting, state, timing, *measured))
        return rows

    def _time(self, comparison: Comparison, mode: str, build: Build, status: dict[str, str]) -> dict[str, Timing]:
        """Times rebuilt copies of all subjects that have not failed; if one fails, starts again without it."""
        clock, baseline = clock_of(self._plan.device), comparison.baseline
        while baseline not in status:
            makes = {
                name: partial(_guarded, name, partial(_act_of, name, build, candidate, mode))
                for name, candidate in comparison.subjects.items()
                if name not in status
            }
            self._notify(f"{comparison.title}, {mode}: interleaved timing of {len(makes)} subjects")
            try:
                samples = compare(makes, baseline, clock, seconds=self._bench.seconds)
            except _FailedError as error:
                status[error.name] = _status_of(error.reason)
                continue
            place = vars(comparison.subject("")) | vars(comparison.setting(mode))
            place.pop("name")
            self.samples += [place | row for row in samples.rows()]
            verdicts = _verdicts(samples, self._bench.margin / 100)
            return {name: replace(samples.timing(name), verdict=verdicts[name]) for name in makes}
        return {}

    def _costs_of(self, comparison: Comparison, name: str, workload: Workload, mode: str) -> tuple[Costs, float]:
        """Calls a subject for the first time, and returns its costs other than time, and its joules per image."""
        workload.module.train(mode != FORWARD)
        workload.acts[mode]()
        return self._costs(comparison, name, workload, mode), self._joules(comparison, workload, mode)

    def _costs(self, comparison: Comparison, name: str, workload: Workload, mode: str) -> Costs:
        values: dict[str, float] = {}
        if "complexity" in self._bench.metrics:
            values["parameters"] = sum(parameter.numel() for parameter in workload.module.parameters())
            values["buffers"] = buffer_count(workload.module)
            if (counted := self.count(comparison, name)) is not None:
                values |= {"multiply_adds": counted.multiply_adds, "uncounted": counted.uncounted}
                if comparison.precision == "fp32":  # counted in fp32; autocast moves fewer bytes
                    values |= {"moved_mib": counted.moved_bytes / MIB, "least_mib": counted.least_bytes / MIB}
        if "memory" in self._bench.metrics:
            values["peak_mib"] = peak_memory(workload.acts[mode], workload.persistent(), self._plan.device)
            if comparison.compile != "compiled":
                values["saved_mib"] = workload.saved_bytes() / MIB
        return Costs(**values)

    def count(self, comparison: Comparison, name: str) -> Complexity | None:
        """Counts the operations of an eager fp32 forward pass; None if the subject cannot run on the meta device."""
        key = (comparison.subject(name), comparison.layout)
        if key not in self._counts:
            try:
                self._counts[key] = _count(comparison, name, self._classes)
            except Exception:  # a third-party module may not support the meta device
                self._counts[key] = None
        return self._counts[key]

    def counted_networks(self) -> Counted:
        """Returns the operation counts of whole networks, by backbone, then by name."""
        by_backbone: Counted = {}
        for comparison in self._plan.comparisons if "complexity" in self._bench.metrics else ():
            if comparison.kind == NETWORK and comparison.place not in by_backbone:
                counts = {name: self.count(comparison, name) for name in comparison.subjects}
                by_backbone[comparison.place] = {name: each for name, each in counts.items() if each is not None}
        return by_backbone

    def _joules(self, comparison: Comparison, workload: Workload, mode: str) -> float:
        """Returns the energy of an image in joules: of networks in the last mode, which the report shows.

        All subjects of a comparison take about as long together as timing them.
        """
        modes = [mode for name, mode in MODES[comparison.kind].items() if name in self._bench.modes]
        if "energy" not in self._bench.metrics or comparison.kind != NETWORK or mode != modes[-1]:
            return math.nan
        least, most = _ENERGY_SECONDS
        seconds = min(most, max(least, self._bench.seconds / len(comparison.subjects)))
        joules = joules_per_image(workload.timed(mode), comparison.batch, self._plan.device, seconds)
        return math.nan if joules is None else joules


class _FailedError(Exception):
    """A subject failed while it was timed."""

    def __init__(self, name: str, reason: Exception) -> None:
        super().__init__(name)
        self.name, self.reason = name, reason


def _guarded(name: str, function: Callable[[], T]) -> T:
    """Calls a function of a subject, and adds the subject's name to its exceptions."""
    try:
        return function()
    except Exception as error:
        raise _FailedError(name, error) from error


def _act_of(name: str, build: Build, candidate: Candidate, mode: str) -> Act:
    """Builds a copy of a subject, in training or evaluation mode as timed, and returns its call."""
    workload = build(candidate)
    workload.module.train(mode != FORWARD)
    return partial(_guarded, name, workload.timed(mode))


def _verdicts(samples: Samples, margin: float) -> dict[str, str]:
    """Returns verdicts on all subjects that were timed together, which are one family."""
    names = [name for name in samples.names if name != TWIN]
    rows = [(name, copy, value) for name in names for copy, value in enumerate(samples.log_ratios(name))]
    values = pd.DataFrame(rows, columns=["variant", "copy", "log_ratio"])
    judged = judge_costs(values, dict.fromkeys(names, samples.baseline), margin)
    return {samples.baseline: "baseline"} | {contrast.variant: contrast.verdict.value for contrast in judged}


def _count(comparison: Comparison, name: str, classes: int) -> Complexity:
    shape, candidate = comparison.shape.of_batch(comparison.batch), comparison.subjects[name]
    with torch.device("meta"):
        x = torch.empty(shape).contiguous(memory_format=layout(comparison.layout))
        if comparison.kind == MODULE:
            return count_operations(candidate.make(shape[1]), x)
        model = build_network(candidate.network or plain_network(comparison.model), classes, 0)
        candidate.insert(comparison.model["name"], model)
        return count_operations(model, x)


def _status_of(error: Exception) -> str:
    """Returns the status of a failed subject, and frees its memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    kind = kind_of(error)
    return kind if kind == OUT_OF_MEMORY else f"failed: {first_line(error)[:LONGEST_REASON]}"
