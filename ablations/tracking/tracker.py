"""MLflow as a mirror of the study, for people to browse; never its memory.

One experiment a study; in it a parent run for the study and a child run for each cell. What is written twice is written
the same, so a mirror that was cut off is completed by writing it again from the store.

Updates that a lost server misses are kept, and sent when it answers again (`ablations.tracking.outage`). What a run
could not send by its end is sent by the next one, or by `analyze sync=true`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.design import Cell, Design
from ablations.tracking import content
from ablations.tracking.experiment import FAILED, FINISHED, KILLED, RUNNING, VIEW, open_experiment, reason_of
from ablations.tracking.outage import Connection, State
from ablations.tracking.run_index import RunIndex

if TYPE_CHECKING:
    from ablations.training.events import Epoch

LONGEST_TAG = 5000  # characters
LIVE_SECONDS = 30.0  # epochs are written in batches, at most this far apart; short cells in one
# Weights and checkpoints stay where they are: copies of large networks would fill the disk.
_NO_ARTIFACTS = ("weights", "checkpoints")


@dataclass
class PendingUpdate:
    """What is known of a cell and may not be in MLflow yet.

    `outcome`, `failure` or `released` say how it ended, where it did.
    """

    cell: Cell
    commit: str | None = None
    outcome: Mapping[str, Any] | None = None
    failure: str | None = None
    released: bool = False
    cleared: bool = False  # what an earlier attempt left is out of the way
    described: bool = False
    metrics: list[Metric] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        """Whether the cell has ended, so that nothing follows this update."""
        return self.outcome is not None or self.failure is not None or self.released


class Tracker:
    """Mirrors one study to an MLflow store; a `StudyMirror`.

    Args:
        uri: MLflow tracking URI.
        design: the study.
        study_id: tells it from other people's studies of its name on the same server.
        artifacts: folder of the artifacts where the store is a database of our own; a server has a place of its own.

    Attributes:
        uri: MLflow tracking URI.
        experiment: of the study.
        runs: which runs the experiment has of the study.
        connection: to the store.
        monitor: writes how busy the machine is to the parent run, while cells are trained.
        sent: how many finished cells were written.

    Raises:
        UsageError: if the store does not answer.
    """

    def __init__(self, uri: str, design: Design, study_id: str, artifacts: Path) -> None:
        self.uri, self._design = uri, design
        self.sent = 0
        self.monitor: SystemMetricsMonitor | None = None
        self._is_training = False
        self._fingerprint = ""
        self._commit: str | None = None
        self._pending: dict[str, PendingUpdate] = {}
        self._finished: set[str] = set()
        try:
            self.experiment = open_experiment(uri, design.study, artifacts)
            self.runs = RunIndex(self.experiment, design.study, study_id)
        except UsageError:
            raise
        except Exception as error:  # of MLflow, its database, its driver, or the network
            raise UsageError(
                "tracking.uri", hide_passwords(uri), f"MLflow does not answer: {reason_of(error, uri)}"
            ) from None
        self.connection = Connection(
            probe=lambda: self.experiment.client.search_experiments(max_results=1),
            reconnect=self._reconnect,
            send_pending=self._send_pending,
            explain=lambda error: reason_of(error, uri),
        )

    @property
    def lost(self) -> str | None:
        """Why the mirror is incomplete: the store does not answer; None while all is well."""
        return self.connection.lost

    @property
    def complete(self) -> bool:
        """Whether the parent run was closed as finished, and not opened since."""
        if self.connection.state is not State.CONNECTED:
            return False
        try:
            return str(self.experiment.client.get_run(self.runs.parent_id).info.status) == FINISHED
        except Exception as error:
            self.connection.lose(error)
            return False

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the parent run, and starts watching the machine while cells are trained."""
        self._is_training, self._fingerprint, self._commit = True, fingerprint, commit
        self.connection.attempt(self._open_parent)

    def start_cell(self, cell: Cell, commit: str | None) -> None:
        """Opens the child run of a cell that is about to be trained."""
        self._pending[cell.key] = PendingUpdate(cell, commit)
        self._send(cell.key)

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Notes an epoch; writes what was noted once it has waited long enough."""
        update = self._update_of(cell)
        update.metrics += content.epoch_metrics(vars(epoch))
        if time.monotonic() - update.written > LIVE_SECONDS:
            self._send(cell.key)

    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes the child run of a finished cell."""
        self._update_of(cell, outcome["environment"].get("commit")).outcome = outcome
        self._send(cell.key)

    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Closes the child run of a cell that could not be trained."""
        self._update_of(cell).failure = hide_passwords(reason)
        self._send(cell.key)

    def release_cell(self, cell: Cell) -> None:
        """Closes the child run of a cell that was interrupted; it is taken up again."""
        self._update_of(cell).released = True
        self._send(cell.key)

    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Sends the outcomes of those cells that are not finished here yet."""
        self._fingerprint = fingerprint
        self.connection.attempt(self._find_finished, {cell.key for cell, _ in finished})
        missed = [(cell, outcome) for cell, outcome in finished if cell.key not in self._finished]
        for cell, outcome in missed:
            self._pending[cell.key] = PendingUpdate(cell, outcome["environment"].get("commit"), outcome)
        if missed:
            self.connection.attempt(self._send_all)

    def end(self, status: str, folder: Path | None = None, note: str = "") -> None:
        """Closes the parent run with the report as its description and the study's files as its artifacts.

        What a lost server missed is sent, if it answers by now; a run that was interrupted does not wait for that.
        """
        self._is_training = False
        self.connection.close(retry=status != KILLED)
        self.connection.attempt(self._close_parent, status, folder, note)

    def command(self) -> str:
        """Returns the command, or the address, that opens the dashboard."""
        return self.experiment.dashboard(f"viewStateShareKey={VIEW}")

    def _update_of(self, cell: Cell, commit: str | None = None) -> PendingUpdate:
        return self._pending.setdefault(cell.key, PendingUpdate(cell, commit))

    def _send(self, key: str) -> None:
        self.connection.attempt(self._write, key)

    # What follows asks the store, and raises its errors; the connection calls it.

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
        if self.monitor is not None:  # of before an outage; it may still wait for an answer
            threading.Thread(target=self.monitor.finish, daemon=True, name="mlflow-monitor").start()
        self.monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
        self.monitor.start()

    def _describe_parent(self) -> None:
        client, run_id = self.experiment.client, self.runs.parent_id
        content.describe_study(client, run_id, self._design, self._fingerprint, self._commit)

    def _close_parent(self, status: str, folder: Path | None, note: str) -> None:
        if self.monitor is not None:
            self.monitor.finish()
            self.monitor = None
        self.connection.catch_up()
        if self.connection.was_lost:
            self.runs.read()  # a request whose answer was lost may have been carried out since
            self.runs.finish(self._finished)
        self.runs.remember_finished(self._finished)
        client, run_id = self.experiment.client, self.runs.parent_id
        if note:
            client.set_tag(run_id, "mlflow.note.content", note)
        if folder is not None:
            content.log_files(client, run_id, folder, leave_out=_NO_ARTIFACTS)
        client.set_terminated(run_id, status)

    def _find_finished(self, keys: set[str]) -> None:
        self._finished = self.runs.finished_among(keys)

    def _send_all(self) -> None:
        self._describe_parent()
        self._send_pending(None)

    def _send_pending(self, seconds: float | None) -> bool:
        """Sends the pending updates, for so many seconds at most; returns whether all were sent."""
        begun = time.monotonic()
        for key in list(self._pending):
            try:
                self._write(key)
            except Exception:
                self._pending[key] = self._pending.pop(key)  # one that is refused for itself does not hold up others
                raise
            if seconds is not None and time.monotonic() - begun > seconds:
                return False
        return True

    def _write(self, key: str) -> None:
        """Brings a cell's run up to what is known of the cell; what was written before does no harm twice."""
        if key not in self._pending:  # it was sent with what a server had missed
            return
        client, update = self.experiment.client, self._pending[key]
        cell = update.cell
        if not update.cleared:
            self.runs.discard_cut_off(cell)
            update.cleared = True
        run_id = self.runs.child(cell)
        if not update.described:
            if not update.ended:
                client.update_run(run_id, status=RUNNING)
            content.describe_cell(client, run_id, cell, update.commit, self._design, self._fingerprint)
            update.described = True
        if update.outcome is not None:
            content.complete_cell(client, run_id, update.outcome)
            self._finished.add(key)
            self.sent += 1
        elif update.failure is not None:
            client.set_tag(run_id, "failure", update.failure[:LONGEST_TAG])
            client.set_terminated(run_id, FAILED)
        elif update.released:
            client.set_terminated(run_id, KILLED)
        elif update.metrics:
            client.log_batch(run_id, metrics=update.metrics)
            update.metrics, update.written = [], time.monotonic()
        if update.ended:
            del self._pending[key]
