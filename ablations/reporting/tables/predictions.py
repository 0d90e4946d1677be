"""The table of predictions on the test images: top-5, calibration, and churn against the baseline."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from ablations.analysis.predictions import ALPHA, StudyPredictions, churn_frame, classes_frame, predictions_frame
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.reporting.tables.sections import Section
from ablations.training.predictions import BINS

_HEADERS = {
    "variant": "variant", "n": "n", "top5": "top-5 %", "ece": "ECE %", "churn": "churn %", "churn_floor": "floor %",
    "only_variant": "gained", "only_against": "lost", "significant": f"McNemar p < {ALPHA:g}",
}  # fmt: skip


def predictions_of(analysis: StudyAnalysis) -> StudyPredictions | None:
    """Returns the kept predictions of a study; None if there are none."""
    if analysis.results.cells.empty:
        return None
    try:
        return analysis.predictions
    except UsageError:
        return None


def prediction_tables(analysis: StudyAnalysis) -> dict[str, pd.DataFrame]:
    """Returns the frames of predictions by file name; none without kept predictions."""
    found = predictions_of(analysis)
    if found is None:
        return {}
    return {"predictions": predictions_frame(found), "churn": churn_frame(found), "classes": classes_frame(found)}


def prediction_sections(analysis: StudyAnalysis) -> list[Section]:
    """Returns the table of predictions with its explanation; nothing without kept predictions."""
    found = predictions_of(analysis)
    if found is None:
        return []
    frame = predictions_frame(found)
    rows = [_row(values) for values in frame.to_dict("records")]
    return [Section("Predictions on test images", _note(found, frame), tuple(_HEADERS.values()), rows)]


def _row(values: Mapping[Hashable, Any]) -> list[str]:
    number = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    is_baseline, pairs = values["variant"] == values["baseline"], int(number["pairs"])
    churn = _with_range(number["churn"], number["churn_low"], number["churn_high"], 1, pairs)
    shown = {
        "variant": str(values["variant"]),
        "n": str(values["n"]),
        "top5": METRICS["top5"].format(number["top5"]),
        "ece": _with_range(number["ece"], number["ece_low"], number["ece_high"], 2, int(number["n"])),
        "churn": "baseline" if is_baseline else churn,
        "churn_floor": churn if is_baseline else _number(number["churn_floor"], 1),
        "significant": f"{int(number['significant'])} of {pairs}" if pairs else "–",
    }
    for key in ("only_variant", "only_against"):
        shown[key] = "–" if is_baseline else _number(number[key], 0)
    return [shown[key] for key in _HEADERS]


def _with_range(middle: float, low: float, high: float, digits: int, n: int) -> str:
    span = f" ({_number(low, digits)} to {_number(high, digits)})" if n > 1 else ""
    return _number(middle, digits) + span


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _note(found: StudyPredictions, frame: pd.DataFrame) -> str:
    baselines = frame[frame["variant"] == frame["baseline"]]
    pairs = int(baselines["pairs"].sum())
    floor = "floor: churn between replicates of the baseline, which differ only in their seed."
    if not found.same_images:
        floor = "the floor is not available, as replicates are tested on different images."
    elif not pairs:
        floor = "the floor requires two replicates of a baseline."
    mcnemar = (
        "McNemar's exact test compares two trained networks (variant and baseline of the same replicate), not two "
        f"methods; the column counts replicates with p < {ALPHA:g}, uncorrected"
    )
    if pairs:
        mcnemar += ", and in a baseline's row pairs of its own replicates"
    parts = [
        f"On {count(found.images, 'test image')} after the last epoch; means over replicates (minimum to maximum). "
        f"ECE: expected calibration error, {BINS} bins (Guo et al. 2017). Churn: share of test images on which a "
        f"variant and its baseline of the same replicate predict different classes; {floor} Gained (lost): test "
        f"images classified correctly only by the variant (baseline). {mcnemar}.",
        "A dash: not available." if any("–" in cell for row in frame.to_dict("records") for cell in _row(row)) else "",
        "tables/churn.csv lists every pair of networks, tables/classes.csv every class.",
        found.note,
    ]
    return " ".join(part for part in parts if part)
