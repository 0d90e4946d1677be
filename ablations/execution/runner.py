"""Runs a study: connects its store, schedule, launcher, driver and recorder, and writes its report."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from rich.console import Console

from ablations.analysis.costs import collect_costs
from ablations.analysis.load import analyze_stored, load_configured
from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.common import machine
from ablations.common.console import make_console, print_path, print_text
from ablations.common.errors import UsageError
from ablations.common.parts import Parts
from ablations.common.resolve import reason_against_kernels
from ablations.common.urls import hide_passwords
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design, Split, make_design
from ablations.design.declaration import Declaration, History
from ablations.design.variants import level_name
from ablations.execution.costs import CostMeasurer
from ablations.execution.degenerate import DegeneracyCheck
from ablations.execution.driver import Driver
from ablations.execution.estimate import costed_cells, estimate_costs, measuring_seconds, peak_memory, power_sentences
from ablations.execution.interrupts import Interrupts, StudyInterruptedError
from ablations.execution.launchers import check_launcher, make_launcher
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import Display
from ablations.execution.recorder import Recorder
from ablations.execution.reuse import TrainedCell, reusable_cells, reuse_sentences
from ablations.execution.schedules import make_schedule
from ablations.execution.schedules.base import Outlook, Schedule
from ablations.execution.schedules.sequential import interims_of
from ablations.export import check_exports, export_study
from ablations.reporting.text.declaration import changes_sentence, verdicts_tag
from ablations.reporting.text.progress import WRITING_REPORT
from ablations.storage.files import Checkpoints, PredictionFiles, Weights
from ablations.storage.lock import claimed
from ablations.storage.paths import storage_url, study_folder
from ablations.storage.study import StudyStore, find_study, open_store
from ablations.tracking import StudyMirror, destination_of, open_tracker
from ablations.tracking.base import status_of

_PROBED = 0.3  # seconds of training steps per variant, to estimate the cost of the study


@dataclass
class StudyRunner:
    """Runs a study; the report includes `command`, the command line as typed.

    `planned` is the complete study of a pilot, which is declared instead of the pilot; None outside a pilot.
    """

    config: Config
    command: str
    console: Console
    planned: Design | None = None
    _has_changed: bool = field(default=False, init=False)  # whether this run changed the declaration

    def __post_init__(self) -> None:
        self._degenerate = DegeneracyCheck(self.config)

    def run(self) -> int:
        """Runs the study; returns 0 if all cells have an outcome, 1 if some failed, 128 + n after signal n.

        Raises:
            SuiteError: if the study cannot be run with these options.
        """
        config, console = self.config, self.console
        design = checked_design(config)
        if config.tracking.enabled or config.tracking.register:
            destination_of(config, design.study)  # raises if the options are invalid
        folder, url = study_folder(config), storage_url(config)
        print_text(console, design.question, title=design.study)
        launcher = make_launcher(config, design, console)
        found = find_study(url, design.study)
        if config.measure.name == "only" and not (found and any(cell.outcome for cell in found.cells())):
            raise _nothing_to_measure(design.study)
        if found is None:
            launcher.warm_up()
            self._degenerate.check(design.variants)
            _ = launcher.images  # raises on invalid data before the study is created
        reusable = reusable_cells(config, design, launcher, found)
        with claimed(folder, url) as lock:
            if lock.caveat:
                self._say(lock.caveat)
            store = open_store(
                url, design.study, create=True, directions=design.directions, guard=lock.keep, notify=self._say
            )
            store.initialise(design)
            launcher.threads = store.settle_threads(config.threads, launcher.threads)
            schedule = make_schedule(config, design, store, launcher.count_parameters, self._degenerate.refusal_of)
            if schedule.interims:
                store.remember("looks", list(schedule.interims.sizes))
            mirror = open_tracker(config, design, store.id, console)
            with closing(launcher):
                try:
                    if config.measure.name == "only":
                        status = self._measure(store, schedule, launcher, mirror)
                    else:
                        status = self._train(store, schedule, launcher, mirror, reusable)
                except Exception:
                    mirror.end("FAILED")
                    raise
            if status < 128:
                parts = self._report(schedule.declared, store, mirror, has_failed=status != 0)
                status = max(status, 1 if parts.missing else 0)
            return status

    def _measure(self, store: StudyStore, schedule: Schedule, launcher: Launcher, mirror: StudyMirror) -> int:
        """Measures the costs of all variants with a finished cell again, without training.

        In a search, only confirmed variants and variants given by name are measured.
        """
        design = schedule.design
        outcomes = store.outcomes(design)
        cells = [cell for cell, _ in outcomes]
        reported = {
            cell.variant.name
            for cell in cells
            if not design.is_search or cell.split is Split.TEST or not cell.variant.levels
        }
        wanted = [variant for variant in design.variants if variant.name in reported]
        if not wanted:
            raise _nothing_to_measure(store.name)
        fingerprint = store.attributes["data_fingerprint"]
        mirror.sync(outcomes, fingerprint)
        mirror.begin(fingerprint, machine.git_commit())
        display = Display(self.console, len(cells), len(cells))
        measurer = CostMeasurer(self.config.measure, design, store, launcher, mirror, display)
        try:
            with display, Interrupts() as interrupts:
                measurer.measure(wanted, interrupts)
        except (StudyInterruptedError, KeyboardInterrupt) as error:
            mirror.end("KILLED")
            self._say("Interrupted; the costs measured so far are stored.")
            return _status_of(error)
        mirror.update_costs(cells)
        return 0

    def _train(
        self,
        store: StudyStore,
        schedule: Schedule,
        launcher: Launcher,
        mirror: StudyMirror,
        reusable: Mapping[str, TrainedCell],
    ) -> int:
        store.take_over()
        if known := collect_costs(store.attributes, schedule.design):
            mirror.costs(known.metrics)
        if outcomes := store.outcomes(schedule.design):
            mirror.sync(outcomes, store.attributes["data_fingerprint"])
        schedule.check()
        outlook = schedule.outlook()
        missing = outlook.missing
        for sentence in self._degenerate.check(known for known in outlook.design.variants if missing[known.name]):
            self._say(sentence)
        if outlook.to_train or self.planned is None:  # a finished pilot is not declared again
            self._declare(store, schedule, trains=outlook.to_train > 0)
        if not outlook.to_train:
            self._say(f"All {outlook.total} cells are finished; nothing to train.")
            return 0
        launcher.warm_up()
        store.remember("command", self.command)
        self._describe(outlook, reusable, store, schedule, launcher)
        config = self.config
        display = Display(self.console, outlook.total, outlook.total - outlook.to_train, _name_width(outlook.design))

        def notify(found: str) -> None:
            display.set_total(schedule.total)
            display.notify(found)

        schedule.notify = notify
        recorder = self._recorder(store, mirror, display)
        costs = CostMeasurer(config.measure, schedule.declared, store, launcher, mirror, display)
        seconds, retries = config.limits.seconds, config.retries
        driver = Driver(schedule, launcher, recorder, costs, reusable=reusable, seconds=seconds, retries=retries)
        try:
            with display:
                driver.train()
        except (StudyInterruptedError, KeyboardInterrupt) as error:
            mirror.end("KILLED")
            self._say(
                f"Interrupted: {schedule.count_done()} of {display.total} cells are finished and stored. The same "
                "command resumes the study."
            )
            return _status_of(error)
        if schedule.ending:
            self._say(schedule.ending)
        if driver.diverged:
            self._say(f"Diverged cells: {driver.diverged}. They are deterministic and therefore not retried.")
        if driver.failed:
            self._say(f"Failed cells: {driver.failed}; the report lists the reasons. The same command retries them.")
        return 1 if driver.failed or driver.diverged == display.total else 0

    def _recorder(self, store: StudyStore, mirror: StudyMirror, display: Display) -> Recorder:
        config, folder = self.config, study_folder(self.config)
        return Recorder(
            store,
            mirror,
            display,
            Weights(folder / "weights", config.weights),
            Checkpoints(folder / "checkpoints", config.checkpoint_every),
            PredictionFiles(folder / "predictions", config.predictions),
        )

    def _declare(self, store: StudyStore, schedule: Schedule, *, trains: bool) -> None:
        """Declares the study before its first cell; prints later changes of the declaration."""
        design, interims = self.planned or schedule.declared, schedule.interims
        if design.replicates_max and not interims:
            interims = interims_of(design, store.attributes.get("looks"))
        time = datetime.now(UTC).isoformat(timespec="seconds")
        sizes = interims.sizes if interims else ()
        asked = Declaration.of(design, sizes, commit=machine.code_version(), command=self.command, time=time)
        if changes := store.declare(asked, trains=trains):
            self._has_changed = True
            known = History.stored(store.attributes["declared"])
            self._say(changes_sentence(changes, known.deviations(asked) if known else []))

    def _describe(
        self,
        outlook: Outlook,
        reusable: Mapping[str, TrainedCell],
        store: StudyStore,
        schedule: Schedule,
        launcher: Launcher,
    ) -> None:
        """Prints the cells to train, their cost, and the effects that the study can detect."""
        known = reuse_sentences(outlook, reusable)
        outlook = outlook.without(reusable)
        design, interims = outlook.design, schedule.interims
        if outlook.note:
            self._say(outlook.note)
        replicates = f"{interims.sizes[0]} to {interims.sizes[-1]}" if interims else f"{design.replicates}"
        self._say(
            f"Variants: {outlook.variants}, replicates: {replicates}, cells: {outlook.total}; "
            f"{outlook.to_train} to train on {design.protocol['device']} in {design.protocol['train']['precision']}."
        )
        for sentence in known:
            self._say(sentence)
        if self.config.train.fused != "off" and (reason := reason_against_kernels(design.protocol["device"])):
            self._say(f"Shuffle attention is computed by torch's operations: {reason}.")
        if outlook.phases:
            self._say(outlook.phases)
        stored = store.cells()
        memory = peak_memory(store, design)
        estimate = estimate_costs(outlook, costed_cells(design, stored), launcher, _PROBED, memory)
        measuring = measuring_seconds(schedule, self.config.measure, store)
        self._say(replace(estimate, measuring=measuring).sentence)
        judged = outlook.confirmed or design
        for sentence in power_sentences(judged, collect(judged, stored).cells, interims):
            self._say(sentence)

    def _report(self, design: Design, store: StudyStore, mirror: StudyMirror, *, has_failed: bool) -> Parts:
        """Writes and prints the report and ends the run in MLflow; returns the parts of both that failed."""
        self._say(WRITING_REPORT)
        # Imported here because the plotting libraries take seconds to import.
        from ablations.reporting.publish import add_missing, report_study

        folder, registers = study_folder(self.config), bool(self.config.tracking.register)
        is_open = not mirror.complete or has_failed or self._has_changed or registers
        status = "FAILED" if has_failed else "FINISHED"
        try:
            analysis = analyze_stored(self.config, design, store, folder)
            status = "FAILED" if has_failed else status_of(set(analysis.results.pending["state"]))
            report = report_study(analysis, self.console)
        except BaseException as error:  # end the run in MLflow nevertheless, with the existing files
            if is_open:
                mirror.end(status, folder if isinstance(error, Exception) else None, parts=Parts())
            raise
        if is_open:
            uploads = Parts()
            tag = report.parts.make("tag of the verdicts in MLflow", "", verdicts_tag, analysis)
            mirror.end(status, folder, report.opening, tag, uploads)
            add_missing(self.console, folder, report.parts, uploads)
        if self.config.export:
            exports = Parts()
            print_path(self.console, "Exports", *export_study(analysis, self.config.export, exports))
            add_missing(self.console, folder, report.parts, exports)
        if mirror.lost:
            self._say(
                f"{mirror.lost}; missing results are sent by the next run, or by `analyze` with the same options and "
                "sync=true."
            )
        if command := mirror.command():
            print_path(self.console, "Dashboard", command)
        return report.parts

    def _say(self, text: str) -> None:
        print_text(self.console, text)


def checked_design(config: Config) -> Design:
    """Returns the design of a study, after all checks that are possible before the study is created."""
    design = make_design(config)
    check_launcher(config.launcher)
    study_folder(config)
    check_exports(config, trains=True)
    if design.replicates_max:
        interims_of(design)
    return design


def run_study(*overrides: str, console: Console | None = None) -> StudyAnalysis:
    """Runs a study as `python -m ablations.run` with the same overrides does, and returns its analysis.

    Stored cells are not trained again. Progress and the report are printed, also in a notebook.

    Overrides are as on the command line: `run_study("sweep=groups", "replicates=8")`.

    Raises:
        SuiteError: if the study cannot be run with these options, or none of its cells could be trained.
        KeyboardInterrupt: if the run was interrupted; finished cells are stored.
    """
    config = compose_config(overrides)
    call = f"run_study({', '.join(map(repr, overrides))})"
    if StudyRunner(config, hide_passwords(call), console or make_console()).run() >= 128:
        raise KeyboardInterrupt
    return load_configured(config)


def _nothing_to_measure(study: str) -> UsageError:
    reason = f"no cell of {study} is finished; first run the command without measure=only"
    return UsageError("measure", "only", reason)


def _status_of(error: BaseException) -> int:
    """Returns the exit status of an interrupted run."""
    return 128 + (error.signal if isinstance(error, StudyInterruptedError) else int(signal.SIGINT))


def _name_width(design: Design) -> int:
    """Returns the length of the longest cell name, including cells that a search may still select."""
    names = [variant.name for variant in design.variants]
    if design.is_search:
        choices = [[level_name(path, level) for level in levels] for path, levels in design.factors.items()]
        names.append(", ".join(max(names, key=len) for names in choices))
    behind = " selection" if design.is_search else f"{' tuned' if design.tuning else ''} r{design.replicates - 1}"
    return max(map(len, names)) + len(behind)
