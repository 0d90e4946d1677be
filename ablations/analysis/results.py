"""Stored cells as tidy data frames: one row a cell, or one row a cell and epoch."""

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

_COUNTED = (CellState.DIVERGED, CellState.FAILED, CellState.UNREADABLE)  # beyond the design's replicates, too


@dataclass(frozen=True)
class Results:
    """What is known of a design's cells.

    Attributes:
        cells: finished cells, a row each: `variant`, `replicate`, a column a factor, `attention_by` (`kernels`,
            `torch`, or nothing where there is no shuffle attention), `micro_batches` (parts that its batches were taken
            in), and the metrics of a cell, with costs where a search has them as objectives.
        curves: a row a finished cell and epoch: `variant`, `replicate`, `epoch`, `test_images` (how many loss and top-1
            are of; 0 where that is not known), and the metrics of an epoch.
        unfinished: a row each: `variant`, `replicate`, `state` (`missing` where nothing is stored, otherwise the
            value of a `CellState`), `reason`. Finished cells whose outcome lacks what is read here are `unreadable`.
        environments: the machines and versions that trained the cells, each once.
    """

    cells: pd.DataFrame
    curves: pd.DataFrame
    unfinished: pd.DataFrame
    environments: list[dict[str, str]]

    @property
    def pending(self) -> pd.DataFrame:
        """The rows of `unfinished` that another run would train: neither pruned nor diverged."""
        return self.unfinished[~self.unfinished["state"].isin(["pruned", "diverged"])]

    @property
    def unreadable(self) -> pd.DataFrame:
        """The rows of `unfinished` whose stored outcome cannot be read; another run trains them again."""
        return self.unfinished[self.unfinished["state"] == CellState.UNREADABLE.value]

    @property
    def ended(self) -> pd.DataFrame:
        """The cells that have ended: the finished ones, and those that diverged or failed, with nan for results."""
        lost = self.unfinished.loc[self.unfinished["state"].isin(["diverged", "failed"]), ["variant", "replicate"]]
        return pd.concat([self.cells, lost], ignore_index=True) if len(lost) else self.cells

    @property
    def diverged(self) -> dict[str, int]:
        """How many replicates of a variant diverged, of those that have any."""
        own = self.unfinished[self.unfinished["state"] == "diverged"]
        return {str(variant): int(number) for variant, number in own.groupby("variant", sort=False).size().items()}


def collect(design: Design, stored: Iterable[StoredCell], split: Split = Split.TEST) -> Results:
    """Sorts the stored cells of a split by the design's variants; those of other networks or recipes are left out.

    Replicates beyond those that the design asks for count where they are finished: they cost what they cost.
    """
    # Many cells have one network, and it may be one object in memory: each is written as text once.
    texts: dict[int, tuple[Settings, str]] = {}

    def identity(settings: Settings) -> str:
        if id(settings) not in texts:
            texts[id(settings)] = settings, _text(settings)  # kept with it, so that no other object takes its id
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
        own = {replicate: by_place.get((network, recipe, replicate)) for replicate in replicates}
        for replicate, cell in own.items():
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
    return Results(
        cells=cells.astype(dict.fromkeys(metrics, float)),  # nan where nothing is known
        curves=_numbers(pd.DataFrame(curves, columns=["variant", "replicate", "epoch", "test_images", *EPOCH_METRICS])),
        unfinished=pd.DataFrame(unfinished, columns=["variant", "replicate", "state", "reason"]),
        environments=environments,
    )


def _read(
    outcome: dict[str, Any], metrics: Iterable[str]
) -> tuple[dict[str, object], list[tuple[object, ...]], dict[str, str]]:
    """Returns what a finished cell's outcome has for `cells`, for each epoch of `curves`, and its environment."""
    result = outcome["result"]
    row = {"attention_by": result["attention_by"], "micro_batches": outcome.get("micro_batches", 1)}
    values: dict[str, object] = {key: None if (value := result.get(key)) is None else float(value) for key in metrics}
    epochs = [
        (epoch["epoch"] + 1, epoch.get("test_images", 0), *(epoch[key] for key in EPOCH_METRICS))  # None: not tested
        for epoch in result["epochs"]
    ]
    return row | values, epochs, outcome["environment"]


def _numbers(curves: pd.DataFrame) -> pd.DataFrame:
    return curves.astype(dict.fromkeys(EPOCH_METRICS, float))


def _text(settings: Settings) -> str:
    """Returns what tells a network or a recipe from others: a network may have had another name when it was stored."""
    return json.dumps(settings, sort_keys=True)
