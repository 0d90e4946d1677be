"""Stored cells and designs in memory, with results that identify the cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Cell, Design, make_design
from ablations.storage.cell_states import CellState, StoredCell
from ablations.training.events import DIVERGED


def configuration(replicates: int = 2) -> Config:
    return compose_config(
        ["device=cpu", f"replicates={replicates}", "sweep.factors.attention.groups=[2,4]", "sweep.margin=1"]
    )


def design(replicates: int = 2) -> Design:
    return make_design(configuration(replicates))


def stored(study_design: Design, finished: int, machine: str = "one") -> list[StoredCell]:
    """The cells of a design; the first `finished` have a result that identifies the cell."""
    cells = []
    for number, cell in enumerate(study_design.cells()):
        curve = [{"epoch": i, **{key: float(number + i) for key in EPOCH_METRICS}} for i in range(2)]
        result: dict[str, Any] = {key: float(number) for key in CELL_METRICS}
        result |= {"epochs": curve, "attention_by": "kernels"}
        outcome = {"result": result, "environment": {"cpu": machine, "gpu": "none"}}
        cells.append(stored_cell(cell, number, outcome if number < finished else None))
    return cells


def stored_cell(cell: Cell, number: int, outcome: dict[str, Any] | None, failure: str | None = None) -> StoredCell:
    """A cell with this outcome; without one, a cell that failed for this reason, or else was interrupted."""
    unfinished = CellState.FAILED if failure else CellState.INTERRUPTED
    return StoredCell(
        cell.key,
        cell.variant.name,
        cell.variant.network,
        cell.variant.levels,
        cell.replicate,
        unfinished if outcome is None else CellState.FINISHED,
        number,
        cell.split,
        outcome,
        failure=failure if outcome is None else None,
    )


def diverged(cell: StoredCell) -> StoredCell:
    return replace(cell, state=CellState.DIVERGED, outcome=None, failure="DivergedError: nan", failed_as=DIVERGED)
