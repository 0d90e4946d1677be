"""Schedules of cells: all missing ones, a search, tuning, or sequential replicates with interim analyses."""

from __future__ import annotations

from collections.abc import Callable

from ablations.config import Config
from ablations.design import Design
from ablations.design.variants import Variant
from ablations.execution.schedules.base import Schedule
from ablations.execution.schedules.search import SearchSchedule
from ablations.execution.schedules.sequential import SequentialSchedule, interims_of
from ablations.execution.schedules.tuning import TuningSchedule
from ablations.storage.study import StudyStore


def make_schedule(
    config: Config,
    design: Design,
    store: StudyStore | None,
    count_parameters: Callable[[Variant], int],
    refusal_of: Callable[[Variant], str],
) -> Schedule:
    """Creates the schedule of a study; `store` is None if the study is not stored yet.

    A search calls `count_parameters` and `refusal_of` for each candidate; the latter returns why a variant must not be
    trained, or an empty string.

    Raises:
        UsageError: if `replicates=auto` cannot decide any contrast.
        StorageError: if the study was started with another `replicates.max`.
    """
    if design.tuning:
        return TuningSchedule(design, store)
    if design.is_search:
        return SearchSchedule(config, design, store, count_parameters, refusal_of)
    if design.replicates_max:
        interims = interims_of(design, store.attributes.get("looks") if store is not None else None)
        return SequentialSchedule(design, store, interims)
    return Schedule(design, store)
