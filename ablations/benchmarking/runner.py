"""Runs a benchmark: measures every comparison, writes its rows at once, and reports at the end."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ablations.benchmarking import report
from ablations.benchmarking.execute import Benchmark, Counted
from ablations.benchmarking.plan import BenchmarkPlan, Comparison, make_plan
from ablations.common import machine
from ablations.common.console import make_console, print_path, print_text
from ablations.common.files import write_whole
from ablations.common.parts import TRACEBACKS, Parts
from ablations.config import Config
from ablations.measure.energy import gpu_uuid
from ablations.measure.record import Measurement
from ablations.measure.speed import clock_of
from ablations.reporting.tables.render import print_table
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.not_made import not_made_notice
from ablations.storage.lock import claimed
from ablations.storage.paths import results_folder
from ablations.tracking import open_benchmark
from ablations.tracking.destination import destination_of

if TYPE_CHECKING:
    from ablations.tracking.experiment import Experiment


class Ending(Enum):
    """Outcome of a benchmark."""

    MEASURED = "at least one subject was measured"
    INCOMPLETE = "at least one subject was measured, and a part of the report could not be made"
    FAILED = "no subject could be measured"
    INTERRUPTED = "interrupted by the user"


def run_benchmark(config: Config, command: str) -> Ending:
    """Runs the benchmark of a configuration; `command` is the command line, for the report.

    Raises:
        UsageError: if the plan cannot be measured, or another process runs the same benchmark.
    """
    plan = make_plan(config)
    console = make_console()
    models = "-".join(dict.fromkeys(comparison.model["name"].replace("/", "-") for comparison in plan.comparisons))
    folder = results_folder(config) / f"bench-{config.sweep.name}-{models[:60]}-{plan.device.type}"
    if config.tracking.enabled:
        destination_of(config, folder.name)  # raises a UsageError for an invalid URI
    print_text(console, f"{len(plan.comparisons)} comparisons", title=folder.name)
    print_text(console, *plan.notes)
    with claimed(folder, ""):
        experiment = open_benchmark(config, folder.name, console)  # errors are reported before measuring
        return _Runner(config, command, plan, folder, console, experiment).run()


class _Runner:
    """Runs a plan, with exclusive access to its folder."""

    def __init__(
        self,
        config: Config,
        command: str,
        plan: BenchmarkPlan,
        folder: Path,
        console: Console,
        experiment: Experiment | None,
    ) -> None:
        self._config, self._command, self._plan = config, command, plan
        self._folder, self._console, self._experiment = folder, console, experiment
        self._started, self._began, self._parts = time.time(), time.monotonic(), Parts()
        clocks = machine.clock_mhz(gpu_uuid(plan.device) if plan.device.type == "cuda" else None)
        computed_on = {"device": plan.device.type, "threads": str(torch.get_num_threads())}
        computed_on["clock"] = clock_of(plan.device).__name__.replace("_", " ")
        self._environment = machine.environment() | computed_on | ({"clock_mhz": clocks} if clocks else {})

    def run(self) -> Ending:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        is_plain = not self._console.is_interactive
        with Progress(*columns, console=self._console, transient=True, disable=is_plain) as progress:
            task = progress.add_task("", total=len(self._plan.comparisons))
            benchmark = Benchmark(self._plan, self._config.bench, lambda text: progress.update(task, description=text))
            measurements: list[Measurement] = []
            is_interrupted = False
            try:
                for comparison in self._plan.comparisons:
                    if is_plain:
                        self._print_text(comparison.title)
                    self._measure(benchmark, comparison, measurements)
                    progress.advance(task)
            except KeyboardInterrupt:
                is_interrupted = True
        if not measurements:
            self._print_text("Interrupted before anything was measured.")
            return Ending.INTERRUPTED
        if is_interrupted:
            path = self._folder / report.MEASUREMENTS
            self._print_text(f"Interrupted; the measurements so far are reported and stored in {path}.")
        frame = report.frame_of(measurements, self._environment)
        self._report(frame, self._parts.make("counted operations", {}, benchmark.counted_networks))
        if self._experiment is not None:
            self._parts.make("MLflow runs", None, self._track, self._experiment, frame)
        self._print_text(*not_made_notice(self._parts, self._parts.write_tracebacks(self._folder / TRACEBACKS)))
        self._print_text(f"Took {time.monotonic() - self._began:,.0f} s.")
        if is_interrupted:
            return Ending.INTERRUPTED
        if not (frame["status"] == "measured").any():
            return Ending.FAILED
        return Ending.INCOMPLETE if self._parts.missing else Ending.MEASURED

    def _measure(self, benchmark: Benchmark, comparison: Comparison, measurements: list[Measurement]) -> None:
        """Measures a comparison, appends it to `measurements`, and writes them all."""
        new = benchmark.measure(comparison)
        if not measurements:  # the folder's files are replaced only once there is a new measurement
            folder = self._folder
            for path in (*folder.glob("*.csv"), *folder.glob("*.md"), *folder.glob("figures/*")):
                path.unlink()
        measurements += new
        self._write(report.MEASUREMENTS, report.frame_of(measurements, self._environment))
        if benchmark.samples:
            self._write(report.SAMPLES, pd.DataFrame(benchmark.samples))

    def _write(self, name: str, frame: pd.DataFrame) -> None:
        write_whole(self._folder / name, frame.to_csv(index=False))

    def _report(self, frame: pd.DataFrame, counted: Counted) -> None:
        folder, parts, environment = self._folder, self._parts, self._environment
        if counted:
            parts.make(f"table {report.LAYERS}", None, lambda: self._write(report.LAYERS, report.layers_frame(counted)))
        sections = report.sections_of(frame, counted, parts)
        for section in sections:
            parts.make(f"printed table {section.title}", None, self._print_section, section)
        explanation = report.explanation(self._config.bench.margin)
        self._print_text(f"\n{explanation}")
        processor = environment["gpu" if self._plan.device.type == "cuda" else "cpu"]
        self._print_text("Writing the report: tables and figures.")
        figures = report.draw(frame, folder / "figures", f"{processor}; torch {environment['torch']}.", parts)
        notes = [explanation, *self._plan.notes]
        text = report.text_of(folder.name, self._command, sections, figures, environment, notes, folder, parts)
        parts.make("report.md", None, write_whole, folder / "report.md", text)
        for name, path in (("Report", folder / "report.md"), ("Rows", folder / report.MEASUREMENTS)):
            if path.exists():
                print_path(self._console, name, path)

    def _print_section(self, section: Section) -> None:
        self._console.print(f"\n[bold]{section.title}[/]")
        print_table(self._console, section.headers, section.rows, section.names)
        self._print_text(section.note)

    def _print_text(self, *texts: str) -> None:
        print_text(self._console, *texts)

    def _track(self, experiment: Experiment, frame: pd.DataFrame) -> None:
        from ablations.tracking.benchmark import log_benchmark  # MLflow takes seconds to import

        tracked = report.tracked_of(frame)
        opens, lost = log_benchmark(experiment, self._folder, tracked, self._environment, self._started, self._parts)
        if opens:
            print_path(self._console, "Dashboard", opens)
        else:
            self._print_text(f"Not in MLflow: {lost}.")
