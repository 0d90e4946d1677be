"""RandAugment (Cubuk et al. 2020) on batches of bytes: every image gets operations of its own.

torchvision's `v2.RandAugment` draws one set of operations per call, the same for all images of a batch, from the global
generator. Here the operations of an epoch are drawn per image on the CPU, from a stream of their own, and images that
get the same operation are changed together, by torchvision's own functions. For two operations on images of 32x32
pixels, one core of a CPU took, per 32 images:

    9.1 to 10.1 ms   a call of v2.RandAugment per image
    1.5 to 1.7 ms    a call per 8 images, which share operations
    0.6 to 0.8 ms    a call per 32 images, which share operations
    0.6 ms           this, on 1,024 images at once
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

BINS = 31  # of the magnitude, as the paper has them
# The operations of torchvision's RandAugment, whose magnitudes these are: whether the sign is random, and the
# magnitude at the weakest and at the strongest bin. Shifts are in shares of the image.
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
    """So many operations an image, one after the other, each drawn from 14 with equal probability.

    Args:
        operations: how many.
        magnitude: the bin that all operations take their magnitude from, 0 to 30.
    """

    operations: int
    magnitude: int

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Draws the operations of `count` images, (count, operations): twice the number of each, and 1 if negative."""
        signed = torch.tensor([has_sign for _, has_sign, *_ in _OPERATIONS])
        kinds = torch.randint(len(_OPERATIONS), (count, self.operations), generator=random)
        negative = (torch.randint(2, kinds.shape, generator=random) == 1) & signed[kinds]
        return 2 * kinds + negative

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Returns images, uint8 of shape (B, 3, H, W) on any device, after the operations drawn for them.

        Args:
            images: uint8 of shape (B, 3, H, W).
            drawn: their rows of what `draw` returns, on the CPU, where it is known without waiting for a device.
        """
        for codes in drawn.unbind(1):
            codes, order = codes.sort(stable=True)
            found, counts = codes.unique_consecutive(return_counts=True)
            # Not blocking: the device would finish all that it has to do first.
            order, back = (places.to(images.device, non_blocking=True) for places in (order, order.argsort()))
            parts = images.index_select(0, order).split(counts.tolist())
            changed = [
                self._changed(part, code // 2, code % 2) for code, part in zip(found.tolist(), parts, strict=True)
            ]
            images = torch.cat(changed).index_select(0, back)
        return images

    def _changed(self, images: Tensor, kind: int, negative: int) -> Tensor:
        name, _, weakest, strongest = _OPERATIONS[kind]
        side = images.shape[-1] if name.startswith("translate") else 1
        # In single precision as torchvision has it: a shift of 4.999 pixels and one of 5 differ by a pixel.
        magnitude = float(torch.linspace(weakest, strongest * side, BINS)[self.magnitude])
        return _functions()[name](images, -magnitude if negative else magnitude)


@cache
def _functions() -> dict[str, Callable[[Tensor, float], Tensor]]:
    """Returns torchvision's functions by the names of operations; imported late, as it takes seconds."""
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
