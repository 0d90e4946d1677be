"""Analyses of studies with fabricated cells, and a parser of LaTeX macros."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.analysis.load import Maker
from ablations.analysis.results import collect
from ablations.analysis.selection import collect_selection, confirmed_design
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.config.compose import compose_config
from ablations.design import Cell, make_design
from ablations.design.declaration import Declaration, History
from ablations.storage.cell_states import CellState, StoredCell
from tests.builders.cells import stored_cell
from tests.builders.costs import usual_attributes

GROUPS = ("sweep.factors.attention.groups=[2,4]", "sweep.margin=1")
SPACE = "sweep.factors={attention: {groups: [1, 2, 4], gate: [sigmoid, tanh1]}}"
_ATTRIBUTES = {
    "command": "python -m ablations.run sweep=groups",
    "data_fingerprint": "f00d",
    "data": {"classes": [str(digit) for digit in range(10)], "train": 2048, "test": 1000},
}


def spread_top1(variant: int, replicate: int) -> float:
    """An accuracy that varies with variant and replicate, as does its difference to the first variant."""
    return 60 + variant + (0.5 if replicate % 2 else -0.5) * (1 + variant)


def study_analysis(
    folder: Path,
    overrides: Sequence[str] = GROUPS,
    replicates: int = 2,
    finished: int | None = None,
    top1: Callable[[int, int], float] = spread_top1,
    names: Sequence[str] = (),
    failure: str | None = None,
    **changes: Any,
) -> StudyAnalysis:
    """A study with fabricated cells: the first `finished` have a result, the others failed or were interrupted.

    `names` replaces the names of its variants, `changes` replaces fields of its design.
    """
    config = compose_config(["device=cpu", f"replicates={replicates}", *overrides])
    design = make_design(config)
    renamed = dict(zip((variant.name for variant in design.variants), names, strict=False))
    variants = tuple(replace(variant, name=renamed.get(variant.name, variant.name)) for variant in design.variants)
    baseline = renamed.get(design.baseline, design.baseline)
    design = replace(design, variants=variants, baseline=baseline, **changes)
    order = [variant.name for variant in design.variants]
    cells = []
    for number, cell in enumerate(design.cells()):
        outcome = outcome_of(order.index(cell.variant.name), cell, top1)
        is_done = finished is None or number < finished
        cells.append(stored_cell(cell, number, outcome if is_done else None, failure))
    declared = Declaration.of(design, commit="0123456789", command="x", time="2026-11-29T14:02:11+00:00")
    attributes = {**_ATTRIBUTES, "declared": History.begun(declared).as_stored(), **usual_attributes(design)}
    return StudyAnalysis(config, design, collect(design, cells), attributes, folder)


def search_analysis(
    folder: Path, *overrides: str, given_up: int = 0, is_confirmed: bool = True, replicates: int = 2
) -> StudyAnalysis:
    """A search of six combinations, each better than the one before; some were pruned, the best confirmed."""
    typed = ["device=cpu", f"replicates={replicates}", "sweep=search", SPACE, "sweep.objectives=[top1]", *overrides]
    config = compose_config(typed)
    declared, maker = make_design(config), Maker(config)
    factors = declared.factors
    picks = [maker.variant(dict(zip(factors, levels, strict=True))) for levels in itertools.product(*factors.values())]
    tried = replace(declared, variants=(*declared.variants, *(variant for variant in picks if variant)))
    order = [variant.name for variant in tried.variants]
    cells: list[StoredCell] = []

    def store(cell: Cell) -> None:
        cells.append(stored_cell(cell, len(cells), outcome_of(order.index(cell.variant.name), cell, spread_top1)))

    for cell in tried.selection_cells():
        store(cell)
    for number in range(1, 1 + given_up):
        pruned = {"result": {"epochs": []}, "pruned": "below the median"}
        cells[number] = replace(cells[number], state=CellState.PRUNED, outcome=pruned)
    selection = collect_selection(tried, cells)
    for cell in confirmed_design(selection, cells).cells() if is_confirmed else ():
        store(cell)
    design = confirmed_design(selection, cells)
    attributes = {**_ATTRIBUTES, **usual_attributes(tried)}
    return StudyAnalysis(config, design, collect(design, cells), attributes, folder, selection)


def outcome_of(index: int, cell: Cell, top1: Callable[[int, int], float]) -> dict[str, Any]:
    """The outcome of a cell of the `index`-th variant."""
    result: dict[str, Any] = dict.fromkeys(CELL_METRICS, 1.0 + index)
    result |= {"top1": top1(index, cell.replicate), "parameters": 75000 + 100 * index, "attention_by": "kernels"}
    result["epochs"] = [{"epoch": 0, **dict.fromkeys(EPOCH_METRICS, 1.0)}]
    return {"result": result, "environment": {"cpu": "Machine & Co", "gpu": "none"}}


def macros(text: str) -> dict[str, str]:
    pairs = re.findall(r"^\\newcommand\{\\([^}]*)\}\{(.*)\}$", text, re.MULTILINE)
    assert len(pairs) == text.count("newcommand")
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
