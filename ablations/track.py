"""MLflow as a mirror of the study, for people to browse; never its memory.

One experiment a study; in it a parent run for the study and a child run for each cell, found again by their tags. What
is written twice is written the same, so a mirror that was cut off is completed by writing it again from the store. A
server that goes away while cells are trained does not stop them: the next run writes what it missed.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from ablations.design import Cell, Design
from ablations.errors import UsageError
from ablations.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.urls import hide_passwords
from ablations.variants import flatten

if TYPE_CHECKING:
    from ablations.train import Epoch

logging.getLogger("mlflow").setLevel(logging.ERROR)  # importing it sets INFO: a line for every table it makes
logging.getLogger("alembic").setLevel(logging.ERROR)

_PARENT = ""  # stands for the key of a cell where the run is that of the study
_MIRRORED = "mirrored"  # a tag of the study's run: which cells are finished here
_LIVE_SECONDS = 30.0  # epochs are written in batches, at most this far apart; short cells in one
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
    """Makes a method of the tracker do nothing once the store has stopped answering."""

    @wraps(method)
    def guarded(self: Tracker, *args: _P.args, **kwargs: _P.kwargs) -> None:
        if self.lost is None:
            try:
                method(self, *args, **kwargs)
            except Exception as error:  # whatever ails the mirror is no failure of the study
                self.lost = reason_of(error)

    return cast("Callable[Concatenate[Tracker, _P], None]", guarded)


class Tracker:
    """Mirrors one study to an MLflow store.

    Args:
        uri: MLflow tracking URI.
        design: the study.
        study_id: tells it from other people's studies of its name on the same server.
        artifacts: folder of the artifacts where the store is a database of our own; a server has a place of its own.

    Attributes:
        lost: why the mirror is incomplete: the store stopped answering; None while all is well.

    Raises:
        UsageError: if the store does not answer.
    """

    def __init__(self, uri: str, design: Design, study_id: str, artifacts: Path) -> None:
        self.uri, self._design, self._study_id = uri, design, study_id
        self.lost: str | None = None
        self._fingerprint = ""
        self._monitor: SystemMetricsMonitor | None = None
        self._pending: list[Metric] = []
        self._written = time.monotonic()
        try:
            make_store(uri)
            self._client = MlflowClient(uri)
            self.experiment_id = experiment_id(self._client, design.study, uri, artifacts)
            self._known: dict[str, _Known] | None = None
            parent = self._find_parent()
            self._mirrored = parent.mirrored if parent else ""
            self.parent_id = parent.run_id if parent else self._make_parent()
            self._finished: set[str] = set()
        except UsageError:
            raise
        except Exception as error:  # of MLflow, its database, its driver, or the network
            raise UsageError(
                "tracking.uri", hide_passwords(uri), f"MLflow does not answer: {reason_of(error)}"
            ) from None

    @_tolerant
    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the parent run, and starts watching the machine while cells are trained.

        Args:
            fingerprint: of the data set.
            commit: of the code.
        """
        self._client.update_run(self.parent_id, status=RUNNING)
        self._describe_parent(fingerprint)
        if commit:
            self._client.set_tag(self.parent_id, "mlflow.source.git.commit", commit)
        self._monitor = SystemMetricsMonitor(self.parent_id, resume_logging=True, tracking_uri=self.uri)
        self._monitor.start()

    @_tolerant
    def start_cell(self, cell: Cell, environment: Mapping[str, str]) -> None:
        """Opens the child run of a cell that is about to be trained."""
        self._discard_cut_off(cell)
        self._pending, self._written = [], time.monotonic()
        self._client.update_run(self._child(cell), status=RUNNING)
        self._describe(cell, environment)

    def _describe(self, cell: Cell, environment: Mapping[str, str]) -> None:
        run_id = self._child(cell)
        tags = [RunTag("mlflow.source.git.commit", environment["commit"])] if "commit" in environment else []
        params = {"variant": cell.variant.name, "replicate": cell.replicate, "key": cell.key}
        described = {
            "network": cell.variant.network,
            "clamped": cell.variant.clamped,
            "protocol": self._design.protocol,
        }
        params |= flatten(described)
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()], tags=tags)
        self._log_data(run_id, self._fingerprint)

    @_tolerant
    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Notes an epoch; writes what was noted once it has waited long enough."""
        self._pending += _epoch_metrics(vars(epoch))
        if time.monotonic() - self._written > _LIVE_SECONDS:
            self._flush(self._child(cell))

    @_tolerant
    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes the child run of a finished cell."""
        self._complete(self._child(cell), outcome)
        self._finished.add(cell.key)

    @_tolerant
    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Closes the child run of a cell that could not be trained."""
        run_id = self._child(cell)
        self._client.set_tag(run_id, "failure", reason[:5000])
        self._client.set_terminated(run_id, FAILED)

    @_tolerant
    def release_cell(self, cell: Cell) -> None:
        """Closes the child run of a cell that was interrupted; it is taken up again."""
        self._client.set_terminated(self._child(cell), KILLED)

    @_tolerant
    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Completes the mirror of cells that are finished in the store and were not mirrored, or not wholly.

        Args:
            finished: the cells with their outcomes.
            fingerprint: of the data set that they were trained on.
        """
        self._finished = {cell.key for cell, _ in finished}
        if self._mirrored == _digest(self._finished):
            # Whatever else is here was not finished: looking through thousands of runs for it is left out.
            self._known = self._index(f"attributes.status != '{FINISHED}'")
            return
        mirrored = {key for key, run in self._runs.items() if run.status == FINISHED}
        missed = [(cell, outcome) for cell, outcome in finished if cell.key not in mirrored]
        if missed:
            self._describe_parent(fingerprint)
        for cell, outcome in missed:
            self._discard_cut_off(cell)
            self._describe(cell, outcome["environment"])
            self._complete(self._child(cell), outcome)
        self._remember_mirrored()

    @_tolerant
    def end(self, status: str, folder: Path | None = None, note: str = "") -> None:
        """Closes the parent run with the report as its description and the study's files as its artifacts."""
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        self._remember_mirrored()
        if note:
            self._client.set_tag(self.parent_id, "mlflow.note.content", note)
        # Weights stay where they are: copies of large networks would fill the disk.
        weights = folder / "weights" if folder else None
        for path in sorted(folder.rglob("*")) if folder else []:
            if path.is_file() and not path.name.startswith(".") and weights not in path.parents:
                inside = path.parent.relative_to(folder).as_posix() if folder else ""
                self._client.log_artifact(self.parent_id, str(path), None if inside == "." else inside)
        self._client.set_terminated(self.parent_id, status)

    @property
    def complete(self) -> bool:
        """Whether the parent run was closed as finished, and not opened since."""
        return self.lost is not None or str(self._client.get_run(self.parent_id).info.status) == FINISHED

    def command(self) -> str:
        """Returns the command, or the address, that opens the dashboard."""
        return dashboard(self.uri, self.experiment_id, f"viewStateShareKey={_VIEW}")

    @property
    def _runs(self) -> dict[str, _Known]:
        """The run of each cell by its key; looked for when it is first needed, which takes a while where many are."""
        if self._known is None:
            self._known = self._index()
            self._known.pop(_PARENT, None)
        return self._known

    def _find_parent(self) -> _Known | None:
        """Finds the run of the study: by its name, or, if somebody gave it another one, among all runs."""
        found = self._index(f"attributes.run_name = '{self._design.study}'").get(_PARENT)
        if found is None:
            self._known = self._index()
            found = self._known.pop(_PARENT, None)
        return found

    def _index(self, condition: str = "") -> dict[str, _Known]:
        """Returns the run of each cell by its key, and that of the study under `_PARENT`.

        Args:
            condition: of the runs that are looked at, in MLflow's language of filters.
        """
        found: dict[str, _Known] = {}
        token: str | None = None
        while True:
            # A page is some 70,000 objects in SQLAlchemy's and MLflow's hands, none of which is garbage until all are:
            # looking for garbage meanwhile takes two thirds of the time.
            with _without_collecting_garbage():
                page = self._client.search_runs([self.experiment_id], condition, max_results=1000, page_token=token)
                for run in page:
                    if run.data.tags.get("study_id") == self._study_id:
                        found[run.data.tags.get("cell", _PARENT)] = _Known.of(run)
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
        if earlier.has_metrics or earlier.variant not in (None, cell.variant.name):
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
            self._runs[cell.key] = _Known(str(made.info.run_id), RUNNING)
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
        self._pending = []
        by = result.get("attention_by")
        self._client.log_batch(run_id, metrics=epochs + once, tags=[RunTag("attention_by", by)] if by else [])
        if "pruned" in outcome:
            self._client.set_tag(run_id, "pruned", outcome["pruned"])
        if "failure" in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, "failure")  # of an earlier attempt
        self._client.set_terminated(run_id, FINISHED)

    def _flush(self, run_id: str) -> None:
        self._client.log_batch(run_id, metrics=self._pending)
        self._pending, self._written = [], time.monotonic()

    def _log_data(self, run_id: str, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        data = self._design.protocol["data"]
        source = json.dumps({key: value for key, value in data.items() if key != "name"})
        data_set = Dataset(data["name"], fingerprint, "options", source)
        self._client.log_inputs(run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])


