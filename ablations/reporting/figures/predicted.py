"""The figures of kept predictions: what each shows of a study, and how it is read.

Raises, each of them, a UsageError where a study kept no predictions.
"""

from __future__ import annotations

from functools import partial

from ablations.analysis.predictions import StudyPredictions, calibration_frame, classes_frame
from ablations.analysis.study import StudyAnalysis
from ablations.common.wording import count
from ablations.reporting.figures import calibration, classes, confusion
from ablations.reporting.figures.sketch import Sketch
from ablations.training.predictions import BINS


def classes_sketch(analysis: StudyAnalysis) -> Sketch | str:
    """Differences of each class's accuracy; why not, where nothing can be compared."""
    found = analysis.predictions
    frame = classes_frame(found)
    shown = classes.shown_classes(frame)
    if shown.empty:
        return "no variant and its baseline have predictions of a replicate in common"
    key = "Differences to the baseline in points" + (", means over replicates." if shown["n"].max() > 1 else ".")
    if shown["low"].notna().any():
        key += " Bold: the 95 % CI (Student's t, not corrected for how many there are) does not contain 0."
    if shown["label"].nunique() < len(found.classes):
        key += f" Of {len(found.classes):,} classes those that differ most are shown; tables/classes.csv has all."
    draw, key = partial(classes.draw_classes, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), unread=found.unread)


def confusion_sketch(analysis: StudyAnalysis) -> Sketch:
    """Matrices of true and predicted classes, or the most confused pairs of many classes."""
    found = analysis.predictions
    frame, names = confusion.confusion_frame(found), confusion.shown_variants(found)
    if len(found.classes) > confusion.MOST_CLASSES:
        key = f"The pairs of the {len(found.classes):,} classes that are most often taken for each other."
    else:
        key = f"Shares in percent of each true class, of {names[0]}"
        beside = len(names) > 1 and len(found.classes) <= confusion.MOST_BESIDE
        key += "; beside it differences to it in points, blue where they are for the better." if beside else "."
    if sum(found.baselines[name] == names[0] for name in found.compared) >= len(names):
        key += " Shown are the variants whose top-1 differs most from the baseline's."
    key += " All replicates together." if len(found.by_variant[names[0]]) > 1 else ""
    draw, key = partial(confusion.draw_confusion, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), unread=found.unread)


def calibration_sketch(analysis: StudyAnalysis) -> Sketch:
    """Confidence against accuracy, and the calibration error of every variant."""
    found = analysis.predictions
    frame = calibration_frame(found)
    key = (
        f"Left: predictions of all replicates in {BINS} bins of confidence; on the diagonal it equals accuracy. "
        "Right: expected calibration error (ECE, Guo et al. 2017), mean and lowest to highest over replicates."
    )
    if len(found.by_variant) > calibration.MOST_CURVES + 1:
        key += " Left are the variants whose error differs most from the baseline's."
    draw, key = partial(calibration.draw_calibration, found), f"{key} {found.note}".strip()
    return Sketch(frame, draw, key, _tested_on(found), asks=False, unread=found.unread)


def _tested_on(found: StudyPredictions) -> str:
    sizes = [len(kept) for kept in found.by_variant.values()]
    least, most = min(sizes), max(sizes)
    replicates = f"{least} to {most} replicates" if least < most else count(most, "replicate")
    return f"{replicates} a variant, {count(found.images, 'test image')} each"
