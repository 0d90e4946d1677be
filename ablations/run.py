"""`python -m ablations.run`: trains every cell of a study that has no result yet, then reports."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from ablations.config import Config
    from ablations.design import Cell, Design
    from ablations.execution.launchers.base import Launcher
    from ablations.stats import Looks
    from ablations.storage.study import StudyStore
    from ablations.tracking.tracker import Tracker

_PROBED = 0.3  # seconds of training steps of a variant, to say what the study costs
PURPOSE = "Trains every cell of a study that has no result yet, and reports; running it again goes on where it stopped."


def run(config: Config, command: str) -> int:
    """Runs a study; returns 0 when all its cells have an outcome, 1 when some failed, 128 + n after signal n."""
    from dataclasses import replace

    from rich.markup import escape

    from ablations.common.machine import resolve_threads
    from ablations.design import make_design
    from ablations.execution.launchers.select import check_launcher, make_launcher
    from ablations.execution.progress import make_console
    from ablations.execution.schedules.sequential import looks_of, planned_looks
    from ablations.storage.folder import storage_url, study_folder, tracking_uri
    from ablations.storage.lock import claimed
    from ablations.storage.study import is_begun, open_store

    design = make_design(config)
    check_launcher(config.launcher)
    if design.replicates_max:
        planned_looks(design)  # which may be refused, before there is a study
    folder, url = study_folder(config), storage_url(config)
    if config.tracking.enabled:
        tracking_uri(config)  # which may be refused, too
    console = make_console()
    console.print(f"[bold]{design.study}[/]: {escape(design.question)}", soft_wrap=True)
    usual = resolve_threads(config.threads, design.protocol["device"], config.data.side)
    launcher = make_launcher(config.launcher, design, config.data, console, config.measure, usual)
    if not is_begun(url, design.study):
        _ = launcher.images  # what is wrong with the data is said before there is a study

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    with claimed(folder, url) as lock:
        if lock.caveat:
            say(lock.caveat)
        store = open_store(url, design.study, create=True, directions=design.directions, guard=lock.keep, say=say)
        store.begin(design)
        launcher.threads = store.settle_threads(config.threads, usual)
        looks = None
        if design.replicates_max:
            looks = looks_of(design, store)
            store.remember("looks", list(looks.sizes))
            design = replace(design, replicates=looks.sizes[0])
        tracker = _open_tracker(config, design, store.id, console)
        with launcher:
            status = _train(config, design, looks, store, tracker, launcher, command, console)
        if status >= 128:
            return status
        _report(config, design, store, tracker, console, failed=status != 0)
        return status


def _open_tracker(config: Config, design: Design, study_id: str, console: Console) -> Tracker | None:
    if not config.tracking.enabled:
        return None
    from pathlib import Path

    from ablations.storage.folder import results_folder, tracking_uri

    uri = tracking_uri(config)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        console.print("Making the MLflow store, once; this takes some seconds.")
    from ablations.tracking.tracker import Tracker

    return Tracker(uri, design, study_id, results_folder(config) / "mlflow-artifacts" / design.study)


def _train(
    config: Config,
    design: Design,
    looks: Looks | None,
    store: StudyStore,
    tracker: Tracker | None,
    launcher: Launcher,
    command: str,
    console: Console,
) -> int:
    from collections import Counter
    from itertools import chain, islice

    from ablations.analysis.results import collect
    from ablations.execution.driver import Driver, StudyInterruptedError
    from ablations.execution.estimate import estimate_costs, knowledge
    from ablations.execution.progress import Display
    from ablations.execution.schedules.search import MedianStopper, Search
    from ablations.execution.schedules.sequential import Sequential
    from ablations.storage.checkpoints import Checkpoints
    from ablations.storage.folder import study_folder
    from ablations.storage.weights import Weights

    search = Search(config, design, store, launcher.count_parameters) if design.is_search else None
    known = search.design if search else design
    epochs = config.train.epochs
    prunes = search is not None and MedianStopper.suits(design.objectives)
    stopper = MedianStopper(store, design.objectives[0], epochs) if prunes else None
    folder = study_folder(config)
    driver = Driver(
        known,
        store,
        tracker,
        launcher,
        stopper,
        Weights(folder / "weights", config.weights),
        Checkpoints(folder / "checkpoints", config.checkpoint_every),
        seconds=config.limits.seconds,
        retries=config.retries,
    )
    missing = driver.missing()
    picks = 0
    further: Iterator[Cell | None] = search.cells() if search else iter(())
    if looks:
        further = Sequential(design, store, looks, lambda text, number: display.add_cells(number, text)).cells()
    if search:
        search.check()
        trials = min(config.sweep.trials, search.size())
        if trials < config.sweep.trials:
            console.print(f"There are {trials} combinations of levels to pick from, not {config.sweep.trials}.")
        picks = max(0, trials + len(design.variants) - len(known.variants))
    to_train = len(missing) + picks * design.replicates
    total = driver.count_finished() + to_train if looks else _cells(known) + picks * design.replicates
    display = Display(console, total, total - to_train, _name_width(known))
    if looks and not missing:
        first = list(islice(further, 1))  # the study is looked at here
        to_train = display.total - total
        missing = [cell for cell in (*first, *islice(further, max(0, to_train - 1))) if cell]
    if not to_train:
        console.print(f"All {total} cells are finished; nothing to train.")
        return 0
    store.remember("command", command)
    replicates = f"{looks.sizes[0]} to {looks.sizes[-1]}" if looks else str(design.replicates)
    console.print(
        f"Variants: {len(known.variants) + picks}, replicates: {replicates}, cells: {display.total}; "
        f"{to_train} to train on {design.protocol['device']} in {design.protocol['train']['precision']}."
    )
    stored = collect(known, store.cells())
    to_come = Counter(cell.variant.name for cell in missing)
    estimate = estimate_costs(known, stored.cells, launcher, to_come, _PROBED, picks * design.replicates)
    for line in (estimate.sentence, knowledge(known, stored.cells, looks)):
        console.print(line, soft_wrap=True, markup=False)
    failed = 0
    try:
        with display:
            failed = driver.train(chain(missing, further), display)
    except (StudyInterruptedError, KeyboardInterrupt) as error:
        number = error.signal if isinstance(error, StudyInterruptedError) else int(signal.SIGINT)
        if tracker:
            tracker.end("KILLED")
        console.print(
            f"Interrupted: {driver.count_finished()} of {display.total} cells are finished and stored. "
            "The same command goes on with the others."
        )
        return 128 + number
    if search and search.exhausted:
        console.print("No other combination of levels is left to pick.")
    if driver.diverged:
        console.print(f"Cells that diverged: {driver.diverged}; they would do so again, and are not tried again.")
    if failed:
        console.print(f"Cells that failed: {failed}; the report says why. The same command tries them again.")
    return 1 if failed or driver.diverged == display.total else 0


def _name_width(design: Design) -> int:
    """Returns the letters of the longest name of a cell, those included that a search may still pick."""
    from ablations.design.variants import level_name

    names = [variant.name for variant in design.variants]
    if design.is_search:
        longest = [
            max((level_name(path, level) for level in levels), key=len) for path, levels in design.factors.items()
        ]
        names.append(", ".join(longest))
    return max(map(len, names)) + len(f" r{design.replicates - 1}")


def _cells(design: Design) -> int:
    return len(design.variants) * design.replicates


def _report(
    config: Config, design: Design, store: StudyStore, tracker: Tracker | None, console: Console, *, failed: bool
) -> None:
    from ablations.analysis.load import analyze_stored
    from ablations.reporting.publish import report_study
    from ablations.storage.folder import study_folder

    report = report_study(analyze_stored(config, design, store, study_folder(config)), console)
    if tracker is None:
        return
    if not tracker.complete or failed:
        tracker.end("FAILED" if failed else "FINISHED", report.folder, report.opening)
    if tracker.lost:
        console.print(
            f"MLflow stopped answering ({tracker.lost}); the next run sends what it missed, and so does `analyze` with "
            "the same options and sync=true.",
            soft_wrap=True,
            markup=False,
        )
    console.print(f"Dashboard:  {tracker.command()}", soft_wrap=True, markup=False)


if __name__ == "__main__":
    sys.exit(cli.main("run", PURPOSE, run))
