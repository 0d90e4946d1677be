"""Image files are decoded to the same 8-bit squares as by torchvision, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ablations.data.pixels import decode_files, square

SIDE = 16
ORIENTATION = 0x0112
RAMP = np.linspace(0, 1, 40 * 24).reshape(40, 24)  # black above, white below


def by_torchvision(path: Path, side: int = SIDE) -> np.ndarray:
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import CenterCrop, Compose, Resize

    return np.asarray(Compose([Resize(side), CenterCrop(side)])(default_loader(str(path))))


def ramp(mode: str) -> Image.Image:
    grey = Image.fromarray((255 * RAMP).astype(np.uint8))
    return grey.convert(mode) if mode != "P" else grey.convert("RGB").quantize(64)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGB", "png"), ("RGBA", "png"), ("L", "pgm"),
        ("RGB", "ppm"), ("L", "bmp"), ("RGB", "bmp"), ("L", "jpg"), ("RGB", "jpg"), ("CMYK", "jpg"), ("CMYK", "tif"),
        ("YCbCr", "tif"), ("LAB", "tif"), ("RGBX", "tif"), ("PA", "tif"), ("RGB", "webp"), ("RGBA", "webp"),
    ],
)  # fmt: skip
def test_modes_of_eight_bits_are_converted_as_by_torchvision(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    try:
        ramp(mode).save(path)
        Image.open(path).load()
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {suffix} of mode {mode} that it reads")
    assert np.array_equal(square(path, SIDE), by_torchvision(path))


@pytest.mark.parametrize("size", [(7, 5), (33, 32), (100, 31), (31, 100), (16, 16), (1, 9), (1700, 640)])
def test_sizes_are_rounded_as_by_torchvision(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "image.jpg"
    noise = np.random.default_rng(0).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert np.array_equal(square(path, SIDE), by_torchvision(path))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_levels_of_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    path, same = tmp_path / f"deep.{suffix}", tmp_path / "same.png"
    Image.fromarray((65535 * RAMP).astype(np.uint16)).save(path)
    Image.fromarray(np.rint(255 * RAMP).astype(np.uint8)).save(same)
    decoded = square(path, SIDE)
    assert np.abs(decoded.astype(int) - by_torchvision(same)).max() <= 1
    assert decoded.min() < 60
    assert decoded.max() > 195


def test_levels_with_white_as_zero_are_inverted(tmp_path: Path) -> None:
    path = tmp_path / "inverted.tif"
    Image.fromarray((65535 * RAMP).astype(np.uint16)).save(path, tiffinfo={262: 0})
    assert square(path, SIDE)[0].min() > square(path, SIDE)[-1].max()


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        (RAMP.astype(np.float32), "floating-point"),
        ((2**20 * RAMP).astype(np.int32), "from 0 to 1048576"),
        (-(1000 * RAMP).astype(np.int32), "from -1000 to 0"),
    ],
)
def test_levels_of_unknown_range_are_refused(tmp_path: Path, levels: np.ndarray, reason: str) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(levels).save(path)
    pixels, failures = decode_files([path], SIDE, tmp_path, False)
    assert not pixels.any()
    assert failures[0].startswith("image.tif (")
    assert reason in failures[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_on_request(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "image.png"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    corner = np.zeros((32, 32, 3), dtype=np.uint8)
    corner[:16, :8] = 255
    Image.fromarray(corner).save(path, exif=exif)
    stored, turned = square(path, SIDE), square(path, SIDE, turn=True)
    assert np.array_equal(stored, by_torchvision(path))
    flips = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }  # fmt: skip
    assert np.array_equal(turned, flips[orientation])
