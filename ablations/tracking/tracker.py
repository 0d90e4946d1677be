"""MLflow as a mirror of the study, for people to browse; never its memory.

One experiment a study; in it a parent run for the study and a child run for each cell, found again by their tags. What
is written twice is written the same, so a mirror that was cut off is completed by writing it again from the store.

A server that goes away does not stop the study, nor does one that accepts and never answers slow it: what it is to be
told is kept, and a thread of its own asks from time to time whether it answers again. Then the runs are looked up anew,
because a request may have been carried out although no answer came, and what was kept is sent. What a run could not
send by its end is sent by the next one, or by `analyze sync=true`.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import re
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A request that MLflow repeats by itself may be carried out twice, and make a run twice; here it is repeated otherwise.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a cell, with what a URL may hide

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ablations.common.errors import UsageError
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.common.settings import flatten
from ablations.common.urls import hide_passwords
from ablations.common.wording import first_line
from ablations.design import Cell, Design
from ablations.storage.database import connect_arguments, engine_url, sqlite_meaning

if TYPE_CHECKING:
    from ablations.training.events import Epoch

# Importing it sets INFO, a line for every table it makes; what its errors say is raised, and the tracker's to speak of.
logging.getLogger("mlflow").setLevel(logging.CRITICAL)
logging.getLogger("alembic").setLevel(logging.ERROR)
logging.getLogger("urllib3").setLevel(logging.ERROR)

_PARENT = ""  # stands for the key of a cell where the run is that of the study
_MIRRORED = "mirrored"  # a tag of the study's run: which cells are finished here
_LIVE_SECONDS = 30.0  # epochs are written in batches, at most this far apart; short cells in one
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between two questions whether a lost server answers again
_CATCH_UP_SECONDS = 2.0  # for which a training study sends at a time what a server missed
_VIEW = "variants"
# What the dashboard's "Share" button would write: replicates grouped by variant, so that charts show a mean and a band
# for each. The link that `Tracker.command` gives opens it.
_VIEW_STATE = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "variant"}]},
}
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # otherwise the dashboard opens a page for language models
    f"mlflow.sharedViewState.{_VIEW}": json.dumps(_VIEW_STATE),
}
FINISHED, RUNNING, KILLED, FAILED = "FINISHED", "RUNNING", "KILLED", "FAILED"

_P = ParamSpec("_P")


def _tolerant(method: Callable[Concatenate[Tracker, _P], None]) -> Callable[Concatenate[Tracker, _P], None]:
    """Makes a method of the tracker do nothing while the store does not answer."""

    @wraps(method)
    def guarded(self: Tracker, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            if self.lost is not None:
                if not self._answers.is_set():
                    return
                self._come_back()
            if self._behind:
                self._catch_up(_CATCH_UP_SECONDS)
            method(self, *args, **kwargs)
        except Exception as error:  # whatever ails the mirror is no failure of the study
            self._lose(error)

    return cast("Callable[Concatenate[Tracker, _P], None]", guarded)


@dataclass
class _Told:
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
    pending: list[Metric] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        return self.outcome is not None or self.failure is not None or self.released


class Tracker:
    """Mirrors one study to an MLflow store.

    Args:
        uri: MLflow tracking URI.
        design: the study.
        study_id: tells it from other people's studies of its name on the same server.
        artifacts: folder of the artifacts where the store is a database of our own; a server has a place of its own.

    Attributes:
        lost: why the mirror is incomplete: the store does not answer; None while all is well.
        sent: how many finished cells were written.

    Raises:
        UsageError: if the store does not answer.
    """

    def __init__(self, uri: str, design: Design, study_id: str, artifacts: Path) -> None:
        self.uri, self._design, self._study_id = uri, design, study_id
        self.lost: str | None = None
        self.sent = 0
        self._fingerprint = ""
        self._begun = False
        self._commit: str | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._told: dict[str, _Told] = {}
        self._finished: set[str] = set()
        self._was_lost = self._behind = False
        self._answers, self._over = threading.Event(), threading.Event()
        self._pause, self._back = _FIRST_PAUSE, time.monotonic()
        self.parent_id = self._mirrored = ""
        self._known: dict[str, _Known] | None = None
        try:
            make_store(uri)
            self._reached = engine_url(uri)
            self._client = MlflowClient(self._reached)
            self.experiment_id = experiment_id(self._client, design.study, uri, artifacts)
            self._look_up_parent()
        except UsageError:
            raise
        except Exception as error:  # of MLflow, its database, its driver, or the network
            raise UsageError(
                "tracking.uri", hide_passwords(uri), f"MLflow does not answer: {reason_of(error, uri)}"
            ) from None

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the parent run, and starts watching the machine while cells are trained.

        Args:
            fingerprint: of the data set.
            commit: of the code.
        """
        self._begun, self._fingerprint, self._commit = True, fingerprint, commit
        self._open_parent()

    def start_cell(self, cell: Cell, commit: str | None) -> None:
        """Opens the child run of a cell that is about to be trained."""
        self._told[cell.key] = _Told(cell, commit)
        self._send(cell.key)

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Notes an epoch; writes what was noted once it has waited long enough."""
        told = self._of(cell)
        told.pending += _epoch_metrics(vars(epoch))
        if time.monotonic() - told.written > _LIVE_SECONDS:
            self._send(cell.key)

    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes the child run of a finished cell."""
        self._of(cell, outcome["environment"].get("commit")).outcome = outcome
        self._send(cell.key)

    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Closes the child run of a cell that could not be trained."""
        self._of(cell).failure = hide_passwords(reason)
        self._send(cell.key)

    def release_cell(self, cell: Cell) -> None:
        """Closes the child run of a cell that was interrupted; it is taken up again."""
        self._of(cell).released = True
        self._send(cell.key)

    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Completes the mirror of cells that are finished in the store and were not mirrored, or not wholly.

        Args:
            finished: the cells with their outcomes.
            fingerprint: of the data set that they were trained on.
        """
        self._fingerprint = fingerprint
        self._find_mirrored({cell.key for cell, _ in finished})
        missed = [(cell, outcome) for cell, outcome in finished if cell.key not in self._finished]
        for cell, outcome in missed:
            self._told[cell.key] = _Told(cell, outcome["environment"].get("commit"), outcome)
        if missed:
            self._send_all()

    @_tolerant
    def _find_mirrored(self, finished: set[str]) -> None:
        """Finds out which of the cells that are finished in the store are finished here."""
        if self._mirrored == _digest(finished):
            # Whatever else is here was not finished: looking through thousands of runs for it is left out.
            unfinished = self._index(f"attributes.status != '{FINISHED}'")
            self._finished = finished
            if not finished.intersection(unfinished):
                self._known = {key: runs[0] for key, runs in unfinished.items() if key != _PARENT}
                return
        self._finished = {key for key, run in self._runs.items() if run.status == FINISHED and key in finished}

    def end(self, status: str, folder: Path | None = None, note: str = "") -> None:
        """Closes the parent run with the report as its description and the study's files as its artifacts.

        What a lost server missed is sent, if it answers by now; a run that was interrupted does not wait for that.
        """
        self._over.set()
        if self.lost is not None and status != KILLED:
            self._answers.set()
        self._close(status, folder, note)

    @property
    def complete(self) -> bool:
        """Whether the parent run was closed as finished, and not opened since."""
        if self.lost is not None or self._behind:
            return False
        try:
            return str(self._client.get_run(self.parent_id).info.status) == FINISHED
        except Exception as error:
            self._lose(error)
            return False

    def command(self) -> str:
        """Returns the command, or the address, that opens the dashboard."""
        return dashboard(self.uri, self.experiment_id, f"viewStateShareKey={_VIEW}")

    def _of(self, cell: Cell, commit: str | None = None) -> _Told:
        return self._told.setdefault(cell.key, _Told(cell, commit))

    @_tolerant
    def _open_parent(self) -> None:
        self._open()

    def _open(self) -> None:
        self._client.update_run(self.parent_id, status=RUNNING)
        self._describe_parent(self._fingerprint)
        if self._commit:
            self._client.set_tag(self.parent_id, "mlflow.source.git.commit", self._commit)
        self._monitor = SystemMetricsMonitor(self.parent_id, resume_logging=True, tracking_uri=self._reached)
        self._monitor.start()

    @_tolerant
    def _send(self, key: str) -> None:
        if key in self._told:  # not sent with what a server had missed
            self._write(self._told[key])

    @_tolerant
    def _send_all(self) -> None:
        self._describe_parent(self._fingerprint)
        self._behind = True
        self._catch_up()

    @_tolerant
    def _close(self, status: str, folder: Path | None, note: str) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        if self._behind:
            self._catch_up()
        if self._was_lost:
            self._look_up()  # a request whose answer was lost may have been carried out since
            for key in self._finished:
                if key in self._runs and self._runs[key].status != FINISHED:
                    self._client.set_terminated(self._runs[key].run_id, FINISHED)
        if not self._behind:
            self._remember_mirrored()
        if note:
            self._client.set_tag(self.parent_id, "mlflow.note.content", note)
        # Weights and checkpoints stay where they are: copies of large networks would fill the disk.
        heavy = {folder / "weights", folder / "checkpoints"} if folder else set()
        for path in sorted(folder.rglob("*")) if folder else []:
            if path.is_file() and not path.name.startswith(".") and not heavy.intersection(path.parents):
                inside = path.parent.relative_to(folder).as_posix() if folder else ""
                self._client.log_artifact(self.parent_id, str(path), None if inside == "." else inside)
        self._client.set_terminated(self.parent_id, status)

    def _lose(self, error: Exception) -> None:
        """Notes that the store does not answer, and has a thread ask when it does again."""
        self.lost = reason_of(error, self.uri)
        self._was_lost = self._behind = True
        if self._monitor is not None:
            self._monitor._shutdown_event.set()  # without waiting for what it may be waiting for itself
            self._monitor = None
        # A server that comes and goes is asked less and less.
        soon = time.monotonic() - self._back < _LONGEST_PAUSE
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if soon else _FIRST_PAUSE
        self._answers.clear()
        if not self._over.is_set():
            threading.Thread(target=self._ask, args=(self._pause,), daemon=True, name="mlflow-answers").start()

    def _ask(self, pause: float) -> None:
        while not self._over.wait(pause):
            try:
                self._client.search_experiments(max_results=1)
            except Exception:
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._answers.set()
                return

    def _come_back(self) -> None:
        """Finds out what a store knows that answers again; it is told the rest by `_catch_up`."""
        self._look_up()
        if self._begun and not self._over.is_set():
            self._open()
        elif self._fingerprint:
            self._describe_parent(self._fingerprint)
        self.lost, self._back = None, time.monotonic()

    def _catch_up(self, seconds: float | None = None) -> None:
        """Writes what the store has missed, for so many seconds at most."""
        begun = time.monotonic()
        for key, told in list(self._told.items()):
            try:
                self._write(told)
            except Exception:
                self._told[key] = self._told.pop(key)  # one that is refused for itself does not hold up the others
                raise
            if seconds is not None and time.monotonic() - begun > seconds:
                return
        self._behind = False

    def _write(self, told: _Told) -> None:
        """Brings a cell's run up to what is known of the cell; what was written before does no harm twice."""
        cell = told.cell
        if not told.cleared:
            self._discard_cut_off(cell)
            told.cleared = True
        run_id = self._child(cell)
        if not told.described:
            if not told.ended:
                self._client.update_run(run_id, status=RUNNING)
            self._describe(cell, told.commit)
            told.described = True
        if told.outcome is not None:
            self._complete(run_id, told.outcome)
            self._finished.add(cell.key)
            self.sent += 1
        elif told.failure is not None:
            self._client.set_tag(run_id, "failure", told.failure[:5000])
            self._client.set_terminated(run_id, FAILED)
        elif told.released:
            self._client.set_terminated(run_id, KILLED)
        elif told.pending:
            self._client.log_batch(run_id, metrics=told.pending)
            told.pending, told.written = [], time.monotonic()
        if told.ended:
            self._told.pop(cell.key, None)

    def _describe(self, cell: Cell, commit: str | None) -> None:
        run_id = self._child(cell)
        tags = [RunTag("mlflow.source.git.commit", commit)] if commit else []
        params = {"variant": cell.variant.name, "replicate": cell.replicate, "key": cell.key}
        described = {
            "network": cell.variant.network,
            "clamped": cell.variant.clamped,
            "protocol": self._design.protocol,
        }
        params |= flatten(described)
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()], tags=tags)
        self._log_data(run_id, self._fingerprint)

    def _look_up(self) -> None:
        """Finds the study's runs: one for each cell, and the parent, which is made where there is none.

        Where a request to make a run was carried out and never answered, there may be two of one cell; one stays.
        """
        found = self._index()
        parents = Counter(run.parent for runs in found.values() for run in runs)

        def worth(run: _Known) -> tuple[Any, ...]:
            return run.run_id == self.parent_id, parents[run.run_id], run.status == FINISHED, run.metrics, -run.started

        kept: dict[str, _Known] = {}
        for key, runs in found.items():
            kept[key], *others = sorted(runs, key=worth, reverse=True)
            for other in others:
                self._client.delete_run(other.run_id)
        self._take_parent(kept.pop(_PARENT, None))
        for run in kept.values():
            if run.parent != self.parent_id:
                self._client.set_tag(run.run_id, "mlflow.parentRunId", self.parent_id)
        self._known = kept

    def _look_up_parent(self) -> None:
        """Finds the study's run by its name; all runs are looked up where there is none, or several."""
        named = self._index(f"attributes.run_name = '{self._design.study}'").get(_PARENT, [])
        if len(named) == 1:
            self._take_parent(named[0])
        else:
            self._look_up()

    def _take_parent(self, parent: _Known | None) -> None:
        self.parent_id = parent.run_id if parent else self._make_parent()
        self._mirrored = parent.mirrored if parent else ""

    @property
    def _runs(self) -> dict[str, _Known]:
        """The run of each cell by its key; looked for when it is first needed, which takes a while where many are."""
        if self._known is None:
            self._look_up()
        assert self._known is not None
        return self._known

    def _index(self, condition: str = "") -> dict[str, list[_Known]]:
        """Returns the runs of each cell by its key, and those of the study under `_PARENT`.

        Args:
            condition: of the runs that are looked at, in MLflow's language of filters.
        """
        found: dict[str, list[_Known]] = {}
        token: str | None = None
        while True:
            # A page is some 70,000 objects in SQLAlchemy's and MLflow's hands, none of which is garbage until all are:
            # looking for garbage meanwhile takes two thirds of the time.
            with _without_collecting_garbage():
                page = self._client.search_runs([self.experiment_id], condition, max_results=1000, page_token=token)
                for run in page:
                    if run.data.tags.get("study_id") == self._study_id:
                        found.setdefault(run.data.tags.get("cell", _PARENT), []).append(_Known.of(run))
                token = page.token
                del page
            if not token:
                return found

    def _remember_mirrored(self) -> None:
        """Notes which cells are finished here, so that the next run need not ask for every one of them."""
        digest = _digest(self._finished)
        if digest != self._mirrored:
            self._client.set_tag(self.parent_id, _MIRRORED, digest)
            self._mirrored = digest

    def _make_parent(self) -> str:
        tags = {"study_id": self._study_id, "mlflow.source.name": "ablations.run", "mlflow.runColor": "#444444"}
        run: Run = self._client.create_run(self.experiment_id, run_name=self._design.study, tags=tags)
        return str(run.info.run_id)

    def _describe_parent(self, fingerprint: str) -> None:
        # What may change between runs of a study are tags: MLflow refuses another value of a parameter.
        params = [Param(name, str(value)) for name, value in flatten(self._design.protocol).items()]
        asked = {"sweep": self._design.sweep, "question": self._design.question, "baseline": self._design.baseline}
        tags = [RunTag(name, value) for name, value in asked.items()]
        self._client.log_batch(self.parent_id, params=params, tags=tags)
        self._log_data(self.parent_id, fingerprint)

    def _discard_cut_off(self, cell: Cell) -> None:
        """Discards the run of an attempt that was cut off, if it cannot be gone on with.

        That is when it had written epochs, because curves must not mix, or stood under another name of the variant.
        """
        earlier = self._runs.get(cell.key)
        if earlier is None or earlier.status == FINISHED:
            return
        if earlier.metrics or earlier.variant not in (None, cell.variant.name):
            self._client.delete_run(earlier.run_id)
            del self._runs[cell.key]

    def _child(self, cell: Cell) -> str:
        if cell.key not in self._runs:
            tags = {
                "study_id": self._study_id,
                "cell": cell.key,
                "mlflow.parentRunId": self.parent_id,
                "mlflow.source.name": "ablations.run",
            }
            made = self._client.create_run(self.experiment_id, run_name=cell.name, tags=tags)
            self._runs[cell.key] = _Known(str(made.info.run_id), RUNNING, parent=self.parent_id)
        return self._runs[cell.key].run_id

    def _complete(self, run_id: str, outcome: Mapping[str, Any]) -> None:
        # All epochs, those that were written live included: the same numbers at the same times change nothing.
        result = outcome["result"]
        epochs = [metric for epoch in result["epochs"] for metric in _epoch_metrics(epoch)]
        stamp = int(result["epochs"][-1]["finished"] * 1000)
        # At step 0, which the dashboard draws as bars.
        once = [
            Metric(key, float(result[key]), stamp, 0)
            for key in CELL_METRICS
            # A pruned cell has its epochs alone; what was not measured is None.
            if result.get(key) is not None and key not in EPOCH_METRICS
        ]
        by = result.get("attention_by")
        self._client.log_batch(run_id, metrics=epochs + once, tags=[RunTag("attention_by", by)] if by else [])
        if "pruned" in outcome:
            self._client.set_tag(run_id, "pruned", outcome["pruned"])
        if "failure" in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, "failure")  # of an earlier attempt
        self._client.set_terminated(run_id, FINISHED)

    def _log_data(self, run_id: str, fingerprint: str) -> None:
        data = self._design.protocol["data"]
        source = json.dumps({key: value for key, value in data.items() if key != "name"})
        data_set = Dataset(data["name"], fingerprint, "options", source)
        self._client.log_inputs(run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])


