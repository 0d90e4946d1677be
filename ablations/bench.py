"""`python -m ablations.bench`: measures what the variants of a sweep cost, as modules and as whole networks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.console import Console

    from ablations.benchmarking.execute import Counted
    from ablations.benchmarking.plan import Comparison, Plan
    from ablations.config import Config

PURPOSE = (
    "Measures speed, memory, complexity and energy of a sweep's variants (sweep=rivals where none is named), by "
    "themselves and in whole networks. Trains nothing."
)


def bench(config: Config, command: str) -> int:
    """Runs a benchmark; returns 0, 1 when nothing could be measured, or 130 when it was interrupted."""
    from ablations.common.process import keep_freed_memory, quiet_profiler
    from ablations.execution.progress import make_console
    from ablations.storage.folder import results_folder, tracking_uri
    from ablations.storage.lock import claimed

    keep_freed_memory()
    quiet_profiler()
    from ablations.benchmarking.plan import make_plan

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
        return _measure(config, command, plan, folder, console)


def _measure(config: Config, command: str, plan: Plan, folder: Path, console: Console) -> int:
    import time

    import pandas as pd

    from ablations.benchmarking.execute import Benchmark
    from ablations.benchmarking.report import LAYERS, MEASUREMENTS, SAMPLES, frame_of, layers_frame
    from ablations.common.files import write_whole
    from ablations.measure.record import Measurement

    measurements: list[Measurement] = []
    environment = _environment(plan)
    status, started = 0, time.time()
    with _Display(console, len(plan.comparisons)) as display:
        benchmark = Benchmark(plan, config.bench, display.note)
        try:
            for comparison in plan.comparisons:
                display.begin(comparison)
                rows = benchmark.measure(comparison)
                if not measurements:
                    _clear(folder)  # of an earlier benchmark, now that there is something of this one
                measurements += rows
                write_whole(folder / MEASUREMENTS, frame_of(measurements, environment).to_csv(index=False))
                if benchmark.samples:
                    write_whole(folder / SAMPLES, pd.DataFrame(benchmark.samples).to_csv(index=False))
                display.done()
        except KeyboardInterrupt:
            status = cli.INTERRUPTED_STATUS
    if not measurements:
        console.print("Interrupted before anything was measured.")
        return status
    if status:
        console.print(f"Interrupted; what was measured is reported and in {folder / MEASUREMENTS}.", soft_wrap=True)
    frame, counted = frame_of(measurements, environment), benchmark.counted_networks()
    if counted:
        write_whole(folder / LAYERS, layers_frame(counted).to_csv(index=False))
    _report(config, command, plan, folder, console, frame, counted, environment, started)
    console.print(f"Took {time.time() - started:,.0f} s.")
    return status or int(not (frame["status"] == "measured").any())


def _clear(folder: Path) -> None:
    for path in (*folder.glob("*.csv"), *folder.glob("*.md"), *(folder / "figures").glob("*")):
        path.unlink()


def _report(
    config: Config, command: str, plan: Plan, folder: Path, console: Console, frame: pd.DataFrame,
    counted: Counted, environment: dict[str, str], started: float,
) -> None:  # fmt: skip
    from ablations.benchmarking.report import MEASUREMENTS, NOTE, draw, sections_of, text_of
    from ablations.common.files import write_whole
    from ablations.reporting.tables.render import print_table

    sections = sections_of(frame, counted)
    for section in sections:
        console.print(f"\n[bold]{section.title}[/]")
        print_table(console, section.headers, section.rows, section.names)
        console.print(section.note, markup=False, soft_wrap=True)
    console.print(f"\n{NOTE}", markup=False, soft_wrap=True)
    where = f"{environment['gpu'] if plan.device.type == 'cuda' else environment['cpu']}; torch {environment['torch']}."
    figures = draw(frame, folder / "figures", where)
    text = text_of(folder.name, command, sections, figures, environment, plan.notes, folder)
    write_whole(folder / "report.md", text)
    for name, path in (("Report", folder / "report.md"), ("Rows", folder / MEASUREMENTS)):
        console.print(f"{name + ':':11} {path}", soft_wrap=True, markup=False)
    if config.tracking.enabled:
        _track(config, folder, frame, environment, started, console)


def _track(
    config: Config, folder: Path, frame: pd.DataFrame, environment: dict[str, str], started: float, console: Console
) -> None:
    from ablations.benchmarking.report import tracked_of
    from ablations.storage.folder import artifacts_folder, tracking_uri
    from ablations.tracking.benchmark import log_benchmark

    artifacts = artifacts_folder(config, folder.name)
    tracked = tracked_of(frame)
    opens, lost = log_benchmark(tracking_uri(config), folder, tracked, environment, artifacts, started)
    text = f"Dashboard:  {opens}" if opens else f"Not in MLflow, which did not answer ({lost})."
    console.print(text, markup=False, soft_wrap=True)


def _environment(plan: Plan) -> dict[str, str]:
    import torch

    from ablations.common import machine

    clocks = machine.clock_mhz(plan.device.type)
    known = {"device": plan.device.type, "threads": str(torch.get_num_threads())}
    return machine.environment() | known | ({"clock_mhz": clocks} if clocks else {})


class _Display:
    """Shows how a benchmark gets on: a bar on a terminal, a line a comparison elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._console = console
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, comparison: Comparison) -> None:
        """Says what comes next."""
        if not self._console.is_terminal:
            self._console.print(comparison.title, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Says what is being done."""
        self._progress.update(self._task, description=text)

    def done(self) -> None:
        """Counts a comparison."""
        self._progress.advance(self._task)


if __name__ == "__main__":
    sys.exit(cli.main("bench", PURPOSE, bench, defaults=("sweep=rivals",)))
