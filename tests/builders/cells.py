"""Stored cells and designs in memory, with results that tell which they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.storage.cell_states import CellState
from ablations.storage.study import StoredCell
from ablations.training.events import DIVERGED


def configuration(replicates: int = 2) -> Config:
    return compose_config(["device=cpu", f"replicates={replicates}", "sweep.factors.attention.groups=[2,4]"])


def design(replicates: int = 2) -> Design:
    return make_design(configuration(replicates))


def stored(made: Design, finished: int, machine: str = "one") -> list[StoredCell]:
    """The design's cells, the first `finished` of them with a result that tells which they are."""
    cells = []
    for number, cell in enumerate(made.cells()):
        curve = [{"epoch": i, **{key: float(number + i) for key in EPOCH_METRICS}} for i in range(2)]
        result: dict[str, Any] = {key: float(number) for key in CELL_METRICS}
        result |= {"epochs": curve, "attention_by": "kernels"}
        outcome = {"result": result, "environment": {"cpu": machine, "gpu": "none"}}
        done = number < finished
        cells.append(
            StoredCell(
                cell.key,
                cell.variant.name,
                cell.variant.network,
                cell.variant.levels,
                cell.replicate,
                CellState.FINISHED if done else CellState.INTERRUPTED,
                number,
                outcome if done else None,
                None,
            )
        )
    return cells


def diverged(cell: StoredCell) -> StoredCell:
    return replace(cell, state=CellState.DIVERGED, outcome=None, failure="DivergedError: nan", failed_as=DIVERGED)
