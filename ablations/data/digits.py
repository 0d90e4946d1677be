"""The embedded data set: real handwritten digits, placed and distorted on cluttered colour canvases.

The digits are scikit-learn's 1,797 optical digits (Alpaydin and Kaynak, UCI 1998). Source digits are split by class
into disjoint training and test sets, and the distractors of a scene come from the same set as its digit, so test images
contain nothing that was trained on. Distractors made of fragments of digits follow Mnih et al. 2014 (cluttered MNIST).
The data set is for trying the suite, not for claims.

Everything is drawn from NumPy's frozen `RandomState` stream and computed in integers, so that the same options give
the same bytes on every machine and version.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ablations.config import DigitsConfig
from ablations.data.images import Images, ImageSet, in_memory

SIZE = 32
_SOURCE = 8
_BITS = 8
_ONE = 1 << _BITS  # 1.0 in fixed point
_FRAGMENT_CONTRAST = (25, 90)  # grey levels above the canvas's mean
_DIGIT_CONTRAST = (70, 140)
_TEST_SHARE = 3  # one source digit in three is held out
_AT_ONCE = 64  # scenes that are painted together

_Ints = NDArray[np.int32]
_Drawn = dict[str, _Ints]  # random parameters of each scene, by name


def make_digits(
    train_images: int, test_images: int, clutter: int, noise: int, seed: int, resolution: int = SIZE
) -> Images:
    """Generates the data set: uint8 scenes of shape (N, 3, resolution, resolution) with labels 0 to 9.

    Args:
        train_images, test_images: number of scenes; the sizes of classes differ by at most one.
        clutter: number of distractors (fragments of other digits) in each scene.
        noise: maximum pixel noise, in grey levels.
        seed: of all random numbers, including the split of source digits.
        resolution: side of the scenes in pixels, up to 32; scenes are painted with 32 and reduced by area averaging.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    glyphs = np.rint(source.images * (255 / 16)).astype(np.int32)
    labels = source.target.astype(np.int64)
    random = np.random.RandomState(seed)
    held_out = _held_out(labels, random)
    sets = {}
    for name, members, count in (("train", ~held_out, train_images), ("test", held_out, test_images)):
        drawn = _draw_set(glyphs[members], labels[members], count, clutter, noise, random)
        sets[name] = drawn if resolution == SIZE else ImageSet(_reduced(drawn.pixels, resolution), drawn.labels)
    return in_memory(sets["train"], sets["test"], tuple(str(digit) for digit in range(10)))


def draw_digits(config: DigitsConfig, seed: int) -> Images:
    """Generates the data set of a configuration with the given seed."""
    size = config.train_images, config.test_images
    return _cached(*size, config.clutter, config.noise, seed, config.resolution)


_cached = lru_cache(maxsize=1)(make_digits)  # a run and its report use the same images


