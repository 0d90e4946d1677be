"""Stored cells as tidy data frames: one row per cell, or per cell and epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablations.common.metrics import CELL_METRICS, COSTS, EPOCH_METRICS
from ablations.common.parts import reason_of
from ablations.common.settings import Settings
from ablations.design import Design, Split
from ablations.storage.cell_states import CellState, StoredCell

# States of cells that are listed even beyond the design's number of replicates.
_COUNTED = (CellState.DIVERGED, CellState.FAILED, CellState.UNREADABLE)
_REUSED = ["variant", "replicate", "origin", "finished"]


@dataclass(frozen=True)
class Results:
    """The cells of a design.

    Attributes:
        cells: a row per finished cell: `variant`, `replicate`, a column per factor, `attention_by` (`kernels`, `torch`,
            or empty without shuffle attention), `micro_batches` (parts that each batch was split into), and the metrics
            of a cell, including costs that are objectives of a search.
        curves: a row per finished cell and epoch: `variant`, `replicate`, `epoch`, `test_images` (number of images that
            loss and top-1 are computed on; 0 if unknown), and the metrics of an epoch.
        unfinished: a row per unfinished cell: `variant`, `replicate`, `state` (`missing` if nothing is stored,
            otherwise the value of a `CellState`), `reason`. Finished cells with an incomplete outcome are `unreadable`.
        environments: the distinct machines and versions that trained the cells.
        reused: a row per finished cell that another study trained: `variant`, `replicate`, `origin` (that study),
            `finished` (Unix time at which its training ended).
    """

    cells: pd.DataFrame
    curves: pd.DataFrame
    unfinished: pd.DataFrame
    environments: list[dict[str, str]]
    reused: pd.DataFrame

    @property
    def pending(self) -> pd.DataFrame:
        """The rows of `unfinished` that the next run would train: neither pruned nor diverged."""
        return self.unfinished[~self.unfinished["state"].isin(["pruned", "diverged"])]

    @property
    def unreadable(self) -> pd.DataFrame:
        """The rows of `unfinished` with an unreadable outcome; the next run trains them again."""
        return self.unfinished[self.unfinished["state"] == CellState.UNREADABLE.value]

    @property
    def ended(self) -> pd.DataFrame:
        """The cells that have ended: finished ones, and diverged or failed ones with nan for results."""
        lost = self.unfinished.loc[self.unfinished["state"].isin(["diverged", "failed"]), ["variant", "replicate"]]
        return pd.concat([self.cells, lost], ignore_index=True) if len(lost) else self.cells

    @property
    def diverged(self) -> dict[str, int]:
        """The number of diverged replicates by variant, without zeros."""
        diverged = self.unfinished.loc[self.unfinished["state"] == "diverged", "variant"]
        return {str(variant): int(number) for variant, number in diverged.groupby(diverged, sort=False).size().items()}


def collect(design: Design, stored: Iterable[StoredCell], split: Split = Split.TEST) -> Results:
    """Collects the stored cells of a split for the design's variants; cells of other networks or recipes are left out.

    Finished replicates beyond the design's number are included, because they have been paid for.
    """
    # Many cells share a network, often as one object in memory: each object is serialized once.
    texts: dict[int, tuple[Settings, str]] = {}

    def identity(settings: Settings) -> str:
        if id(settings) not in texts:
            texts[id(settings)] = settings, _text(settings)  # the reference keeps the id from being reused
        return texts[id(settings)][1]

    metrics = [*CELL_METRICS, *(key for key in design.objectives if key in COSTS)]
    sizes = design.sizes
    by_place = {
        (identity(cell.network), identity(cell.recipe), cell.replicate): cell for cell in stored if cell.split is split
    }
    replicates = sorted({replicate for *_, replicate in by_place} | set(range(max(sizes.values(), default=0))))
    rows: list[dict[str, object]] = []
    curves: list[tuple[object, ...]] = []
    unfinished: list[tuple[object, ...]] = []
    environments: list[dict[str, str]] = []
    for variant in design.variants:
        network, recipe = _text(variant.network), _text(variant.recipe)
        for replicate in replicates:
            cell = by_place.get((network, recipe, replicate))
            if cell is None:
                if replicate < sizes[variant.name]:
                    unfinished.append((variant.name, replicate, "missing", None))
                continue
            if cell.outcome is None or cell.state is not CellState.FINISHED:
                if replicate < sizes[variant.name] or cell.state in _COUNTED:
                    reason = cell.failure or (cell.outcome or {}).get("pruned")
                    unfinished.append((variant.name, replicate, cell.state.value, reason))
                continue
            try:
                row, epochs, environment = _read(dict(cell.outcome), metrics)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"the stored outcome cannot be read ({reason_of(error)})"
                unfinished.append((variant.name, replicate, CellState.UNREADABLE.value, reason))
                continue
            rows.append({"variant": variant.name, "replicate": replicate} | variant.levels | row)
            curves += [(variant.name, replicate, *epoch) for epoch in epochs]
            if environment not in environments:
                environments.append(environment)
    factors = dict.fromkeys(path for variant in design.variants for path in variant.levels)
    columns = ["variant", "replicate", *factors, "attention_by", "micro_batches", *metrics]
    cells = pd.DataFrame(rows, columns=columns)
    epochs_frame = pd.DataFrame(curves, columns=["variant", "replicate", "epoch", "test_images", *EPOCH_METRICS])
    return Results(
        cells=cells.astype(dict.fromkeys(metrics, float)),  # None becomes nan
        curves=epochs_frame.astype(dict.fromkeys(EPOCH_METRICS, float)),
        unfinished=pd.DataFrame(unfinished, columns=["variant", "replicate", "state", "reason"]),
        environments=environments,
        reused=pd.DataFrame((row for row in rows if "origin" in row), columns=_REUSED),
    )


def _read(
    outcome: dict[str, Any], metrics: Iterable[str]
) -> tuple[dict[str, object], list[tuple[object, ...]], dict[str, str]]:
    """Returns the row of `cells`, the rows of `curves` and the environment of a finished cell's outcome."""
    result = outcome["result"]
    row = {"attention_by": result["attention_by"], "micro_batches": outcome.get("micro_batches", 1)}
    if "origin" in outcome:
        row |= {"origin": outcome["origin"], "finished": result["epochs"][-1]["finished"]}
    values: dict[str, object] = {key: None if (value := result.get(key)) is None else float(value) for key in metrics}
    epochs = [
        (epoch["epoch"] + 1, epoch.get("test_images", 0), *(epoch[key] for key in EPOCH_METRICS))  # None: not tested
        for epoch in result["epochs"]
    ]
    return row | values, epochs, outcome["environment"]


def _text(settings: Settings) -> str:
    """Returns the identity of a network or recipe; names are not part of it, as a variant may have been renamed."""
    return json.dumps(settings, sort_keys=True)
