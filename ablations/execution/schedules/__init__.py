"""Which cells come next: all missing ones, picks of a search or of tuning, or what an interim analysis left open."""

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
    """Makes the schedule of a study; there is no store where nothing is stored yet.

    A search asks `count_parameters` and `refusal_of` about each variant that it may pick; the latter says why a variant
    is not to be trained, and is empty otherwise.

    Raises:
        UsageError: if `replicates=auto` can decide nothing.
        StorageError: if the study was begun with another `replicates.max`.
    """
    if design.tuning:
        return TuningSchedule(design, store)
    if design.is_search:
        return SearchSchedule(config, design, store, count_parameters, refusal_of)
    if design.replicates_max:
        interims = interims_of(design, store.attributes.get("looks") if store is not None else None)
        return SequentialSchedule(design, store, interims)
    return Schedule(design, store)
