"""The runs of a study in MLflow: the parent run of the study, and a child run for each cell.

They are found by their tags. If the response to a request that created a run was lost, a cell may have two runs, of
which one is kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlflow.entities import Run

from ablations.common.process import without_collecting_garbage
from ablations.design import Cell
from ablations.tracking.experiment import FINISHED, RUNNING, Experiment

_PARENT = ""  # in place of a cell's key for the run of the study
_MIRRORED = "mirrored"  # tag of the parent run: a digest of the finished cells' keys
_PAGE = 1000  # runs


@dataclass(frozen=True)
class RunSummary:
    """The needed fields of a run; complete runs of thousands of cells would fill the memory."""

    run_id: str
    status: str
    metrics: int = 0  # their number
    variant: str | None = None
    parent: str = ""  # id of the parent run
    started: int = 0
    mirrored: str = ""  # the parent run's tag

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        """Summarises a run."""
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


class RunIndex:
    """The runs of one study; runs of cells are read on first use, because reading many takes a while.

    `study_id` distinguishes studies of the same name. The run `parent_id` is created if missing.
    """

    def __init__(self, experiment: Experiment, study: str, study_id: str) -> None:
        self._experiment, self._study, self._study_id = experiment, study, study_id
        self.parent_id = self._mirrored = ""
        named = self._search(f"attributes.run_name = '{study}'").get(_PARENT, [])
        if len(named) == 1:
            self._take_parent(named[0])
        else:
            self.read()

    def read(self) -> None:
        """Reads all runs of the study, deletes duplicates, and moves every child to the one parent."""
        self._runs = self._read()

    def child(self, cell: Cell) -> str:
        """Returns the id of a cell's run, creating it if missing."""
        if cell.key not in self._runs:
            run_id = self._create(cell.name, {"cell": cell.key, "mlflow.parentRunId": self.parent_id})
            self._runs[cell.key] = RunSummary(run_id, RUNNING, parent=self.parent_id)
        return self._runs[cell.key].run_id

    def ids_of(self, keys: Collection[str]) -> dict[str, str]:
        """Returns the run ids of cells by key; cells without a run are left out."""
        if not self._runs.keys() >= set(keys):
            self.read()  # including runs of finished cells, which are read only if needed
        return {key: self._runs[key].run_id for key in keys if key in self._runs}

    def discard_cut_off(self, cell: Cell) -> None:
        """Deletes the run of an interrupted attempt that cannot be resumed.

        It cannot if it has epochs, because curves must not mix, or if the variant had another name.
        """
        run = self._runs.get(cell.key)
        if run and run.status != FINISHED and (run.metrics or run.variant not in (None, cell.variant.name)):
            self._experiment.client.delete_run(run.run_id)
            del self._runs[cell.key]

    def finished_among(self, keys: set[str]) -> set[str]:
        """Returns which of the cells with these keys have a finished run."""
        if self._mirrored == _digest(keys):
            # Whatever else is here was not finished: looking through thousands of runs for it is left out.
            unfinished = self._search(f"attributes.status != '{FINISHED}'")
            if not keys.intersection(unfinished):
                self._runs = {key: runs[0] for key, runs in unfinished.items() if key != _PARENT}
                return keys
        return {key for key, run in self._runs.items() if run.status == FINISHED and key in keys}

    def finish(self, keys: Iterable[str]) -> None:
        """Closes as finished those of the cells with these keys whose runs are open."""
        for key in keys:
            if key in self._runs and self._runs[key].status != FINISHED:
                self._experiment.client.set_terminated(self._runs[key].run_id, FINISHED)

    def remember_finished(self, keys: Iterable[str]) -> None:
        """Notes which cells are finished here, so that `finished_among` need not read every run next time."""
        digest = _digest(keys)
        if digest != self._mirrored:
            self._experiment.client.set_tag(self.parent_id, _MIRRORED, digest)
            self._mirrored = digest

    @cached_property
    def _runs(self) -> dict[str, RunSummary]:
        """The run of each cell by key."""
        return self._read()

    def _read(self) -> dict[str, RunSummary]:
        found = self._search()
        children = Counter(run.parent for runs in found.values() for run in runs)

        def worth(run: RunSummary) -> tuple[Any, ...]:
            return run.run_id == self.parent_id, children[run.run_id], run.status == FINISHED, run.metrics, -run.started

        kept: dict[str, RunSummary] = {}
        for key, runs in found.items():
            kept[key], *duplicates = sorted(runs, key=worth, reverse=True)
            for duplicate in duplicates:
                self._experiment.client.delete_run(duplicate.run_id)
        self._take_parent(kept.pop(_PARENT, None))
        for run in kept.values():
            if run.parent != self.parent_id:
                self._experiment.client.set_tag(run.run_id, "mlflow.parentRunId", self.parent_id)
        return kept

    def _take_parent(self, parent: RunSummary | None) -> None:
        self.parent_id = parent.run_id if parent else self._create(self._study, {"mlflow.runColor": "#444444"})
        self._mirrored = parent.mirrored if parent else ""

    def _create(self, name: str, tags: dict[str, str]) -> str:
        common = {"study_id": self._study_id, "mlflow.source.name": "ablations.run"}
        return self._experiment.create_run(name, common | tags)

    def _search(self, condition: str = "") -> dict[str, list[RunSummary]]:
        """Returns the study's runs that meet a filter of MLflow, by cell key or `_PARENT`."""
        found: dict[str, list[RunSummary]] = {}
        token: str | None = None
        client, experiments = self._experiment.client, [self._experiment.id]
        # The experiment may have other studies.
        conditions = " and ".join(filter(None, [f"tags.study_id = '{self._study_id}'", condition]))
        while True:
            # A page has some 70,000 live objects of SQLAlchemy and MLflow, so that garbage collection would take two
            # thirds of the time.
            with without_collecting_garbage():
                page = client.search_runs(experiments, conditions, max_results=_PAGE, page_token=token)
                for run in page:
                    found.setdefault(run.data.tags.get("cell", _PARENT), []).append(RunSummary.of(run))
                token = page.token
                del page
            if not token:
                return found


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(sorted(keys)).encode()).hexdigest()
