"""The predictions of a study's networks on the test images, read from saved files without training.

Two networks are compared on the same images: by their churn, the share of images for which they predict different
classes, and by McNemar's exact test on the images that exactly one of them classifies correctly. Both compare two
trained networks (those of a variant and its baseline in one replicate), not two methods: another seed changes
predictions, too. The floor for a variant's churn is therefore the churn between replicates of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtr

from ablations.common.errors import UsageError
from ablations.common.wording import count
from ablations.config import variants_named
from ablations.stats import estimate
from ablations.storage.files import PredictionFiles
from ablations.training.predictions import BINS, Calibration, Predictions

if TYPE_CHECKING:
    from ablations.analysis.study import StudyAnalysis

ALPHA = 0.05  # of McNemar's test
_NAMED = 3  # cells with unreadable files that a note names


@dataclass(frozen=True)
class StudyPredictions:
    """The saved predictions of a study's finished cells.

    Attributes:
        by_variant: the predictions of each displayed variant by replicate, without variants that have none.
        baselines: the baseline of each of these variants; baselines map to themselves.
        classes: the names of the labels.
        same_images: whether all replicates were tested on the same images.
        note: a sentence on the finished cells that are left out; empty if there are none.
        unread: the cells with unreadable predictions, with the reasons.
        reference: the variant that replaces all baselines in comparisons; empty by default.
    """

    by_variant: Mapping[str, Mapping[int, Predictions]]
    baselines: Mapping[str, str]
    classes: tuple[str, ...]
    same_images: bool = True
    note: str = ""
    unread: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""

    @property
    def is_pair(self) -> bool:
        """Whether `against` selected two variants."""
        return bool(self.reference) and len(self.by_variant) == 2

    @property
    def compared_with(self) -> str:
        """The reference of comparisons, in words."""
        return self.reference or "the baseline"

    def against(self, asked: object) -> StudyPredictions:
        """Returns the predictions with another reference.

        `asked` is the variant that all others are compared with, or a list of two variants: the first is compared with
        the second, and all others are left out.

        Raises:
            UsageError: if one of these variants has no predictions.
        """
        names = variants_named(asked)
        for name in names:
            if name not in self.by_variant:
                raise UsageError("against", name, "is not a variant with kept predictions", self.by_variant)
        reference = names[-1]
        others = names[:1] if len(names) == 2 else [name for name in self.by_variant if name != reference]
        kept = {name: self.by_variant[name] for name in (reference, *others)}
        return replace(self, by_variant=kept, baselines=dict.fromkeys(kept, reference), reference=reference)

    @property
    def images(self) -> int:
        """The number of test images of a network."""
        return max(len(each) for replicates in self.by_variant.values() for each in replicates.values())

    @property
    def compared(self) -> list[str]:
        """The variants that can be compared: they are not baselines, and their baselines have predictions."""
        return [name for name in self.by_variant if self._baseline(name) not in (None, name)]

    def pairs(self, variant: str) -> Iterator[tuple[int, Predictions, Predictions]]:
        """Yields the common replicates of a variant and its baseline, with the predictions of both."""
        baseline = self._baseline(variant)
        for replicate, predictions in self.by_variant[variant].items():
            reference = self.by_variant[baseline].get(replicate) if baseline else None
            if reference is not None and np.array_equal(predictions.labels, reference.labels):
                yield replicate, predictions, reference

    def _baseline(self, variant: str) -> str | None:
        baseline = self.baselines.get(variant)
        return baseline if baseline in self.by_variant else None


def kept_predictions(analysis: StudyAnalysis) -> StudyPredictions:
    """Reads the saved predictions of a study, without replicates whose file is missing, damaged or of another training.

    Raises:
        UsageError: if no file can be read.
    """
    design, files = analysis.design, PredictionFiles(analysis.folder / "predictions")
    classes = tuple(map(str, analysis.attributes["data"]["classes"]))
    cells = analysis.results.cells
    stored: dict[str, dict[int, float]] = {}
    for name, replicate, top1 in zip(cells["variant"], cells["replicate"], cells["top1"], strict=True):
        stored.setdefault(str(name), {})[int(replicate)] = float(top1)
    by_variant: dict[str, dict[int, Predictions]] = {}
    missing, unread = 0, dict[str, str]()
    for variant in (variant for variant in design.variants if variant.name in analysis.shown):
        for replicate, top1 in sorted(stored[variant.name].items()):
            cell = design.cell(variant, replicate)
            try:
                kept = files.load(cell)
                if kept.classes != len(classes) or abs(kept.top1 - top1) > 1e-6:
                    raise ValueError("it belongs to another training run")
            except FileNotFoundError:
                missing += 1
            except (OSError, ValueError) as error:
                unread[cell.name] = str(error)
            else:
                by_variant.setdefault(variant.name, {})[replicate] = kept
    note = _note(missing, unread)
    if not by_variant:
        reason = f"no predictions are saved in {files.folder}; `run study=<another name> predictions=all` saves them"
        raise UsageError("study", design.study, f"{reason}. {note}" if unread else reason)
    same_images = design.protocol["data"].get("seed") != "replicate"
    files_of = {f"predictions of {cell}": f"cannot be read ({reason})" for cell, reason in unread.items()}
    return StudyPredictions(by_variant, design.baselines, classes, same_images, note, files_of)


def _note(missing: int, unread: Mapping[str, str]) -> str:
    parts = [f"Predictions of {count(missing, 'finished cell')} are missing."] if missing else []
    if unread:
        more = f" and {len(unread) - _NAMED} others" if len(unread) > _NAMED else ""
        named = ", ".join(f"{cell} ({reason})" for cell, reason in [*unread.items()][:_NAMED])
        parts.append(f"Unreadable predictions are left out: {named}{more}.")
    return " ".join(parts)


def mcnemar_p(only_one: int, only_other: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test (McNemar 1947).

    The arguments are the numbers of images that only one and only the other network classifies correctly. Equal to
    `scipy.stats.binomtest` with a share of 1/2, whose import takes longer than a report.
    """
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def churn_frame(found: StudyPredictions) -> pd.DataFrame:
    """Compares pairs of networks: each variant with its baseline, and the replicates of baselines with each other.

    Returns:
        A row per pair: `variant`, `replicate`, `against`, `against_replicate` (the same replicate, or another one of
        the same variant), `images`, `churn` in percent, `only_variant` and `only_against` (images that only this
        network classifies correctly), `p` (McNemar's exact test).
    """
    rows = []
    for name in found.compared:
        for replicate, predictions, reference in found.pairs(name):
            rows.append((name, replicate, found.baselines[name], replicate, *_compared(predictions, reference)))
    for name in dict.fromkeys(found.baselines[name] for name in found.by_variant if name in found.baselines):
        kept = found.by_variant.get(name, {}) if found.same_images else {}
        for first, second in combinations(kept, 2):
            rows.append((name, first, name, second, *_compared(kept[first], kept[second])))
    columns = ["variant", "replicate", "against", "against_replicate"]
    return pd.DataFrame(rows, columns=[*columns, "images", "churn", "only_variant", "only_against", "p"])


