"""Decodes image files to 8-bit RGB squares, exactly as torchvision's `default_loader`, `Resize` and `CenterCrop`.

The exception are pixels of more than 8 bits, which Pillow's conversion to RGB would clip at 255. They are scaled, or
refused if their range is unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ablations.common.wording import first_line
from ablations.data.source import Decoded

_BITS = 16
_BITS_TAG, _PHOTOMETRIC_TAG = 258, 262  # of TIFF
_WHITE_IS_ZERO = 0


def decode_files(paths: Sequence[Path], side: int, root: Path, turn: bool) -> Decoded:
    """Decodes files to (n, 3, side, side); returns them with the reasons of failures by index.

    Args:
        paths: of the files.
        side: of the squares, in pixels.
        root: folder that paths in reasons are relative to.
        turn: whether to apply the EXIF orientation.
    """
    pixels = np.zeros((len(paths), 3, side, side), dtype=np.uint8)
    failures = {}
    for index, path in enumerate(paths):
        try:
            pixels[index] = square(path, side, turn).transpose(2, 0, 1)
        except Exception as error:  # Pillow's decoders may raise anything on invalid bytes
            reason = first_line(error).replace(str(path), path.name)
            failures[index] = f"{path.relative_to(root)} ({reason})"
    return pixels, failures


def square(path: Path, side: int, turn: bool = False) -> NDArray[np.uint8]:
    """Decodes an image, resizes its shorter side and crops the centre, (side, side, 3).

    Raises:
        ValueError: if the range of its pixel values is unknown.
        Exception: any that Pillow raises for a file that it cannot decode.
    """
    with warnings.catch_warnings(), Image.open(path) as opened:
        warnings.simplefilter("ignore")  # about metadata, which is not used
        image = ImageOps.exif_transpose(opened) if turn else opened
        colours = _of_eight_bits(image).convert("RGB")
    short, long = sorted(colours.size)
    longer = int(side * long / short)  # truncated, not rounded, as in torchvision's Resize
    width, height = (side, longer) if colours.width <= colours.height else (longer, side)
    resized = colours.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in (width, height))
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """Scales grey levels of up to 16 bits, which Pillow would clip at 255, and refuses others."""
    if image.mode == "F":
        raise ValueError("floating-point pixels without a defined white level")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    tags = getattr(image, "tag_v2", {})
    bits = min(_BITS, *tags.get(_BITS_TAG, (_BITS,)))  # images of more bits are accepted if 16 suffice
    levels, most = np.asarray(image), 2**bits - 1
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > most:
        raise ValueError(f"pixel values from {low} to {high} exceed {bits} bits (at most {most})")
    grey = np.rint(levels / (most / 255)).astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO else grey)