@dataclass(frozen=True)
class _Known:
    """What is to be known of a run; whole runs of thousands of cells would fill the memory.

    `parent` is the run that it is a child of, `mirrored`, of the study's run, a digest of the keys of the cells that
    are finished.
    """

    run_id: str
    status: str
    metrics: int = 0
    variant: str | None = None
    parent: str = ""
    started: int = 0
    mirrored: str = ""

    @classmethod
    def of(cls, run: Run) -> _Known:
        info, tags = run.info, run.data.tags
        return cls(
            str(info.run_id),
            info.status,
            len(run.data.metrics),
            run.data.params.get("variant"),
            tags.get("mlflow.parentRunId", ""),
            info.start_time or 0,
            tags.get(_MIRRORED, ""),
        )


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(sorted(keys)).encode()).hexdigest()


@contextmanager
def _without_collecting_garbage() -> Iterator[None]:
    """Lets no garbage be looked for, if it was before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def dashboard(uri: str, experiment: str, query: str) -> str:
    """Returns the command and the address, or of a server the address, that open an experiment's runs as charts."""
    place = f"/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART&{query}"
    shown = hide_passwords(uri)
    if shown.startswith(("http://", "https://")):
        return shown.rstrip("/") + place
    command = shlex.join([_python(), "-m", "mlflow", "ui", "--backend-store-uri", shown])
    return f"{command}\nThen open:  http://127.0.0.1:5000{place}"