def _held_out(labels: NDArray[np.int64], random: np.random.RandomState) -> NDArray[np.bool_]:
    """Returns a mask of the source digits for test scenes: a third of each class."""
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = random.permutation(np.flatnonzero(labels == digit))
        held_out[members[: len(members) // _TEST_SHARE]] = True
    return held_out


def _draw_set(
    glyphs: _Ints, labels: NDArray[np.int64], count: int, clutter: int, noise: int, random: np.random.RandomState
) -> ImageSet:
    # Classes have equal shares, and so have the source digits of a class, which are used in a shuffled cycle.
    classes = random.permutation(np.arange(count) % 10)
    chosen = np.empty(count, dtype=np.int64)
    for digit in range(10):
        scenes_of_class = np.flatnonzero(classes == digit)
        members = random.permutation(np.flatnonzero(labels == digit))
        chosen[scenes_of_class] = np.resize(members, len(scenes_of_class))

    # Parameters are drawn for all scenes, which are then painted in groups that fit into the processor's cache:
    # painting 10,000 scenes at once would take a gigabyte.
    grid = random.randint(0, 160, size=(count, 3, 3, 3)).astype(np.int32)
    shapes = [_draw_fragments(len(glyphs), count, random) for _ in range(clutter)]
    shapes.append({"glyph": chosen.astype(np.int32), **_draw_placement(count, _DIGIT_CONTRAST, random)})
    scenes = np.empty((count, 3, SIZE, SIZE), dtype=np.uint8)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        canvas = _backgrounds(grid[part])
        for shape in shapes:
            canvas = _paint(canvas, glyphs, {name: drawn[part] for name, drawn in shape.items()})
        canvas += random.randint(-noise, noise + 1, size=canvas.shape, dtype=np.int32)
        scenes[part] = np.clip(canvas, 0, 255).transpose(0, 3, 1, 2)
    return ImageSet(scenes, labels[chosen])


def _reduced(scenes: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Reduces scenes to `side` x `side` pixels by area averaging, in integers."""
    # In units of 1 / side, an old pixel is `side` long and a new one SIZE.
    starts, ends = np.arange(SIZE) * side, np.arange(side)[:, None] * SIZE
    covered = np.clip(np.minimum(starts + side, ends + SIZE) - np.maximum(starts, ends), 0, None).astype(np.int32)
    reduced = np.empty((*scenes.shape[:2], side, side), dtype=np.uint8)
    for start in range(0, len(scenes), _AT_ONCE):
        sums = covered @ scenes[start : start + _AT_ONCE].astype(np.int32) @ covered.T
        reduced[start : start + _AT_ONCE] = (sums + SIZE**2 // 2) // SIZE**2
    return reduced


def _draw_fragments(glyphs: int, count: int, random: np.random.RandomState) -> _Drawn:
    """Draws fragments: one of `glyphs` glyphs, a window of 4x3 or 3x4 pixels of it, and its placement."""
    highest = {"glyph": glyphs, "tall": 2, "top": _SOURCE - 3, "left": _SOURCE - 3}
    drawn = {name: random.randint(high, size=count).astype(np.int32) for name, high in highest.items()}
    return drawn | _draw_placement(count, _FRAGMENT_CONTRAST, random)


def _draw_placement(count: int, contrast: tuple[int, int], random: np.random.RandomState) -> _Drawn:
    """Draws scale, shear and shift of shapes, and their contrast in grey levels, within (low, high)."""

    def draw(low: int, high: int) -> _Ints:
        return random.randint(low, high + 1, size=(count, 1, 1)).astype(np.int32)

    # The inverse map is source = A (target - centre) + middle, with `zoom` source pixels per target pixel, so that a
    # glyph is 18 to 24 pixels high.
    drawn: _Drawn = {"zoom": draw(_ONE * 8 // 24, _ONE * 8 // 18)}
    for name, most in (("turn", 20), ("shear", 16), ("stretch", 12)):
        drawn[name] = draw(-most, most)
    for name in ("y", "x"):
        drawn[name] = draw(12 * _ONE, (SIZE - 12) * _ONE)
    drawn["lighter"] = random.randint(contrast[0], contrast[1] + 1, size=(count, 3)).astype(np.int32)
    return drawn


def _backgrounds(grid: _Ints) -> _Ints:
    """Interpolates 3x3 grids of colours to smooth backgrounds, (count, 32, 32, 3)."""
    position = (np.arange(SIZE) * (2 * _ONE - 1) // (SIZE - 1)).astype(np.int32)
    low, weight = position >> _BITS, position & (_ONE - 1)
    rows = _blend(grid[:, low], grid[:, low + 1], weight[:, None, None])
    return _blend(rows[:, :, low], rows[:, :, low + 1], weight[:, None])


def _blend(start: _Ints, end: _Ints, weight: _Ints) -> _Ints:
    """Interpolates linearly; `weight` is the weight of `end`, in fixed point."""
    blended: _Ints = (start * (_ONE - weight) + end * weight) >> _BITS
    return blended


def _cut(glyphs: _Ints, drawn: _Drawn) -> _Ints:
    """Keeps a window of each glyph, and sets the rest to 0."""
    tall, top, left = drawn["tall"], drawn["top"], drawn["left"]
    line = np.arange(_SOURCE)
    rows = (line >= top[:, None]) & (line < (top + 3 + tall)[:, None])
    columns = (line >= left[:, None]) & (line < (left + 4 - tall)[:, None])
    kept: _Ints = glyphs * (rows[:, :, None] & columns[:, None, :])
    return kept


def _place(glyphs: _Ints, drawn: _Drawn) -> _Ints:
    """Scales, shears and shifts 8x8 glyphs onto 32x32 canvases: opacities 0 to 255, (N, 32, 32)."""
    zoom, turn, shear, stretch = (drawn[name] for name in ("zoom", "turn", "shear", "stretch"))
    target = np.arange(SIZE, dtype=np.int32) * _ONE + _ONE // 2
    y = target[:, None] - drawn["y"]
    x = target - drawn["x"]
    # One pixel more for the empty border, and half a pixel less because pixels are sampled at their centres.
    middle = (_SOURCE // 2 + 1) * _ONE - _ONE // 2
    source_y = (((zoom - stretch) * y + (turn - shear) * x) >> _BITS) + middle
    source_x = (((zoom + stretch) * x - (turn + shear) * y) >> _BITS) + middle
    source_y, source_x = (np.clip(source, 0, (_SOURCE + 1) * _ONE - 1) for source in (source_y, source_x))

    side = _SOURCE + 2
    bordered = np.pad(glyphs, ((0, 0), (1, 1), (1, 1))).ravel()
    corner = (source_y >> _BITS) * side + (source_x >> _BITS)
    corner += np.arange(len(glyphs), dtype=np.int32)[:, None, None] * (side * side)
    right, below = source_x & (_ONE - 1), source_y & (_ONE - 1)
    upper = _blend(bordered.take(corner), bordered.take(corner + 1), right)
    lower = _blend(bordered.take(corner + side), bordered.take(corner + side + 1), right)
    return _blend(upper, lower, below)


def _paint(canvas: _Ints, glyphs: _Ints, drawn: _Drawn) -> _Ints:
    """Paints glyphs or fragments with their random parameters, in a colour lighter than the canvas's mean."""
    chosen = glyphs[drawn["glyph"]]
    opacity = _place(_cut(chosen, drawn) if "tall" in drawn else chosen, drawn)
    mean = np.einsum("nyxc->nc", canvas) // SIZE**2  # einsum stays in int32, and is faster than sum in int64
    colour = np.minimum(mean + drawn["lighter"], 255)[:, None, None, :]
    return _blend(canvas, colour, (opacity + (opacity >> 7))[..., None])
