"""What a cell will cost, found out by a few real steps with its network. Nothing is learnt by anyone."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from ablations.common.wording import first_line
from ablations.config import TrainConfig
from ablations.data.device import DeviceImages
from ablations.measure.memory import parameter_count, peak_memory
from ablations.training.evaluation import sample_size, test_batch_size
from ablations.training.events import Probe
from ablations.training.learner import Learner, forward
from ablations.training.mixing import training_batches

_FEWEST = 3  # steps, of which the first third warms up
_SHARE_OF_STEPS = 0.1  # of a cell's own, unless those are fewer
_RANGE = (0.1, 0.9)  # quantiles of the steps, which a busy machine's total may lie between

_warm: set[str] = set()  # types of devices that this process has taken a step on


def probe(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float) -> Probe:
    """Takes a few training steps and a batch of inference, and says what a whole cell takes.

    Steps are taken for so many seconds, but a few in any case.
    """
    learner = _learner(network, recipe, images)
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    most = max(_FEWEST, round(_SHARE_OF_STEPS * steps * recipe.epochs))
    begun = time.perf_counter()
    batches = training_batches(images, recipe, 0, 0)
    times: list[float] = []
    learner.model.train()
    for batch in islice(batches, most):
        started = time.perf_counter()
        learner.step(*batch)
        _wait(images.device)
        times.append(time.perf_counter() - started)
        if len(times) >= _FEWEST and time.perf_counter() - begun > seconds:
            break
    loop = (time.perf_counter() - begun) / len(times) / np.mean(times)  # what fetching batches adds
    peak = peak_memory(lambda: learner.step(*batch), learner.persistent, images.device)
    tested = images.test_images + (recipe.epochs - 1) * sample_size(images.test_images)
    evaluation = tested * _test_seconds(learner, images)
    step_seconds = np.array(times[len(times) // 3 :]) * loop

    middle = float(np.median(step_seconds))

    def cell(step: float) -> float:
        return recipe.epochs * steps * step + evaluation * (step / middle)

    low, high = (cell(float(np.quantile(step_seconds, share))) for share in _RANGE)
    return Probe(cell(middle), low, high, peak, parameter_count(learner.model))


def probe_or_reason(
    network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float, threads: int
) -> Probe | str:
    """Probes with so many threads; says why not where it cannot: other variants have their costs all the same."""
    torch.set_num_threads(threads)
    try:
        if images.device.type not in _warm:
            _warm_up(network, recipe, images)
        return probe(network, recipe, images, seconds)
    except Exception as error:  # such as too little memory; whether it is in the way of cells, too, they will tell
        return first_line(error)


def _warm_up(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages) -> None:
    """Takes a step, with which torch does what it does once in a process."""
    learner = _learner(network, recipe, images)
    learner.step(*next(images.train_batches(recipe.batch_size, 0, 0)))
    _wait(images.device)
    _warm.add(images.device.type)


def _learner(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages) -> Learner:
    recipe = replace(recipe, compile="none")  # compiling would take longer than many a cell
    return Learner(network, recipe, len(images.classes), 0, images.device)


def _test_seconds(learner: Learner, images: DeviceImages) -> float:
    """Returns what a test image takes, in seconds, by training images: test images are for results alone."""
    size = min(test_batch_size(learner.recipe, images), images.test_images, images.train_images(1))
    learner.model.eval()
    pixels, _ = next(images.train_batches(size, 0, 0))
    with torch.inference_mode():
        forward(learner.model, learner.recipe, pixels)
        _wait(images.device)
        started = time.perf_counter()
        forward(learner.model, learner.recipe, pixels)
        _wait(images.device)
    passes = 2 if learner.recipe.test_flip else 1
    return (time.perf_counter() - started) * passes / len(pixels)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