def experiment_id(client: MlflowClient, name: str, uri: str, artifacts: Path) -> str:
    """Returns the experiment of a name, which is made where there is none.

    Args:
        client: of the store.
        name: of the experiment.
        uri: of the store.
        artifacts: folder of the artifacts where the store is a database of our own; a server has a place of its own.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        local = None if uri.startswith(("http://", "https://")) else artifacts.resolve().as_uri()
        return str(client.create_experiment(name, artifact_location=local, tags=_EXPERIMENT_TAGS))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def make_store(uri: str) -> None:
    """Makes a SQLite store whole or not at all: MLflow cannot go on with tables that a killed process had half made."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///"):
        _check_database(uri)
        return
    if path.exists():
        return
    if not path.parent.is_dir():
        raise UsageError("tracking.uri", uri, f"there is no folder {path.parent}")
    with FileLock(path.with_name(f"{path.name}.lock")):
        unfinished = path.with_name(f"{path.name}.unfinished")
        for stale in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
            stale.unlink(missing_ok=True)
        if not path.exists():
            MlflowClient(f"sqlite:///{unfinished}").search_experiments(max_results=1)
            unfinished.replace(path)


def _check_database(uri: str) -> None:
    """Asks a database for a sign of life: MLflow would try for minutes before it says that there is none."""
    if uri.startswith(("postgresql", "mysql", "mssql")):
        engine = create_engine(engine_url(uri), poolclass=NullPool, connect_args=connect_arguments(engine_url(uri)))
        engine.connect().close()


def _epoch_metrics(epoch: Mapping[str, Any]) -> list[Metric]:
    # The time stamp is the epoch's own: writing an epoch again adds nothing.
    stamp = int(epoch["finished"] * 1000)
    return [Metric(key, float(epoch[key]), stamp, epoch["epoch"] + 1) for key in EPOCH_METRICS]


def reason_of(error: Exception, uri: str = "") -> str:
    """Returns what an error of MLflow or its database says, in a line without the secrets of the store's address."""
    line = first_line(error, skipping="(raised as a result of ")  # SQLAlchemy says this of itself
    if (meaning := sqlite_meaning(re.sub(r"^\(sqlite3\.\w+\) ", "", line))) is not None:
        line = f"its database {meaning}" if meaning.startswith(("is ", "cannot ")) else meaning
    return hide_passwords(line, uri)[:300]


def _python() -> str:
    executable = Path(sys.executable)
    return str(executable.relative_to(Path.cwd())) if executable.is_relative_to(Path.cwd()) else str(executable)
