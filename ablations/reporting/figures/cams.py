"""Class activation maps of variants side by side, on test images.

Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of the true class, at the last feature map before the classifier.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.observe import Sample
from ablations.common.wording import count
from ablations.reporting.figures import style

_IMAGES, _VARIANTS = 5, 6  # shown


@dataclass(frozen=True)
class Cams:
    """Maps of some test images: `images`, uint8 (N, H, W, 3), and `maps` by variant, (N, H, W) from 0 to 1.

    `frame` has one row per image and variant: `image` (its index), `class`, `variant`, `taken_for` (the predicted
    class), `probability` of the true class, and `focus`, the smallest share of pixels with half of the map's sum.
    `left_out` is the number of variants not shown.
    """

    frame: pd.DataFrame
    images: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float32]]
    left_out: int


def cams_of(networks: TrainedNetworks) -> Cams:
    """Computes maps of the first image of up to five equally spaced classes."""
    sample, classes = networks.sample, networks.classes
    shown = np.unique(np.linspace(0, len(classes) - 1, min(_IMAGES, len(classes))).round().astype(int))
    first = [int((sample.labels == int(label)).nonzero()[0]) for label in shown]
    chosen = Sample(sample.pixels[first], sample.labels[first], sample.shown[first])
    rows: list[dict[str, Any]] = []
    maps = {}
    for variant, model in networks.loaded(networks.variants[:_VARIANTS]):
        own, probabilities = class_activation_maps(model, chosen.pixels, chosen.labels)
        maps[variant.name] = own
        for image, (label, chances) in enumerate(zip(chosen.labels.tolist(), probabilities, strict=True)):
            row = {"image": image, "class": classes[label], "variant": variant.name}
            row |= {"taken_for": classes[int(chances.argmax())], "probability": float(chances[label])}
            rows.append(row | {"focus": focus(own[image])})
    return Cams(pd.DataFrame(rows), chosen.shown, maps, max(0, len(networks.variants) - _VARIANTS))


def class_activation_maps(
    model: nn.Module, pixels: Tensor, labels: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns each image's map for its class, (N, H, W) from 0 to 1, and the probabilities, (N, classes).

    Channels of the feature map are weighted by the mean gradient of the true class's logit and summed; negative values
    become 0. `model` is in evaluation mode, in which logits of images are independent.
    """
    features: list[Tensor] = []
    handle = last_map(model, pixels[:1]).register_forward_hook(lambda _module, _given, made: features.append(made))
    try:
        with torch.enable_grad():
            logits = model(pixels.detach().requires_grad_())  # so that networks with frozen weights also have gradients
            true = logits.gather(1, labels[:, None].long()).sum()
            (gradient,) = torch.autograd.grad(true, features[-1])
    finally:
        handle.remove()
    weights = gradient.mean((2, 3), keepdim=True)
    maps = _from_0_to_1((weights * features[-1].detach()).sum(1, keepdim=True).relu())
    maps = F.interpolate(maps, pixels.shape[2:], mode="bilinear", align_corners=False)
    return _from_0_to_1(maps)[:, 0].numpy(), logits.detach().softmax(1).numpy()


def _from_0_to_1(maps: Tensor) -> Tensor:
    """Scales each of (N, 1, H, W) maps to 0 to 1; a constant map becomes 0."""
    maps = maps - maps.amin((2, 3), keepdim=True)
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def last_map(model: nn.Module, pixels: Tensor) -> nn.Module:
    """Returns the module whose output is the last feature map larger than 1x1: the end of the last stage."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[-1] > 1 and module is not model:
            found.append(module)

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(note))
        model(pixels)
    return found[-1]


def focus(cam: NDArray[np.float32]) -> float:
    """Returns the smallest share of pixels with half of a map's sum; NaN if the map is 0 everywhere."""
    falling = np.sort(cam.astype(np.float64).ravel())[::-1].cumsum()
    if falling[-1] <= 0:
        return float("nan")
    return float((np.searchsorted(falling, falling[-1] / 2) + 1) / falling.size)


def draw_cams(cams: Cams, caption: str) -> Figure:
    """Draws a row per image and a column per variant, after the image; light areas support the true class."""
    variants = list(cams.maps)
    if cams.left_out:
        caption = f"{caption} Not shown: {count(cams.left_out, 'more variant')}."
    names = ["\n".join(style.shorten(line, 19) for line in style.fold(name, 15)) for name in variants]
    columns = len(variants) + 1
    side = min(style.TWO_COLUMNS / columns, 1.25)
    head = 0.13 * max(name.count("\n") + 1 for name in names) + 0.1
    with style.figure(max(side * columns, 3.4), (side + 0.28) * len(cams.images) + head, caption) as drawn:
        grid = drawn.subplots(len(cams.images), columns, squeeze=False)
        for image, row in enumerate(grid):
            for axes in row:
                axes.set_axis_off()
            row[0].imshow(cams.images[image], interpolation="nearest")
            own = cams.frame[cams.frame["image"] == image]
            row[0].set_title(style.shorten(own["class"].iloc[0], 14), loc="left", fontsize=6.5, pad=2)
            grey = cams.images[image].mean(2)
            for axes, variant in zip(row[1:], variants, strict=True):
                axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axes.imshow(cams.maps[variant][image], cmap="inferno", vmin=0, vmax=1, alpha=0.6)
                said = _answer(own[own["variant"] == variant].to_dict("records")[0])
                axes.text(0.5, -0.03, said, transform=axes.transAxes, ha="center", va="top", fontsize=5.6)
        for axes, name in zip(grid[0, 1:], names, strict=True):
            axes.set_title(name, fontsize=6.2, pad=3)
    return drawn


def _answer(row: dict[Hashable, Any]) -> str:
    """Returns the predicted class and the probability of the true class."""
    wrong = "" if row["taken_for"] == row["class"] else "wrong, "
    return f"{style.shorten(row['taken_for'], 16)}\n{wrong}p = {row['probability']:.2f}"
