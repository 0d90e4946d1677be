"""Cells that other studies have trained already, whose results a study uses instead of training them again.

The key of a cell is a hash of all options that affect its result, and the study's name is not one of them: cells with
the same key in two studies are the same training run. Whether the code has changed in between is not stored, so only
the results of studies that the user names (`reuse=`) are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.common.errors import UsageError
from ablations.common.settings import as_stored
from ablations.config import Config
from ablations.design import Cell, Design, protocol_differences
from ablations.execution.launchers.base import Launcher
from ablations.execution.schedules.base import Outlook
from ablations.reporting.text.declaration import copied_clause
from ablations.storage.access import study_names
from ablations.storage.cell_states import CellState
from ablations.storage.files import CellFiles
from ablations.storage.paths import results_folder, storage_url
from ablations.storage.study import StudyStore, find_study
from ablations.training.events import Epoch


@dataclass(frozen=True)
class TrainedCell:
    """A finished cell of another study: the study that trained it, its outcome, and the study folder with its files."""

    study: str
    outcome: Mapping[str, Any]
    folder: Path

    def file(self, kind: CellFiles, cell: Cell) -> bytes | None:
        """Returns the content of this cell's file of a kind; None if there is none that can be read."""
        try:
            return (self.folder / kind.folder.name / kind.path(cell).name).read_bytes()
        except OSError:
            return None


def reusable_cells(
    config: Config, design: Design, launcher: Launcher, own: StudyStore | None
) -> dict[str, TrainedCell]:
    """Returns the finished cells of the studies in `config.reuse`, by key; `own` is the design's study, if it exists.

    Raises:
        UsageError: if there is no such study with cells, or if none of its cells can equal one of the design.
        SuiteError: if the database or the images cannot be read.
    """
    url, cells = storage_url(config), dict[str, TrainedCell]()
    for name in dict.fromkeys(config.reuse):
        if name == design.study:
            raise UsageError("reuse", name, "is this study itself, whose cells are not trained again in any case")
        store = find_study(url, name)
        if store is None:
            others = [other for other in study_names(url) if other != design.study]
            raise UsageError("reuse", name, "no study of this name has cells in the database", others)
        _check(store, design, _threads(config, launcher, own), launcher.data_set.fingerprint)
        for cell in store.cells():
            if cell.state is CellState.FINISHED and cell.outcome is not None and _is_complete(cell.outcome):
                origin = cell.outcome.get("origin", name)
                cells.setdefault(cell.key, TrainedCell(origin, cell.outcome, results_folder(config) / name))
    return cells


def reuse_sentences(outlook: Outlook, reusable: Mapping[str, TrainedCell]) -> list[str]:
    """Says how many cells of an outlook are copied from other studies; nothing if there are none to copy from."""
    if not reusable:
        return []
    origins = Counter(reusable[cell.key].study for cell in outlook.cells if cell.key in reusable)
    return [f"{copied_clause(origins)}."]


def _is_complete(outcome: Mapping[str, Any]) -> bool:
    """Whether a stored outcome has all that is copied of it; an edited one may not."""
    try:
        epochs = [Epoch(**epoch) for epoch in outcome["result"]["epochs"]]
    except (KeyError, TypeError):
        return False
    return bool(epochs) and "top1" in outcome["result"] and "environment" in outcome


def _threads(config: Config, launcher: Launcher, own: StudyStore | None) -> int:
    """Returns the number of threads that the study's cells have, or will have."""
    if isinstance(config.threads, int):
        return config.threads
    return int(own.attributes.get("threads", launcher.threads)) if own else launcher.threads


def _check(store: StudyStore, design: Design, threads: int, fingerprint: str) -> None:
    """Raises UsageError if no cell of a stored study can equal one of a design."""
    if differences := protocol_differences(store.protocol, as_stored(design.protocol)):
        lines = "".join(f"\n  {line}" for line in differences)
        reason = f"has a different protocol, so none of its cells can be reused. What differs:{lines}"
        raise UsageError("reuse", store.name, reason)
    images = store.attributes.get("data_fingerprint", fingerprint)
    if images != fingerprint:
        reason = f"was trained on other images (fingerprint {images}, not {fingerprint}), so no cell can be reused"
        raise UsageError("reuse", store.name, reason)
    used = store.attributes.get("threads", threads)
    if used != threads:
        reason = f"was trained with threads={used}, not {threads}, on which results depend in the last digits"
        raise UsageError("reuse", store.name, reason)
