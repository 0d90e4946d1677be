"""Studies with fabricated cells and stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ablations.analysis.study import StudyAnalysis
from ablations.storage.files import PredictionFiles
from ablations.training.predictions import Predictions
from tests.builders.analyses import GROUPS, study_analysis


def some_predictions(classes: int, images: int, seed: Sequence[int], skill: float = 2.5) -> Predictions:
    """Random predictions, more accurate with higher `skill`; the labels do not depend on the seed."""
    labels = np.random.default_rng(0).permutation(np.arange(images) % classes)
    logits = np.random.default_rng(list(seed)).normal(size=(images, classes))
    logits[np.arange(images), labels] += skill
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ranks = (logits > logits[np.arange(images), labels][:, None]).sum(1)
    return Predictions.of(classes, labels, logits.argmax(1), ranks, shares.max(1))


def predicted_study(
    folder: Path, overrides: Sequence[str] = GROUPS, replicates: int = 2, classes: int = 10, images: int = 200
) -> StudyAnalysis:
    """A study with stored predictions and their top-1, which increases from variant to variant."""

    def predictions_of(variant: int, replicate: int) -> Predictions:
        return some_predictions(classes, images, (variant, replicate), 2.5 + 0.2 * variant)

    analysis = study_analysis(folder, overrides, replicates, top1=lambda *cell: predictions_of(*cell).top1)
    names = [f"class {number}" for number in range(classes)]
    data = {"classes": names, "train": 2048, "test": images}
    files = PredictionFiles(folder / "predictions")
    for index, variant in enumerate(analysis.design.variants):
        for replicate in range(replicates):
            files.write(analysis.design.cell(variant, replicate), predictions_of(index, replicate).to_bytes())
    return replace(analysis, attributes={**analysis.attributes, "data": data})