def _compared(first: Predictions, second: Predictions) -> tuple[int, float, int, int, float]:
    only_first, only_second = int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum())
    churn = 100 * float((first.predicted != second.predicted).mean())
    return len(first), churn, only_first, only_second, mcnemar_p(only_first, only_second)


def predictions_frame(found: StudyPredictions) -> pd.DataFrame:
    """Summarizes each variant's predictions.

    Returns:
        A row per variant: `variant`, `baseline` (empty without one), `n` (replicates), `images`, `top1`, `top5` and
        `ece` in percent (means over replicates), `ece_low`, `ece_high`, `pairs` (replicates compared), `churn` in
        percent (mean over pairs), `churn_low`, `churn_high`, `churn_floor` (mean over the `floor_pairs` pairs of the
        baseline's replicates), `only_variant`, `only_against` (means), `significant` (pairs with McNemar's p below
        0.05). The churn of a baseline is that between its replicates. Missing values are nan.
    """
    compared = churn_frame(found)
    is_floor = compared["variant"] == compared["against"]
    rows = []
    for name, kept in found.by_variant.items():
        baseline = found.baselines.get(name, "")
        pairs = compared[(compared["variant"] == name) & (is_floor | (name != baseline))]
        floor = compared.loc[is_floor & (compared["variant"] == baseline), "churn"]
        eces = [each.ece for each in kept.values()]
        top5 = [math.nan if each.top5 is None else each.top5 for each in kept.values()]
        rows.append(
            {
                "variant": name,
                "baseline": baseline,
                "n": len(kept),
                "images": max(map(len, kept.values())),
                "top1": float(np.mean([each.top1 for each in kept.values()])),
                "top5": float(np.mean(top5)),
                "ece": float(np.mean(eces)),
                "ece_low": min(eces),
                "ece_high": max(eces),
                "pairs": len(pairs),
                **{"churn": pairs["churn"].mean(), "churn_low": pairs["churn"].min()},
                **{"churn_high": pairs["churn"].max(), "churn_floor": floor.mean(), "floor_pairs": len(floor)},
                **{key: pairs[key].mean() for key in ("only_variant", "only_against")},
                "significant": int((pairs["p"] < ALPHA).sum()),
            }
        )
    return pd.DataFrame(rows)


