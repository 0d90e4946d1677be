"""Which schedule a study has."""

from __future__ import annotations

from collections.abc import Callable

from ablations.config import Config
from ablations.design import Cell, Design
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Schedule
from ablations.execution.schedules.grid import GridSchedule
from ablations.execution.schedules.sequential import SequentialSchedule, looks_of
from ablations.storage.cells import StoredCell
from ablations.storage.study import StudyStore


def make_schedule(
    config: Config,
    design: Design,
    store: StudyStore | None,
    count_parameters: Callable[[Variant], int],
    notify: Callable[[str], None] = print,
) -> Schedule:
    """Makes the schedule of a study.

    Args:
        config: what was asked for.
        design: the study.
        store: its memory; None where nothing is stored yet.
        count_parameters: says how many parameters a variant has.
        notify: tells people why the study goes on as it does.

    Raises:
        UsageError: if `replicates=auto` can decide nothing.
        StorageError: if the study was begun with another `replicates.max`.
    """

    def stored() -> list[StoredCell]:
        return store.cells() if store is not None else []

    if design.is_search:
        from optuna.pruners import MedianPruner

        from ablations.execution.schedules.search import SearchSchedule

        def should_prune(cell: Cell, pruner: MedianPruner) -> bool:
            return store is not None and store.should_prune(cell, pruner)

        return SearchSchedule(config, design, stored, count_parameters, should_prune)
    if design.replicates_max:
        looks = looks_of(design, store.attributes.get("looks") if store is not None else None)
        return SequentialSchedule(design, stored, looks, notify)
    return GridSchedule(design, stored)
