"""Estimates the cost of a cell from a few training steps of its network; the trained weights are discarded."""

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

_FEWEST = 3  # minimum number of steps; the first third is the warm-up
_SHARE_OF_STEPS = 0.1  # maximum number of steps, as a share of the cell's, unless the minimum is higher
_RANGE = (0.1, 0.9)  # quantiles of the step times that give the range of the estimate, for a busy machine

_warm: set[str] = set()  # types of devices on which this process has run a step


def probe(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float) -> Probe:
    """Runs a few training steps and one batch of inference, and estimates the cost of a whole cell.

    Steps run until the time limit `seconds`, but never fewer than the minimum, and as in the cell: as a CUDA graph if
    the cell uses one.
    """
    with Isolation(images.device).entered():
        return _probe(network, recipe, images, seconds)


def _probe(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages, seconds: float) -> Probe:
    recipe = replace(recipe, compile="none")  # compiling may take longer than the cell
    learner = Learner(network, recipe, len(images.classes), 0, images.device)
    steps = images.train_images(recipe.batch_size) // recipe.batch_size
    # The first third of the steps is not counted; it includes the capture, if any.
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
    loop = (time.perf_counter() - begun) / len(times) / np.mean(times)  # factor for the time to fetch batches
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
    """Runs `probe` with `threads` CPU threads; returns the reason if it fails, so that other variants are probed."""
    torch.set_num_threads(threads)
    try:
        if images.device.type not in _warm:
            _warm_up(network, recipe, images)
        return probe(network, recipe, images, seconds)
    except Exception as error:  # for example, not enough memory; the cells may still succeed
        return first_line(error)


def _warm_up(network: dict[str, Any], recipe: TrainConfig, images: DeviceImages) -> None:
    """Runs a step, so that torch's initialization, once per process, is not timed."""
    learner = Learner(network, replace(recipe, compile="none"), len(images.classes), 0, images.device)
    learner.step(*next(images.train_batches(recipe.batch_size, 0, 0)))
    wait_for(images.device)
    _warm.add(images.device.type)


def _test_seconds(learner: Learner, images: DeviceImages) -> float:
    """Returns the seconds to test one image, measured on training images: test images are used only for results."""
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
