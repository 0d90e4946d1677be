"""MLflow as a mirror of the study for browsing; the study's data is in the store.

A study has an experiment, with a parent run and a child run for each cell. Writes are idempotent, so an incomplete
mirror is completed by writing it again from the store.

Updates during an outage are queued and sent when the server responds again (`ablations.tracking.outage`). Updates that
were not sent by the end of a run are sent by the next run, or by `analyze sync=true`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from ablations.common.errors import shown
from ablations.common.metrics import CELL_METRICS, COSTS, EPOCH_METRICS
from ablations.common.names import plain_names
from ablations.common.parts import RAISE, Parts
from ablations.common.settings import flatten
from ablations.common.urls import hide_passwords
from ablations.design import Cell, Design
from ablations.storage.paths import EXPORTS_FOLDER
from ablations.tracking.base import StudyMirror
from ablations.tracking.destination import Destination
from ablations.tracking.experiment import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    VIEW,
    open_experiment,
    outage_of,
    refusals_of,
)
from ablations.tracking.models import Models
from ablations.tracking.outage import Connection, State
from ablations.tracking.run_index import RunIndex

if TYPE_CHECKING:
    from ablations.training.events import Epoch

LONGEST_TAG = 5000  # characters
LONGEST_SOURCE = 65_535  # characters; the class list of a large data set is longer
LIVE_SECONDS = 30.0  # maximum interval between two batches of epochs; short cells need only one
# Files of cells are not logged: copies of large networks or of thousands of files would fill the disk.
_NO_ARTIFACTS = ("weights", "checkpoints", "predictions", EXPORTS_FOLDER)
_COMMIT = "mlflow.source.git.commit"


@dataclass
class _Update:
    """The state of a cell that may not be in MLflow yet."""

    cell: Cell
    commit: str | None = None
    status: str = RUNNING  # or the final status of an ended cell
    outcome: Mapping[str, Any] | None = None  # of a FINISHED cell
    failure: str = ""  # of a FAILED one
    metrics: list[Metric] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)
    cleared: bool = False  # whether the run of an earlier attempt was discarded
    described: bool = False


class Tracker(StudyMirror):
    """Mirrors one study to an MLflow store.

    Args:
        study_id: distinguishes studies of the same name on a server.

    Attributes:
        destination: the study's destination in MLflow.
        runs: the study's runs in the experiment.
        monitor: logs system metrics to the parent run during training.

    Raises:
        UsageError: if the store does not respond.
    """

    def __init__(self, destination: Destination, design: Design, study_id: str) -> None:
        self.destination, self._design, self._study_id = destination, design, study_id
        self.monitor: SystemMetricsMonitor | None = None
        self._is_training = False
        self._fingerprint = ""
        self._commit: str | None = None
        self._pending: dict[str, _Update] = {}
        self._finished: set[str] = set()
        self._costs: dict[str, Mapping[str, float]] = {}  # by variant and metric
        self.experiment = open_experiment(destination)
        with refusals_of(destination):
            self.runs = RunIndex(self.experiment, design.study, study_id)
        self.connection = Connection(
            probe=lambda: self.experiment.client.search_experiments(max_results=1),
            reconnect=self._reconnect,
            send_pending=self._send_pending,
            explain=lambda error: outage_of(error, destination),
        )

    @property
    def lost(self) -> str | None:
        """Why the mirror is incomplete, as a clause; None while the store responds."""
        return self.connection.lost

    @property
    def complete(self) -> bool:
        """Whether the parent run was ended as finished, and not opened since."""
        if self.connection.state is not State.CONNECTED:
            return False
        try:
            return str(self.experiment.client.get_run(self.runs.parent_id).info.status) == FINISHED
        except Exception as error:
            self.connection.lose(error)
            return False

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the parent run and starts logging system metrics."""
        self._is_training, self._fingerprint, self._commit = True, fingerprint, commit
        self.connection.attempt(self._open_parent)

    def costs(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Records costs by variant and metric, for cells that finish from now on."""
        self._costs |= known

    def update_costs(self, cells: Sequence[Cell]) -> None:
        """Writes the latest costs to the runs of finished cells."""
        self.connection.attempt(self._write_costs, cells)

    def start_cell(self, cell: Cell, commit: str | None) -> None:
        """Opens the child run of a cell at the start of its training."""
        self._pending[cell.key] = _Update(cell, commit)
        self._send(cell)

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Records an epoch; writes recorded epochs after an interval of `LIVE_SECONDS`."""
        update = self._update_of(cell)
        update.metrics += _epoch_metrics(vars(epoch))
        if time.monotonic() - update.written > LIVE_SECONDS:
            self._send(cell)

    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes the child run of a finished cell."""
        update = self._update_of(cell, outcome["environment"].get("commit"))
        update.status, update.outcome = FINISHED, outcome
        self._send(cell)

    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Ends the child run of a failed cell."""
        update = self._update_of(cell)
        update.status, update.failure = FAILED, hide_passwords(reason)
        self._send(cell)

    def release_cell(self, cell: Cell) -> None:
        """Ends the child run of an interrupted cell, which a later run resumes."""
        self._update_of(cell).status = KILLED
        self._send(cell)

    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Sends the outcomes of cells that are not finished in MLflow."""
        self._fingerprint = fingerprint
        self.connection.attempt(self._find_finished, {cell.key for cell, _ in finished})
        missed = [(cell, outcome) for cell, outcome in finished if cell.key not in self._finished]
        for cell, outcome in missed:
            self._pending[cell.key] = _Update(cell, outcome["environment"].get("commit"), FINISHED, outcome)
        if missed:
            self.connection.attempt(self._describe_parent)
            self.connection.attempt(self._send_pending, None)

    def end(
        self, status: str, folder: Path | None = None, note: str = "", verdicts: str = "", parts: Parts = RAISE
    ) -> None:
        """Ends the parent run with the report as its description and the study's files as its artifacts.

        Queued updates are sent if the server responds; an interrupted run does not try. `parts` receives files that
        cannot be sent although the server responds.
        """
        self._is_training = False
        self.connection.close(retry=status != KILLED)
        self.connection.attempt(self._close_parent, status, folder, note, verdicts, parts)

    def command(self) -> str:
        """Returns the command or address that opens the dashboard."""
        # Filter for this study if several share the experiment.
        is_shared = self.destination.experiment != self._design.study
        condition = quote(f"tags.study_id = '{self._study_id}'")
        return self.experiment.dashboard(
            f"viewStateShareKey={VIEW}" + (f"&searchFilter={condition}" if is_shared else "")
        )

    def _update_of(self, cell: Cell, commit: str | None = None) -> _Update:
        return self._pending.setdefault(cell.key, _Update(cell, commit))

    def _send(self, cell: Cell) -> None:
        self.connection.attempt(self._write, cell.key)

    # The following methods access the store and raise its errors; the connection calls them.

    def _reconnect(self) -> None:
        self.runs.read()
        if self._is_training:
            self._open_parent()
        elif self._fingerprint:
            self._describe_parent()

    def _open_parent(self) -> None:
        client, run_id = self.experiment.client, self.runs.parent_id
        client.update_run(run_id, status=RUNNING)
        self._describe_parent()
        if self.monitor is not None:  # from before an outage; it may still wait for a response
            threading.Thread(target=self.monitor.finish, daemon=True, name="mlflow-monitor").start()
        self.monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
        self.monitor.start()

    def _describe_parent(self) -> None:
        design = self._design
        # Values that may change between runs are tags, because MLflow parameters are immutable.
        tags = {"sweep": design.sweep, "question": design.question, "baseline": design.baseline, _COMMIT: self._commit}
        self._describe(self.runs.parent_id, as_typed(design.protocol), tags)

    def _describe(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str | None]) -> None:
        """Writes a run's parameters, tags and data set."""
        client, data = self.experiment.client, self._design.protocol["data"]
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()], tags=_tags(tags))
        source = json.dumps({key: value for key, value in data.items() if key != "name"})
        data_set = Dataset(data["name"], self._fingerprint, "options", source[:LONGEST_SOURCE])
        client.log_inputs(run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])

    def _close_parent(self, status: str, folder: Path | None, note: str, verdicts: str, parts: Parts) -> None:
        if self.monitor is not None:
            self.monitor.finish()
            self.monitor = None
        self.connection.catch_up()
        if self.connection.was_lost:
            self.runs.read()  # requests without a response may have created runs
            self.runs.finish(self._finished)
        self.runs.remember_finished(self._finished)
        client, run_id = self.experiment.client, self.runs.parent_id
        if note:
            client.set_tag(run_id, "mlflow.note.content", note)
        if verdicts:
            client.set_tag(run_id, "verdicts", verdicts[:LONGEST_TAG])
        if folder is not None:
            self.experiment.log_files(run_id, folder, parts, leave_out=_NO_ARTIFACTS)
            if self.destination.has_models:
                self._log_models(folder / "weights", parts)
        client.set_terminated(run_id, status)

    def _log_models(self, folder: Path, parts: Parts) -> None:
        """Logs networks with weights in a folder as models of their cells' runs."""
        kept = {path.stem: path for path in sorted(folder.glob("*.safetensors")) if path.stem in self._finished}
        if not kept:
            return
        client, models = self.experiment.client, Models(self.experiment, self._study_id)
        runs = {key: client.get_run(run_id) for key, run_id in self.runs.ids_of(kept).items()}
        aliases = plain_names(sorted({run.data.params["variant"] for run in runs.values()}))
        for key, run in runs.items():
            alias = aliases[run.data.params["variant"]]
            try:
                model_id = models.log(run, kept[key], alias)
                if self.destination.registered:
                    models.register(self.destination.registered, model_id, run, alias)
            except Exception as error:  # of the network, or of the store
                client.get_run(self.runs.parent_id)  # raises if the store does not respond
                parts.add(f"MLflow model of {run.info.run_name}", error)

    def _find_finished(self, keys: set[str]) -> None:
        self._finished = self.runs.finished_among(keys)

    def _send_pending(self, seconds: float | None) -> bool:
        """Sends pending updates, for at most `seconds`; returns whether all were sent."""
        begun = time.monotonic()
        for key in list(self._pending):
            try:
                self._write(key)
            except Exception:
                # To the end, so that a refused update does not block others.
                self._pending[key] = self._pending.pop(key)
                raise
            if seconds is not None and time.monotonic() - begun > seconds:
                return False
        return True

    def _write(self, key: str) -> None:
        """Updates a cell's run to the cell's state; writes are idempotent."""
        if key not in self._pending:  # already sent after an outage
            return
        client, update = self.experiment.client, self._pending[key]
        if not update.cleared:
            self.runs.discard_cut_off(update.cell)
            update.cleared = True
        run_id = self.runs.child(update.cell)
        if not update.described:
            if update.status == RUNNING:
                client.update_run(run_id, status=RUNNING)
            self._describe_child(run_id, update)
            update.described = True
        if update.outcome is not None:
            self._complete_child(run_id, update.outcome, self._costs.get(update.cell.variant.name, {}))
            self._finished.add(key)
            self.sent += 1
        elif update.status != RUNNING:
            if update.status == FAILED:
                client.set_tag(run_id, "failure", update.failure[:LONGEST_TAG])
            client.set_terminated(run_id, update.status)
        elif update.metrics:
            client.log_batch(run_id, metrics=update.metrics)
            update.metrics, update.written = [], time.monotonic()
        if update.status != RUNNING:
            del self._pending[key]

    def _describe_child(self, run_id: str, update: _Update) -> None:
        cell, variant = update.cell, update.cell.variant
        params = {
            "variant": variant.name,
            "replicate": cell.replicate,
            "split": cell.split.value,
            "key": cell.key,
            # A variant's recipe replaces options of the protocol.
            **as_typed({**self._design.protocol, **variant.network, "clamped": variant.clamped}),
            **as_typed(variant.recipe),
        }
        self._describe(run_id, params, {_COMMIT: update.commit})

    def _write_costs(self, cells: Sequence[Cell]) -> None:
        self.runs.read()  # including runs of finished cells, which are read only if needed
        stamp = int(time.time() * 1000)
        for cell in cells:
            known = self._costs.get(cell.variant.name)
            if known and cell.key in self._finished:
                metrics = [Metric(key, value, stamp, 0) for key, value in known.items()]
                self.experiment.client.log_batch(self.runs.child(cell), metrics=metrics)

    def _complete_child(self, run_id: str, outcome: Mapping[str, Any], costs: Mapping[str, float]) -> None:
        """Writes a finished cell's metrics to its run, and ends it."""
        client, result = self.experiment.client, {**costs, **outcome["result"]}
        # All epochs, including those written live: equal values with equal time stamps change nothing.
        epochs = [metric for epoch in result["epochs"] for metric in _epoch_metrics(epoch)]
        stamp = int(result["epochs"][-1]["finished"] * 1000)
        # At step 0, which the dashboard draws as bars.
        once = [
            Metric(key, float(result[key]), stamp, 0)
            for key in (*CELL_METRICS, *COSTS)
            # A pruned cell has only epochs; unmeasured values are None.
            if result.get(key) is not None and key not in EPOCH_METRICS
        ]
        tags = {
            "attention_by": result.get("attention_by") or None,
            "execution": result.get("execution") or None,
            "pruned": outcome.get("pruned"),
            "images": outcome.get("images") or None,
        }
        client.log_batch(run_id, metrics=epochs + once, tags=_tags(tags))
        if "failure" in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, "failure")  # of an earlier attempt
        client.set_terminated(run_id, FINISHED)


def as_typed(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns settings named and written as on the command line: `attention` is `sa`, `attention.groups` is `4`."""
    return {name.removesuffix(".name"): shown(value) for name, value in flatten(settings).items()}


def _epoch_metrics(epoch: Mapping[str, Any]) -> list[Metric]:
    """Returns the metrics of an epoch, whose step is its number from 1."""
    # With the epoch's time stamp, writing an epoch again adds nothing.
    stamp = int(epoch["finished"] * 1000)
    known = ((key, epoch[key]) for key in EPOCH_METRICS if epoch[key] is not None)
    return [Metric(key, float(value), stamp, epoch["epoch"] + 1) for key, value in known]


def _tags(values: Mapping[str, str | None]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in values.items() if value is not None]
