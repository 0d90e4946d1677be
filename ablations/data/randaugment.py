"""RandAugment (Cubuk et al. 2020) on batches of uint8 images, with operations drawn per image.

torchvision's `v2.RandAugment` draws operations once per call, for all images of a batch, from the global generator.
Here the operations of an epoch are drawn per image on the CPU, from a separate stream, and images with the same
operation are processed together by torchvision's functions. For two operations on images of 32x32 pixels, one CPU core
took, per 32 images:

    9.1 to 10.1 ms   one call of v2.RandAugment per image
    1.5 to 1.7 ms    one call per 8 images, which share operations
    0.6 to 0.8 ms    one call per 32 images, which share operations
    0.6 ms           this implementation, on 1,024 images at once
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

BINS = 31  # of the magnitude, as in the paper
# The operations and magnitudes of torchvision's RandAugment: whether the sign is random, and the magnitude of the
# weakest and strongest bin. Shifts are shares of the image.
_OPERATIONS: tuple[tuple[str, bool, float, float], ...] = (
    ("identity", False, 0.0, 0.0),
    ("shear_x", True, 0.0, 0.3),
    ("shear_y", True, 0.0, 0.3),
    ("translate_x", True, 0.0, 150 / 331),
    ("translate_y", True, 0.0, 150 / 331),
    ("rotate", True, 0.0, 30.0),
    ("brightness", True, 0.0, 0.9),
    ("color", True, 0.0, 0.9),
    ("contrast", True, 0.0, 0.9),
    ("sharpness", True, 0.0, 0.9),
    ("posterize", False, 8.0, 4.0),
    ("solarize", False, 1.0, 0.0),
    ("autocontrast", False, 0.0, 0.0),
    ("equalize", False, 0.0, 0.0),
)
NAMES = tuple(name for name, *_ in _OPERATIONS)


@dataclass(frozen=True)
class RandAugment:
    """Applies several operations to each image in sequence, each drawn from 14 with equal probability.

    Args:
        operations: number of operations per image.
        magnitude: bin of the magnitude of all operations, 0 to 30.
    """

    operations: int
    magnitude: int

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Draws codes for `count` images, (count, operations): twice the index of an operation, plus 1 if negative."""
        signed = torch.tensor([has_sign for _, has_sign, *_ in _OPERATIONS])
        kinds = torch.randint(len(_OPERATIONS), (count, self.operations), generator=random)
        negative = (torch.randint(2, kinds.shape, generator=random) == 1) & signed[kinds]
        return 2 * kinds + negative

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Applies the drawn operations to images.

        Args:
            images: uint8 of shape (B, 3, H, W) on any device.
            drawn: codes from `draw`, (B, operations), on the CPU, so that reading them does not wait for the device.
        """
        for codes in drawn.unbind(1):
            codes, order = codes.sort(stable=True)
            distinct, counts = codes.unique_consecutive(return_counts=True)
            # Blocking transfers would wait until the device has finished its queue.
            order, back = (index.to(images.device, non_blocking=True) for index in (order, order.argsort()))
            parts = zip(distinct.tolist(), images.index_select(0, order).split(counts.tolist()), strict=True)
            changed = [self._changed(part, code // 2, code % 2) for code, part in parts]
            images = torch.cat(changed).index_select(0, back)
        return images

    def _changed(self, images: Tensor, kind: int, negative: int) -> Tensor:
        name, _, weakest, strongest = _OPERATIONS[kind]
        side = images.shape[-1] if name.startswith("translate") else 1
        # In single precision like torchvision: shifts of 4.999 and 5 pixels differ by a pixel.
        magnitude = float(torch.linspace(weakest, strongest * side, BINS)[self.magnitude])
        return _functions()[name](images, -magnitude if negative else magnitude)


@cache
def _functions() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """Returns torchvision's functions by the names of operations; imported late, because it takes seconds."""
    from torchvision.transforms.v2 import functional

    def sheared(images: Tensor, x: float, y: float) -> Tensor:
        slopes = [math.degrees(math.atan(slope)) for slope in (x, y)]
        changed: Tensor = functional.affine(images, 0.0, [0, 0], 1.0, slopes, center=[0, 0])
        return changed

    def shifted(images: Tensor, x: float, y: float) -> Tensor:
        changed: Tensor = functional.affine(images, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])
        return changed

    return {
        "identity": lambda images, _: images,
        "shear_x": lambda images, slope: sheared(images, slope, 0.0),
        "shear_y": lambda images, slope: sheared(images, 0.0, slope),
        "translate_x": lambda images, pixels: shifted(images, pixels, 0.0),
        "translate_y": lambda images, pixels: shifted(images, 0.0, pixels),
        "rotate": functional.rotate,
        "brightness": lambda images, change: functional.adjust_brightness(images, 1 + change),
        "color": lambda images, change: functional.adjust_saturation(images, 1 + change),
        "contrast": lambda images, change: functional.adjust_contrast(images, 1 + change),
        "sharpness": lambda images, change: functional.adjust_sharpness(images, 1 + change),
        "posterize": lambda images, bits: functional.posterize(images, round(bits)),
        "solarize": lambda images, share: functional.solarize(images, 255 * share),
        "autocontrast": lambda images, _: functional.autocontrast(images),
        "equalize": lambda images, _: functional.equalize(images),
    }
