"""Tidy tables with one row per result, epoch or contrast, as CSV and as Parquet.

The first columns are `study` and `recipe`, so that tables of several studies can be concatenated. `recipe` is `study`
for cells under the study's recipe, and `best` for cells under the variant's tuned recipe (`tune.trials`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ablations.analysis.multiverse import contrasts_frame
from ablations.common.errors import shown
from ablations.common.files import write_whole

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis


def export_csv(analysis: StudyAnalysis, folder: Path) -> list[Path]:
    """Writes `results.csv`, `epochs.csv` and `contrasts.csv`; raises OSError if one cannot be written."""
    return _write({f"{name}.csv": frame.to_csv(index=False) for name, frame in frames(analysis).items()}, folder)


def export_parquet(analysis: StudyAnalysis, folder: Path) -> list[Path]:
    """Writes `results.parquet`, `epochs.parquet` and `contrasts.parquet`; raises OSError if one cannot be written."""
    return _write(
        {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in frames(analysis).items()}, folder
    )


def frames(analysis: StudyAnalysis) -> dict[str, pd.DataFrame]:
    """Returns the tables by name.

    Results and epochs have the columns of `Results.cells` and `Results.curves`. Contrasts have the difference in the
    unit of `metric` with its 95 % CI (`low`, `high`), the verdict, p-values corrected for the family, and the margin.
    """
    studies = {"study": analysis} | ({"best": analysis.at_best} if analysis.at_best else {})
    design = analysis.design
    contrasts = contrasts_frame(
        {recipe: one.contrasts for recipe, one in studies.items()}, dict.fromkeys(studies, design.margin)
    ).rename(columns={"protocol": "recipe", "mean": "difference"})
    contrasts.insert(1, "metric", design.metric)
    tables = {
        "results": _joined({recipe: one.results.cells for recipe, one in studies.items()}),
        "epochs": _joined({recipe: one.results.curves for recipe, one in studies.items()}),
        "contrasts": contrasts,
    }
    for frame in tables.values():
        frame.insert(0, "study", design.study)
    return {name: _of_one_type(frame) for name, frame in tables.items()}


def _joined(by_recipe: dict[str, pd.DataFrame]) -> pd.DataFrame:
    labelled = [frame.assign(recipe=recipe) for recipe, frame in by_recipe.items()]
    joined = pd.concat(labelled, ignore_index=True)
    return joined[["recipe", *(column for column in joined.columns if column != "recipe")]]


def _of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Converts columns of mixed type (such as levels 4 and `auto`) to text, in the command line's notation."""
    mixed = [
        column
        for column in frame.columns
        if frame[column].dtype == object and {type(value) for value in frame[column].dropna()} - {str}
    ]
    return frame.assign(**{column: frame[column].map(shown, na_action="ignore") for column in mixed})


def _write(contents: dict[str, str | bytes], folder: Path) -> list[Path]:
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]
