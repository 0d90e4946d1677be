"""One benchmark from its plan to its report: measures every comparison, keeps the rows as they come, then reports."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from ablations.benchmarking import report
from ablations.benchmarking.display import Display, print_sections
from ablations.benchmarking.execute import Benchmark
from ablations.benchmarking.plan import BenchmarkPlan, make_plan
from ablations.common import machine
from ablations.common.files import write_whole
from ablations.config import Config
from ablations.execution.progress import make_console
from ablations.measure.record import Measurement
from ablations.reporting.tables.sections import Section
from ablations.storage.lock import claimed
from ablations.storage.paths import artifacts_folder, results_folder, tracking_uri


class Ending(Enum):
    """How a benchmark ended."""

    MEASURED = "at least one subject was measured"
    FAILED = "no subject could be measured"
    INTERRUPTED = "interrupted by the user"


def run_benchmark(config: Config, command: str) -> Ending:
    """Measures and reports what a configuration asks for.

    Args:
        config: the configuration.
        command: the command that was typed, for the report.

    Raises:
        UsageError: if the plan cannot be measured, or another process runs the same benchmark.
    """
    plan = make_plan(config)
    console = make_console()
    models = "-".join(dict.fromkeys(comparison.model["name"].replace("/", "-") for comparison in plan.comparisons))
    if config.tracking.enabled:
        tracking_uri(config)  # which may be refused
    folder = results_folder(config) / f"bench-{config.sweep.name}-{models[:60]}-{plan.device.type}"
    console.print(f"[bold]{folder.name}[/]: {len(plan.comparisons)} comparisons", soft_wrap=True)
    for note in plan.notes:
        console.print(note, markup=False, soft_wrap=True)
    with claimed(folder, ""):
        return _Runner(config, command, plan, folder, console).run()


class _Runner:
    """Runs a plan whose folder nobody else writes to."""

    def __init__(self, config: Config, command: str, plan: BenchmarkPlan, folder: Path, console: Console) -> None:
        self._config, self._command, self._plan = config, command, plan
        self._folder, self._console = folder, console
        self._environment = _environment(plan)
        self._started = time.time()

    def run(self) -> Ending:
        with Display(self._console, len(self._plan.comparisons)) as display:
            benchmark = Benchmark(self._plan, self._config.bench, display.note)
            measurements, is_interrupted = self._measure(benchmark, display)
        ending = Ending.INTERRUPTED if is_interrupted else Ending.MEASURED
        if not measurements:
            self._console.print("Interrupted before anything was measured.")
            return ending
        rows = self._folder / report.MEASUREMENTS
        if is_interrupted:
            self._console.print(f"Interrupted; what was measured is reported and in {rows}.", soft_wrap=True)
        frame, counted = report.frame_of(measurements, self._environment), benchmark.counted_networks()
        if counted:
            write_whole(self._folder / report.LAYERS, report.layers_frame(counted).to_csv(index=False))
        self._report(frame, report.sections_of(frame, counted))
        if self._config.tracking.enabled:
            self._track(frame)
        self._console.print(f"Took {time.time() - self._started:,.0f} s.")
        has_failed = not is_interrupted and not (frame["status"] == "measured").any()
        return Ending.FAILED if has_failed else ending

    def _measure(self, benchmark: Benchmark, display: Display) -> tuple[list[Measurement], bool]:
        """Returns what was measured, and whether the user interrupted it; writes it after each comparison."""
        measurements: list[Measurement] = []
        try:
            for comparison in self._plan.comparisons:
                display.begin(comparison)
                measured = benchmark.measure(comparison)
                if not measurements:
                    _clear(self._folder)  # of an earlier benchmark, now that there is something of this one
                measurements += measured
                write_whole(
                    self._folder / report.MEASUREMENTS,
                    report.frame_of(measurements, self._environment).to_csv(index=False),
                )
                if benchmark.samples:
                    write_whole(self._folder / report.SAMPLES, pd.DataFrame(benchmark.samples).to_csv(index=False))
                display.done()
        except KeyboardInterrupt:
            return measurements, True
        return measurements, False

    def _report(self, frame: pd.DataFrame, sections: list[Section]) -> None:
        print_sections(self._console, sections)
        folder, environment = self._folder, self._environment
        processor = environment["gpu" if self._plan.device.type == "cuda" else "cpu"]
        figures = report.draw(frame, folder / "figures", f"{processor}; torch {environment['torch']}.")
        text = report.text_of(folder.name, self._command, sections, figures, environment, self._plan.notes, folder)
        write_whole(folder / "report.md", text)
        for name, path in (("Report", folder / "report.md"), ("Rows", folder / report.MEASUREMENTS)):
            self._console.print(f"{name + ':':11} {path}", soft_wrap=True, markup=False)

    def _track(self, frame: pd.DataFrame) -> None:
        from ablations.tracking.benchmark import log_benchmark  # MLflow takes seconds to import

        artifacts = artifacts_folder(self._config, self._folder.name)
        opens, lost = log_benchmark(
            tracking_uri(self._config),
            self._folder,
            report.tracked_of(frame),
            self._environment,
            artifacts,
            self._started,
        )
        text = f"Dashboard:  {opens}" if opens else f"Not in MLflow, which did not answer ({lost})."
        self._console.print(text, markup=False, soft_wrap=True)


def _clear(folder: Path) -> None:
    for path in (*folder.glob("*.csv"), *folder.glob("*.md"), *(folder / "figures").glob("*")):
        path.unlink()


def _environment(plan: BenchmarkPlan) -> dict[str, str]:
    clocks = machine.clock_mhz(plan.device.type)
    computed_on = {"device": plan.device.type, "threads": str(torch.get_num_threads())}
    return machine.environment() | computed_on | ({"clock_mhz": clocks} if clocks else {})
