"""The finished cells of a study with settings, epochs and results, for tools that record runs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablations.common.errors import shown
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.common.names import plain_names
from ablations.common.settings import flatten

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis


@dataclass(frozen=True)
class FinishedCell:
    """A finished cell.

    Attributes:
        key: the cell's key.
        variant, replicate: its variant and replicate; `folder` is a folder name made from the variant's name.
        settings: the options of its training, named as on the command line.
        epochs: the metrics measured after each epoch, by epoch number from 1.
        results: the metrics of the cell.
    """

    key: str
    variant: str
    replicate: int
    folder: str
    settings: dict[str, str]
    epochs: dict[int, dict[str, float]]
    results: dict[str, float]


def finished_cells(analysis: StudyAnalysis) -> Iterator[FinishedCell]:
    """Yields the finished cells of a study: those under its recipe, then those under each variant's best recipe."""
    studies = [analysis, *([analysis.at_best] if analysis.at_best else [])]
    folders = plain_names(variant.name for study in studies for variant in study.design.variants)
    for study in studies:
        variants = {variant.name: variant for variant in study.design.variants}
        curves = dict(list(study.results.curves.groupby(["variant", "replicate"])))
        for row in study.results.cells.to_dict("records"):
            variant, replicate = variants[row["variant"]], int(row["replicate"])
            settings = flatten({**study.design.protocol, **variant.network}) | variant.recipe
            curve = curves[(variant.name, replicate)].to_dict("records") if curves else []
            yield FinishedCell(
                study.design.cell(variant, replicate).key,
                variant.name,
                replicate,
                folders[variant.name],
                {name.removesuffix(".name"): shown(value) for name, value in settings.items()},
                {int(epoch["epoch"]): _measured(epoch, EPOCH_METRICS) for epoch in curve},
                _measured(row, CELL_METRICS),
            )


def _measured(row: Mapping[Hashable, Any], keys: tuple[str, ...]) -> dict[str, float]:
    return {key: float(row[key]) for key in keys if key in row and row[key] == row[key]}  # not NaN
