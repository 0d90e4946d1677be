"""The predictions of a study's networks on the test images, read from the files that were kept; nothing is trained.

Two networks are compared on the same images: by their churn, the share of images for which they predict different
classes, and by McNemar's exact test of the images that only one of them has right. Both are about two trained networks,
a variant's and its baseline's of one replicate, not about two methods: another seed changes predictions, too. How many,
the churn between replicates of the baseline says, which is the floor that a variant's churn is to be compared with.
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
_NAMED = 3  # cells whose files cannot be read


@dataclass(frozen=True)
class StudyPredictions:
    """The predictions of a study's finished cells that were kept.

    Attributes:
        by_variant: those of each variant that is shown, by replicate; no variant without any.
        baselines: what each of these variants is compared with, by name; baselines are their own.
        classes: the names of the labels.
        same_images: whether all replicates were tested on the same images.
        note: which finished cells are left out, and why; empty where none is.
        unread: the cells whose predictions are there and cannot be read, with the reasons.
        reference: the variant that all others are compared with instead of their baselines; otherwise empty.
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
        """Whether one variant is compared with another one that was named."""
        return bool(self.reference) and len(self.by_variant) == 2

    @property
    def compared_with(self) -> str:
        """What variants are compared with, in words."""
        return self.reference or "the baseline"

    def against(self, asked: object) -> StudyPredictions:
        """Returns the predictions with another comparison.

        `asked` is the variant that all others are compared with, or a list of two: the first is compared with the
        second, and others are left out.

        Raises:
            UsageError: if there are no predictions of these variants.
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
        """How many test images a network was tested on."""
        return max(len(one) for kept in self.by_variant.values() for one in kept.values())

    @property
    def compared(self) -> list[str]:
        """The variants that have a baseline other than themselves, of which predictions are there, too."""
        return [name for name in self.by_variant if self._baseline(name) not in (None, name)]

    def pairs(self, variant: str) -> Iterator[tuple[int, Predictions, Predictions]]:
        """Yields the replicates that a variant and its baseline have, with the predictions of both."""
        baseline = self._baseline(variant)
        for replicate, own in self.by_variant[variant].items():
            other = self.by_variant[baseline].get(replicate) if baseline else None
            if other is not None and np.array_equal(own.labels, other.labels):
                yield replicate, own, other

    def _baseline(self, variant: str) -> str | None:
        baseline = self.baselines.get(variant)
        return baseline if baseline in self.by_variant else None


def kept_predictions(analysis: StudyAnalysis) -> StudyPredictions:
    """Reads what a study kept; a file that is missing, damaged or of another training leaves out that replicate.

    Raises:
        UsageError: if no file can be read.
    """
    design, files = analysis.design, PredictionFiles(analysis.folder / "predictions")
    classes = tuple(map(str, analysis.attributes["data"]["classes"]))
    cells = analysis.results.cells
    stored: dict[str, dict[int, float]] = {}
    for name, replicate, top1 in zip(cells["variant"], cells["replicate"], cells["top1"], strict=True):
        stored.setdefault(str(name), {})[int(replicate)] = float(top1)
    found: dict[str, dict[int, Predictions]] = {}
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
                found.setdefault(variant.name, {})[replicate] = kept
    note = _note(missing, unread)
    if not found:
        reason = f"no predictions are saved in {files.folder}; `run study=<another name> predictions=all` saves them"
        raise UsageError("study", design.study, f"{reason}. {note}" if unread else reason)
    same_images = design.protocol["data"].get("seed") != "replicate"
    files_of = {f"predictions of {cell}": f"cannot be read ({reason})" for cell, reason in unread.items()}
    return StudyPredictions(found, design.baselines, classes, same_images, note, files_of)


def _note(missing: int, unread: Mapping[str, str]) -> str:
    parts = [f"Predictions of {count(missing, 'finished cell')} are missing."] if missing else []
    if unread:
        more = f" and {len(unread) - _NAMED} others" if len(unread) > _NAMED else ""
        named = ", ".join(f"{cell} ({reason})" for cell, reason in [*unread.items()][:_NAMED])
        parts.append(f"Unreadable predictions are left out: {named}{more}.")
    return " ".join(parts)


def mcnemar_p(only_one: int, only_other: int) -> float:
    """Returns the two-sided p of McNemar's exact test: so many images only one, and only the other network has right.

    It is the binomial test of a share of one half (McNemar 1947), as `scipy.stats.binomtest` has it, whose import takes
    longer than a report.
    """
    return min(1.0, 2 * float(bdtr(min(only_one, only_other), only_one + only_other, 0.5)))


def churn_frame(found: StudyPredictions) -> pd.DataFrame:
    """Compares networks two by two: each variant's with its baseline's, and the baselines' replicates with each other.

    Returns:
        A row a pair: `variant`, `replicate`, `against`, `against_replicate` (the same replicate, or another one of the
        same variant), `images`, `churn` in percent, `only_variant` and `only_against` (images that only one of both
        has right), `p` (of McNemar's exact test).
    """
    rows = []
    for name in found.compared:
        for replicate, own, other in found.pairs(name):
            rows.append((name, replicate, found.baselines[name], replicate, *_compared(own, other)))
    for name in dict.fromkeys(found.baselines[name] for name in found.by_variant if name in found.baselines):
        kept = found.by_variant.get(name, {}) if found.same_images else {}
        for first, second in combinations(kept, 2):
            rows.append((name, first, name, second, *_compared(kept[first], kept[second])))
    columns = ["variant", "replicate", "against", "against_replicate"]
    return pd.DataFrame(rows, columns=[*columns, "images", "churn", "only_variant", "only_against", "p"])


def _compared(one: Predictions, other: Predictions) -> tuple[int, float, int, int, float]:
    only_one, only_other = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    churn = 100 * float((one.predicted != other.predicted).mean())
    return len(one), churn, only_one, only_other, mcnemar_p(only_one, only_other)


def predictions_frame(found: StudyPredictions) -> pd.DataFrame:
    """Sums up each variant's predictions.

    Returns:
        A row a variant: `variant`, `baseline` (empty where there is none), `n` (replicates), `images`, `top1`, `top5`
        and `ece` in percent (means over replicates, with the lowest and highest ECE), `churn` in percent (mean, lowest
        and highest over `pairs` replicates), `churn_floor` (mean over the `floor_pairs` of the baseline's replicates),
        `only_variant` and `only_against` (means), `significant` (pairs with McNemar's p below 0.05). A baseline's own
        churn is that between its replicates. nan is what there is not.
    """
    compared = churn_frame(found)
    is_floor = compared["variant"] == compared["against"]
    rows = []
    for name, kept in found.by_variant.items():
        baseline = found.baselines.get(name, "")
        own = compared[(compared["variant"] == name) & (is_floor | (name != baseline))]
        floor = compared.loc[is_floor & (compared["variant"] == baseline), "churn"]
        eces = [one.ece for one in kept.values()]
        top5 = [math.nan if one.top5 is None else one.top5 for one in kept.values()]
        rows.append(
            {
                "variant": name,
                "baseline": baseline,
                "n": len(kept),
                "images": max(map(len, kept.values())),
                "top1": float(np.mean([one.top1 for one in kept.values()])),
                "top5": float(np.mean(top5)),
                "ece": float(np.mean(eces)),
                "ece_low": min(eces),
                "ece_high": max(eces),
                "pairs": len(own),
                **{"churn": own["churn"].mean(), "churn_low": own["churn"].min(), "churn_high": own["churn"].max()},
                **{"churn_floor": floor.mean(), "floor_pairs": len(floor)},
                **{key: own[key].mean() for key in ("only_variant", "only_against")},
                "significant": int((own["p"] < ALPHA).sum()),
            }
        )
    return pd.DataFrame(rows)


def classes_frame(found: StudyPredictions) -> pd.DataFrame:
    """Returns how often each class is recognised, and by how much more often than by the baseline.

    Returns:
        A row a variant and class: `variant`, `class`, `label`, `images` of the class, `n`, `accuracy` in percent (mean
        over replicates), `difference` in points to the baseline, paired by replicate, with the bounds `low` and `high`
        of its 95 % CI (Student's t, not corrected for how many there are); nan of baselines, and where n is 1.
    """
    rows = []
    for name, kept in found.by_variant.items():
        accuracies = np.array([_by_class(one) for one in kept.values()])
        pairs = np.array([_by_class(own) - _by_class(other) for _, own, other in found.pairs(name)])
        is_compared = name in found.compared and len(pairs) > 0
        images = np.mean([np.bincount(one.labels, minlength=one.classes) for one in kept.values()], axis=0)
        for label, text in enumerate(found.classes):
            differences = pairs[:, label] if is_compared else np.array([])
            differences = differences[~np.isnan(differences)]
            seen = estimate(differences) if len(differences) else None
            bounds = (seen.mean, seen.low, seen.high) if seen else (math.nan,) * 3
            accuracy = float(np.mean(accuracies[:, label]))
            rows.append((name, text, label, images[label], len(kept), accuracy, *bounds))
    columns = ["variant", "class", "label", "images", "n", "accuracy", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _by_class(one: Predictions) -> NDArray[np.float64]:
    """Returns the accuracy of each class in percent, (classes,); nan of a class without test images."""
    images = np.bincount(one.labels, minlength=one.classes)
    right = np.bincount(one.labels, weights=one.right, minlength=one.classes)
    accuracy: NDArray[np.float64] = np.divide(100 * right, images, out=np.full(one.classes, math.nan), where=images > 0)
    return accuracy


def confusion_matrix(found: StudyPredictions, variant: str) -> NDArray[np.float64]:
    """Returns how often each true class (rows) is taken for each class, in percent of the row, over all replicates.

    Of shape (classes, classes); a class without test images has a row of nan.
    """
    classes = len(found.classes)
    kept = found.by_variant[variant].values()
    places = np.concatenate([one.labels.astype(np.int64) * classes + one.predicted for one in kept])
    counts = np.bincount(places, minlength=classes**2).reshape(classes, classes)
    totals = counts.sum(1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(
        100 * counts, totals, out=np.full((classes, classes), math.nan), where=totals > 0
    )
    return shares


def calibration_frame(found: StudyPredictions) -> pd.DataFrame:
    """Returns a row a variant and bin of confidence that has predictions, those of all replicates together.

    Columns: `variant`, `low` and `high` (edges of the bin), `count`, `confidence` and `accuracy` (means, as shares).
    """
    rows = []
    for name, kept in found.by_variant.items():
        confidences = np.concatenate([one.confidences for one in kept.values()])
        bins = Calibration.of(confidences, np.concatenate([one.right for one in kept.values()]))
        for place in np.flatnonzero(bins.counts):
            means = float(bins.confidence[place]), float(bins.accuracy[place])
            rows.append((name, place / BINS, (place + 1) / BINS, int(bins.counts[place]), *means))
    return pd.DataFrame(rows, columns=["variant", "low", "high", "count", "confidence", "accuracy"])