@dataclass(frozen=True)
class _Known:
    """What is to be known of a run; whole runs of thousands of cells would fill the memory.

    `mirrored` is of the study's run: a digest of the keys of the cells that are finished.
    """

    run_id: str
    status: str
    has_metrics: bool = False
    variant: str | None = None
    mirrored: str = ""

    @classmethod
    def of(cls, run: Run) -> _Known:
        tags, variant = run.data.tags, run.data.params.get("variant")
        return cls(str(run.info.run_id), run.info.status, bool(run.data.metrics), variant, tags.get(_MIRRORED, ""))


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
    if not uri.startswith("sqlite:///") or path.exists():
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


def _epoch_metrics(epoch: Mapping[str, Any]) -> list[Metric]:
    # The time stamp is the epoch's own: writing an epoch again adds nothing.
    stamp = int(epoch["finished"] * 1000)
    return [Metric(key, float(epoch[key]), stamp, epoch["epoch"] + 1) for key in EPOCH_METRICS]


def reason_of(error: Exception) -> str:
    """Returns what an error of MLflow or its database says, in a line without passwords."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return hide_passwords(lines[0])[:300]


def _python() -> str:
    executable = Path(sys.executable)
    return str(executable.relative_to(Path.cwd())) if executable.is_relative_to(Path.cwd()) else str(executable)
