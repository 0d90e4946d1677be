from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ablations.training.predictions import Calibration, Predictions


def logits_and_labels(
    classes: int, count: int, seed: int, skill: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns logits of `count` images, on average higher for the true class, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=count)
    logits = draw.normal(size=(count, classes))
    logits[np.arange(count), labels] += skill
    return logits, labels


def predictions_of(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Predictions:
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
    return Predictions.of(logits.shape[1], labels, logits.argmax(1), ranks, shares.max(1))


@given(st.sampled_from([2, 5, 6, 10, 256, 257, 1000]), st.integers(1, 200), st.integers(0, 9))
def test_a_file_preserves_predictions(classes: int, count: int, seed: int) -> None:
    written = predictions_of(*logits_and_labels(classes, count, seed))
    read = Predictions.from_bytes(written.to_bytes())
    for name in ("labels", "predicted", "ranks", "steps"):
        assert np.array_equal(getattr(read, name), getattr(written, name)), name
        assert getattr(read, name).dtype == getattr(written, name).dtype, name
    assert (read.classes, read.ece, read.top5) == (written.classes, written.ece, written.top5)


def test_10_000_images_of_10_classes_take_at_most_20_kilobytes() -> None:
    logits, labels = logits_and_labels(10, 10_000, 0, skill=4.0)
    found = predictions_of(logits, labels)
    assert 85 < found.top1 < 99
    assert 10_000 < len(found.to_bytes()) < 20_000


@given(st.integers(2, 20), st.integers(1, 100), st.integers(0, 9))
def test_accuracies_match_those_from_the_logits(classes: int, count: int, seed: int) -> None:
    logits, labels = logits_and_labels(classes, count, seed)
    found = predictions_of(logits, labels)
    order = np.argsort(-logits, axis=1)
    assert found.top1 == pytest.approx(100 * (order[:, 0] == labels).mean())
    if classes > 5:
        assert found.top5 == pytest.approx(100 * (order[:, :5] == labels[:, None]).any(1).mean())
    else:
        assert found.top5 is None


@pytest.mark.parametrize("damage", ["empty", "text", "cut off", "other arrays", "lengths", "labels"])
def test_an_invalid_file_is_rejected(damage: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = predictions_of(*logits_and_labels(10, 50, 0))
    whole = found.to_bytes()
    content = {"empty": b"", "text": b"no predictions", "cut off": whole[:-40]}.get(damage)
    if content is None:
        path = tmp_path_factory.mktemp("file") / "it.npz"
        arrays = {"labels": found.labels, "shifts": found.labels, "ranks": found.ranks, "classes": np.array(10)}
        arrays["confidences"] = np.zeros(50, dtype=np.uint8)
        if damage == "other arrays":
            arrays = {"weights": found.labels}
        elif damage == "lengths":
            arrays["ranks"] = arrays["ranks"][:-1]
        else:
            arrays["labels"] = arrays["labels"] + 9
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        content = path.read_bytes()
    with pytest.raises(ValueError, match=r".") as caught:
        Predictions.from_bytes(content)
    assert len(str(caught.value).splitlines()) == 1


def test_calibration_error_is_the_mean_gap_of_15_bins_weighted_by_their_predictions() -> None:
    # Three bins: 0.6 to 0.667 (two, one correct), 0.867 to 0.933 (two, both correct), 0.933 to 1 (one, wrong).
    confidences, right = np.array([0.62, 0.64, 0.9, 0.92, 1.0]), np.array([True, False, True, True, False])
    found = Calibration.of(confidences, right)
    assert found.counts.tolist() == [0] * 9 + [2, 0, 0, 0, 2, 1]
    assert found.confidence[[9, 13, 14]] == pytest.approx([0.63, 0.91, 1.0])
    assert found.accuracy[[9, 13, 14]] == pytest.approx([0.5, 1.0, 0.0])
    assert math.isnan(found.accuracy[0])
    assert found.error == pytest.approx(100 * (2 * 0.13 + 2 * 0.09 + 1.0) / 5)


@pytest.mark.parametrize(("confidence", "place"), [(1 / 15, 0), (17 / 255, 0), (0.1, 1), (3 / 15, 2), (1.0, 14)])
def test_a_bin_includes_its_upper_edge_and_excludes_its_lower_one(confidence: float, place: int) -> None:
    counts = Calibration.of(np.array([confidence]), np.array([True])).counts
    assert counts.nonzero()[0].tolist() == [place]


def test_perfectly_calibrated_predictions_have_no_calibration_error() -> None:
    confidences = np.repeat([0.25, 0.75], [400, 400])
    right = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0])
    assert Calibration.of(confidences, right).error == pytest.approx(0)
    assert Calibration.of(confidences, ~right).error == pytest.approx(50)