def classes_frame(found: StudyPredictions) -> pd.DataFrame:
    """Returns the accuracy of each class, and its difference to the baseline.

    Returns:
        A row per variant and class: `variant`, `class`, `label`, `images` of the class, `n`, `accuracy` in percent
        (mean over replicates), `difference` to the baseline in points, paired by replicate, with the bounds `low` and
        `high` of its 95 % CI (Student's t, not corrected for multiplicity); nan for baselines, and bounds if n is 1.
    """
    rows = []
    for name, kept in found.by_variant.items():
        accuracies = np.array([_by_class(each) for each in kept.values()])
        pairs = np.array([_by_class(each) - _by_class(reference) for _, each, reference in found.pairs(name)])
        is_compared = name in found.compared and len(pairs) > 0
        images = np.mean([np.bincount(each.labels, minlength=each.classes) for each in kept.values()], axis=0)
        for label, text in enumerate(found.classes):
            differences = pairs[:, label] if is_compared else np.array([])
            differences = differences[~np.isnan(differences)]
            mean = estimate(differences) if len(differences) else None
            bounds = (mean.mean, mean.low, mean.high) if mean else (math.nan,) * 3
            accuracy = float(np.mean(accuracies[:, label]))
            rows.append((name, text, label, images[label], len(kept), accuracy, *bounds))
    columns = ["variant", "class", "label", "images", "n", "accuracy", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _by_class(predictions: Predictions) -> NDArray[np.float64]:
    """Returns the accuracy of each class in percent, (classes,); nan for a class without test images."""
    labels, classes = predictions.labels, predictions.classes
    images = np.bincount(labels, minlength=classes)
    right = np.bincount(labels, weights=predictions.right, minlength=classes)
    accuracy: NDArray[np.float64] = np.divide(100 * right, images, out=np.full(classes, math.nan), where=images > 0)
    return accuracy


def confusion_matrix(found: StudyPredictions, variant: str) -> NDArray[np.float64]:
    """Returns the confusion matrix over all replicates, (classes, classes): rows are true classes, in percent of a row.

    A class without test images has a row of nan.
    """
    classes = len(found.classes)
    kept = found.by_variant[variant].values()
    cells = np.concatenate([each.labels.astype(np.int64) * classes + each.predicted for each in kept])
    counts = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    totals = counts.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(
        100 * counts, totals, out=np.full((classes, classes), math.nan), where=totals > 0
    )
    return shares


def calibration_frame(found: StudyPredictions) -> pd.DataFrame:
    """Returns a row per variant and non-empty bin of confidence, over the predictions of all replicates.

    Columns: `variant`, `low` and `high` (edges of the bin), `count`, `confidence` and `accuracy` (means, as shares).
    """
    rows = []
    for name, kept in found.by_variant.items():
        confidences = np.concatenate([each.confidences for each in kept.values()])
        bins = Calibration.of(confidences, np.concatenate([each.right for each in kept.values()]))
        for index in np.flatnonzero(bins.counts):
            means = float(bins.confidence[index]), float(bins.accuracy[index])
            rows.append((name, index / BINS, (index + 1) / BINS, int(bins.counts[index]), *means))
    return pd.DataFrame(rows, columns=["variant", "low", "high", "count", "confidence", "accuracy"])
