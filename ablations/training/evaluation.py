"""How a network is tested: on all test images at the last epoch, on a sample of them after epochs before it.

What is reported is of all. What earlier epochs are tested for, learning curves and the pruning of a search, needs no
more than a sample, which is the same after every epoch and for every cell: the same share of each class, evenly spaced.
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

_SAMPLE = (100, 1000)  # fewest and most test images after an epoch that is not the last
_SHARE = 8  # one in so many
# Of a batch of test images. On a CPU feature maps are to stay in the caches: batches of 64 images of 32x32 pixels are
# tested 1.6 (bf16) and 2.5 times (fp32) as fast as batches of 512.
_PIXELS_ON_CPU, _PIXELS_ON_GPU = 64 * 32 * 32, 512 * 32 * 32
_FEWEST = 8


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of test images: their mean cross-entropy without label smoothing, and its predictions."""

    loss: float
    predictions: Predictions


def sample_size(test_images: int) -> int:
    """Returns how many test images are looked at after an epoch that is not the last."""
    fewest, most = _SAMPLE
    return min(test_images, max(fewest, min(most, test_images // _SHARE)))


def test_batch_size(recipe: TrainConfig, images: DeviceImages) -> int:
    """Returns how many test images are looked at together."""
    pixels = images.augmentation.side**2
    if images.device.type == "cpu":
        return max(_FEWEST, _PIXELS_ON_CPU // pixels)
    return max(recipe.batch_size, _PIXELS_ON_GPU // pixels)


def evaluate(model: nn.Module, recipe: TrainConfig, images: DeviceImages, most: int | None = None) -> Evaluation:
    """Tests a network on all test images, or on a sample of so many where there are more."""
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
            # Of equal logits one is predicted: the others are not.
            ranks = torch.where(predicted == labels, 0, higher.clamp(min=1))
            parts.append((labels, predicted, ranks, logits.softmax(1).amax(1)))
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    predictions = Predictions.of(len(images.classes), *columns)
    return Evaluation(loss.item() / len(predictions), predictions)
