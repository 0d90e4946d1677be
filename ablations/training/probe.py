"""Estimates what a cell will cost from a few real training steps of its network, whose weights are discarded."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ablations.common.wording import first_line
from ablations.config import TrainConfig
from ablations.data.device import DeviceImages, wait_for
from ablations.measure.memory import parameter_count, peak_memory
from ablations.training.evaluation import sample_size, test_batch_size
from ablations.training.events import Probe
from ablations.training.graphs import WARM_UP, reason_against, training_steps
from ablations.training.isolation import Isolation
from ablations.training.learner import Learner, forward
from ablations.training.mixing import training_batches
from ablations.training.schedule import learning_rates

_FEWEST = 3  # steps, of which the first third warms up
_SHARE_OF_STEPS = 0.1  # of a cell's own, unless those are fewer
_RANGE = (0.1, 0.9)  # quantiles of the steps, which a busy machine's total may lie between

_warm: set[str] = set()  # types of devices that this process has taken a step on


def probe(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float) -> Probe:
    """Takes a few training steps and a batch of inference, and estimates the cost of a whole cell.

    Steps are taken for so many seconds, but a few in any case, and as a cell takes them: from a CUDA graph where the
    cell has one.
    """
    with Isolation(images.device).entered():
        return _probe(network, recipe, images, seconds)


def _probe(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float) -> Probe:
    recipe = replace(recipe, compile="none")  # compiling would take longer than many a cell
    learner = Learner(network, recipe, len(images.classes), 0, images.device)
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    # The first third of the steps, in which one may be captured, is not counted.
    fewest = _FEWEST if reason_against(recipe, images.device) else 3 * (WARM_UP + 1)
    most = min(steps, max(fewest, round(_SHARE_OF_STEPS * steps * recipe.epochs)))
    begun = time.perf_counter()
    rates = learning_rates(recipe, steps * recipe.epochs)
    step, take_step = training_steps(learner, recipe, images, rates, 0)
    step.begin(0, 0)
    times: list[float] = []
    while len(times) < most and (len(times) < fewest or time.perf_counter() - begun <= seconds):
        step.advance()
        started = time.perf_counter()
        take_step()
        wait_for(images.device)
        times.append(time.perf_counter() - started)
    loop = (time.perf_counter() - begun) / len(times) / np.mean(times)  # what fetching batches adds
    batch = next(training_batches(images, recipe, 0, 0))
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
    """Probes with so many threads; returns the reason if that fails, so that other variants are probed all the same."""
    torch.set_num_threads(threads)
    try:
        if images.device.type not in _warm:
            _warm_up(network, recipe, images)
        return probe(network, recipe, images, seconds)
    except Exception as error:  # such as too little memory; cells may succeed all the same
        return first_line(error)


def _warm_up(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages) -> None:
    """Takes a step, in which torch initialises what it does once per process."""
    learner = Learner(network, replace(recipe, compile="none"), len(images.classes), 0, images.device)
    learner.step(*next(images.train_batches(recipe.batch_size, 0, 0)))
    wait_for(images.device)
    _warm.add(images.device.type)


def _test_seconds(learner: Learner, images: DeviceImages) -> float:
    """Returns what a test image takes, in seconds, by training images: test images are for results alone."""
    size = min(test_batch_size(learner.recipe, images), images.test_images, images.train_images(1))
    learner.model.eval()
    pixels, _ = next(images.train_batches(size, 0, 0))
    with torch.inference_mode():
        forward(learner.model, learner.recipe, pixels)
        wait_for(images.device)
        started = time.perf_counter()
        forward(learner.model, learner.recipe, pixels)
        wait_for(images.device)
    passes = 2 if learner.recipe.test_flip else 1
    return (time.perf_counter() - started) * passes / len(pixels)
