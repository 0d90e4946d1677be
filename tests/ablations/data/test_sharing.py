"""Sharing of pixels with a real worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ablations.config.compose import compose_config
from ablations.data import DataSet, load_data
from ablations.data.sharing import mapped, with_pixels
from ablations.data.splits import DrawnScenes
from ablations.design import Split
from ablations.execution.launchers.process import WorkerProcess, wait
from ablations.execution.launchers.serve import Answer, CallWithImages
from ablations.execution.launchers.worker import Place
from tests.builders.trees import make_tree


@pytest.fixture
def start() -> Iterator[Callable[[DataSet, Place], WorkerProcess]]:
    started = []

    def begin(data: DataSet, place: Place) -> WorkerProcess:
        started.append(WorkerProcess((mapped(data), place)))
        return started[-1]

    yield begin
    for worker in started:
        worker.kill()


def look(seed: int, load: Callable[[], DataSet], place: Place) -> tuple[str, str, bool]:
    """Returns, in a worker, the class of its pixels, the fingerprint, and whether writing to pixels is possible."""
    assert place.device == "cpu"
    images = load().images(seed, Split.TEST)
    pixels = images.train.pixels
    pixels[0] = 0
    return type(pixels).__name__, images.fingerprint, images.train.pixels is pixels


@pytest.mark.parametrize("seed", ["0", "replicate"])
@pytest.mark.parametrize("kind", ["digits", "tree"])
def test_a_worker_maps_the_pixels_of_the_driver(
    tmp_path: Path, start: Callable[[DataSet, Place], WorkerProcess], kind: str, seed: str
) -> None:
    typed = ["data.train_images=40", "data.test_images=20"]
    if kind == "tree":
        tree = make_tree(tmp_path / "tree", train=6, val=2)
        typed = [
            "data=imagenet_subset",
            f"data.root={tree}",
            f"data.cache={tmp_path / 'cache'}",
            "data.train_per_class=2",
        ]
    config = compose_config([*typed, f"data.seed={seed}"]).data
    data = load_data(config)
    before = data.images(5, Split.TEST)
    worker = start(data, Place(data.fingerprint, config, "cpu"))
    for path in tmp_path.glob("cache/*/*"):
        path.unlink()  # entries of the cache may be deleted at any time
    worker.send(CallWithImages(look, 5))
    answer = None
    while not isinstance(answer, Answer):
        wait([worker], 1.0)
        answer = worker.receive()
    assert answer.error is None
    drawn = isinstance(data, DrawnScenes)  # scenes are generated in the worker
    assert answer.value == ("ndarray" if drawn else "memmap", before.fingerprint, True)
    if not drawn:
        assert data.images(5, Split.TEST).train.pixels[0].any()  # writes of the worker are not shared


def test_each_array_of_pixels_is_converted() -> None:
    config = compose_config(["data.train_images=40", "data.test_images=20"]).data
    data = load_data(config)
    copies: list[np.ndarray] = []
    converted = with_pixels(data, lambda pixels: copies.append(pixels.copy()) or copies[-1])
    assert converted.fingerprint == data.fingerprint
    assert [array is copy for array, copy in zip(converted.images(0, Split.TEST).arrays, copies, strict=True)] == [
        True
    ] * 2
