"""Evaluates a network: on all test images after the last epoch, on a fixed sample of them after earlier epochs.

Reported results use all test images. Earlier epochs are tested for learning curves and for pruning a search only. Their
sample is the same after every epoch and for every cell: stratified by class and evenly spaced.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ablations.config import TrainConfig
from ablations.data.device import DeviceImages
from ablations.training.learner import forward
from ablations.training.predictions import Predictions

_SAMPLE = (100, 1000)  # minimum and maximum size of the sample
_SHARE = 8  # the sample has one in 8 test images
# Pixels of a batch of test images. On a CPU, feature maps should fit into the caches: batches of 64 images of 32x32
# pixels are 1.6 times (bf16) and 2.5 times (fp32) as fast as batches of 512.
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 64 * 32 * 32, 512 * 32 * 32
_FEWEST = 8  # minimum batch size on a CPU


@dataclass(frozen=True)
class Evaluation:
    """The test result of a network: mean cross-entropy without label smoothing, and predictions."""

    loss: float
    predictions: Predictions


def sample_size(test_images: int) -> int:
    """Returns the number of test images that are evaluated after each epoch but the last."""
    fewest, most = _SAMPLE
    return min(test_images, max(fewest, min(most, test_images // _SHARE)))


def test_batch_size(recipe: TrainConfig, images: DeviceImages) -> int:
    """Returns the batch size for test images."""
    pixels = images.augmentation.side**2
    if images.device.type == "cpu":
        return max(_FEWEST, _PIXELS_ON_CPU // pixels)
    return max(recipe.batch_size, _PIXELS_ON_GPU // pixels)


def evaluate(model: nn.Module, recipe: TrainConfig, images: DeviceImages, most: int | None = None) -> Evaluation:
    """Tests a network on all test images, or on a sample of at most `most` images."""
    model.eval()
    loss = torch.zeros((), device=images.device, dtype=torch.float64)
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for pixels, labels in images.test_batches(test_batch_size(recipe, images), most):
            logits = forward(model, recipe, pixels)
            if recipe.test_flip:
                logits = (logits + forward(model, recipe, pixels.flip(3))) / 2
            loss += F.cross_entropy(logits, labels, reduction="sum")
            predicted = logits.argmax(1)
            higher = (logits > logits.gather(1, labels[:, None])).sum(1)
            # If several classes share the highest logit, only the predicted one has rank 0.
            ranks = torch.where(predicted == labels, 0, higher.clamp(min=1))
            parts.append((labels, predicted, ranks, logits.softmax(1).amax(1)))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    predictions = Predictions.of(len(images.classes), *columns)
    return Evaluation(loss.item() / len(predictions), predictions)
