"""The figures of kept predictions, with their explanations.

Each function raises UsageError if the study kept no predictions.
"""

from __future__ import annotations

from functools import partial

from ablations.analysis.predictions import StudyPredictions, calibration_frame, classes_frame
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.reporting.figures import calibration, classes, confusion
from ablations.reporting.figures.sketch import Sketch
from ablations.reporting.text.numbers import difference_with_interval
from ablations.stats import estimate
from ablations.training.predictions import BINS


def classes_sketch(analysis: StudyAnalysis) -> Sketch | str:
    """Returns the differences in accuracy by class, or the reason if nothing can be compared."""
    found = analysis.predictions
    frame = classes_frame(found)
    shown = classes.shown_classes(frame)
    if shown.empty:
        return f"no variant and {found.reference or 'its baseline'} have predictions of the same replicate"
    of_one = f" of {found.compared[0]}" if found.is_pair else ""
    key = f"Differences{of_one} to {found.compared_with} in points"
    key += ", means over replicates." if shown["n"].max() > 1 else "."
    if shown["low"].notna().any():
        marked = "Bars: 95 % CI; filled" if found.is_pair else "Bold"
        key += f" {marked}: the 95 % CI (Student's t, uncorrected) excludes 0."
    all_of_them = "the CSV file" if found.reference else "tables/classes.csv"
    if shown["label"].nunique() < len(found.classes):
        key += f" The most different of {len(found.classes):,} classes are shown; {all_of_them} lists all."
    draw, key = partial(classes.draw_classes, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), unread=found.unread)


def confusion_sketch(analysis: StudyAnalysis) -> Sketch:
    """Returns the confusion matrices, or the most confused pairs of many classes."""
    found = analysis.predictions
    frame, names = confusion.confusion_frame(found), confusion.shown_variants(found)
    if len(found.classes) > confusion.MOST_CLASSES:
        key = f"The most confused pairs of the {len(found.classes):,} classes."
    elif found.is_pair:
        beside = len(found.classes) <= confusion.MOST_BESIDE
        key = f"Shares in percent of each true class, of {names[0]} and of {names[1]}, and their " if beside else "The "
        key += f"difference in percentage points ({names[1]} less {names[0]}; blue: improvement)."
    else:
        key = f"Shares in percent of each true class, of {names[0]}"
        beside = len(names) > 1 and len(found.classes) <= confusion.MOST_BESIDE
        key += "; beside it differences to it in percentage points (blue: improvement)." if beside else "."
    if sum(found.baselines[name] == names[0] for name in found.compared) >= len(names):
        key += f" Variants with the largest difference in top-1 to {found.compared_with}."
    key += " Pooled over replicates." if len(found.by_variant[names[0]]) > 1 else ""
    draw, key = partial(confusion.draw_confusion, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), unread=found.unread)


def calibration_sketch(analysis: StudyAnalysis) -> Sketch:
    """Returns reliability diagrams, and the calibration error of every variant."""
    found = analysis.predictions
    frame = calibration_frame(found)
    key = (
        f"Left: predictions of all replicates in {BINS} bins of confidence; on the diagonal it equals accuracy. "
        "Right: expected calibration error (ECE, Guo et al. 2017), mean, minimum and maximum over replicates."
    )
    if len(found.by_variant) > calibration.MOST_CURVES + 1:
        key += f" Left: the variants with the largest difference in error to {found.compared_with}."
    if found.is_pair:
        key = f"{key} {_errors_differ(found)}"
    draw, key = partial(calibration.draw_calibration, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), asks=False, unread=found.unread)


def _errors_differ(found: StudyPredictions) -> str:
    """Returns a sentence on the difference of two variants' calibration errors, paired by replicate."""
    (name,) = found.compared
    gaps = [own.ece - other.ece for _, own, other in found.pairs(name)]
    if not gaps:
        return "They share no replicate."
    written = difference_with_interval(estimate(gaps), METRICS["ece"])
    interval = " [95 % CI]" if len(gaps) > 1 else ""
    pairs = f"paired by replicate (n = {len(gaps)})"
    return f"ECE of {name} less that of {found.reference}, {pairs}: {written} points{interval}."


def _tested_on(found: StudyPredictions) -> str:
    sizes = [len(kept) for kept in found.by_variant.values()]
    least, most = min(sizes), max(sizes)
    replicates = f"{least} to {most} replicates" if least < most else count(most, "replicate")
    return f"{replicates} per variant, {count(found.images, 'test image')} each"
