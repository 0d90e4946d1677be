"""A trained network's predictions on the test images, and the file that keeps them.

A file is what `numpy.savez_compressed` makes of these arrays, with an entry an image in the order of the test set:

    labels        the true class, uint8 or uint16
    shifts        the predicted class less the true one, modulo the number of classes: 0 where it is right
    ranks         how many classes have a higher logit than the true one, at most 255; uint8
    confidences   softmax probability of the predicted class in steps of 1/255, uint8
    classes       how many classes there are

Of 10,000 images of 10 classes it takes 17 KB at 93 % top-1. Predicted classes as they are would take 4 KB more, all
top-5 classes 18 KB, confidences as float16 7 KB, for an ECE that differs by .001 points. The labels are in each file,
as replicates may be tested on images of their own.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablations.common.wording import first_line

BINS = 15  # of confidence, as Guo et al. 2017 have them
TOP = 5
_STEPS = 255  # of a confidence
_LOWEST_RANK = 255

Classes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's predictions on test images; all arrays are of shape (N,), in the order of the test set.

    Attributes:
        classes: how many there are.
        labels: the true classes, uint8 or uint16.
        predicted: the classes with the highest logit, likewise.
        ranks: how many classes have a higher logit than the true one, at most 255; 0 where it is predicted.
        steps: softmax probability of the predicted class in steps of 1/255.
    """

    classes: int
    labels: Classes
    predicted: Classes
    ranks: NDArray[np.uint8]
    steps: NDArray[np.uint8]

    @classmethod
    def of(cls, classes: int, labels: Any, predicted: Any, ranks: Any, confidences: Any) -> Predictions:
        """Makes predictions of whatever arrays, rounding ranks and confidences as a file does."""
        steps = np.rint(_STEPS * np.nan_to_num(np.asarray(confidences, dtype=np.float64)))
        return cls(
            classes,
            _small(classes, labels),
            _small(classes, predicted),
            np.minimum(ranks, _LOWEST_RANK).astype(np.uint8),
            steps.astype(np.uint8),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def confidences(self) -> NDArray[np.float64]:
        """Softmax probability of each predicted class."""
        confidences: NDArray[np.float64] = self.steps / _STEPS
        return confidences

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image's class is predicted."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right

    @property
    def top1(self) -> float:
        """Share of images whose class is predicted, in percent."""
        return 100 * int(self.right.sum()) / len(self)

    @property
    def top5(self) -> float | None:
        """Share of images whose class is among the five highest logits, in percent; None of up to five classes."""
        return 100 * int((self.ranks < TOP).sum()) / len(self) if self.classes > TOP else None

    @property
    def ece(self) -> float:
        """The expected calibration error in percent; see `Calibration`."""
        return Calibration.of(self.confidences, self.right).error

    def to_bytes(self) -> bytes:
        """Returns the content of a file."""
        written = io.BytesIO()
        np.savez_compressed(
            written,
            labels=self.labels,
            shifts=_small(self.classes, (self.predicted.astype(np.int64) - self.labels) % self.classes),
            ranks=self.ranks,
            confidences=self.steps,
            classes=np.array(self.classes),
        )
        return written.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Predictions:
        """Reads the content of a file; raises ValueError if it is none."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                labels, shifts, ranks, steps = (kept[name] for name in ("labels", "shifts", "ranks", "confidences"))
                classes = int(kept["classes"])
                predicted = (labels.astype(np.int64) + shifts) % classes
        except Exception as error:  # what a damaged file makes numpy and zipfile raise is of many kinds
            raise ValueError(first_line(error)) from error
        if not len(labels) == len(ranks) == len(steps) > 0 or labels.max() >= classes:
            raise ValueError("its arrays have inconsistent shapes")
        return cls(classes, _small(classes, labels), _small(classes, predicted), ranks, steps)


def _small(classes: int, labels: Any) -> Classes:
    """Returns classes in as few bytes as so many of them need."""
    return np.asarray(labels).astype(np.uint8 if classes <= 256 else np.uint16)


@dataclass(frozen=True, eq=False)
class Calibration:
    """How confident predictions were and how often they were right, in bins of confidence of equal width.

    Attributes:
        counts: predictions in each bin, (bins,).
        confidence, accuracy: their means in each bin as shares, (bins,); nan where a bin has none.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @classmethod
    def of(cls, confidences: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
        """Sorts predictions by their confidence; a bin has its upper edge and lacks its lower one."""
        place = np.clip(np.ceil(confidences * bins - 1e-9).astype(np.int64) - 1, 0, bins - 1)
        counts = np.bincount(place, minlength=bins)
        sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidences, right))
        means = (np.divide(total, counts, out=np.full(bins, math.nan), where=counts > 0) for total in sums)
        return cls(counts, *means)

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017) in percent: the mean gap, weighted by predictions."""
        gaps = np.abs(self.confidence - self.accuracy)
        return 100 * float(np.nansum(gaps * self.counts) / self.counts.sum())
