"""What a cell's network costs, measured beside the plain one: speed of a training step and of inference, and memory.

The plain network is the same backbone without attention, timed in turns with the cell's own in the same process
(`ablations.measure.speed`), so that a busy machine is as busy for both. Of a cell that is plain itself this is an A/A
comparison: how far its ratios are from 1 is how far the noise goes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ablations.data.device import Batch
from ablations.design.variants import plain_network
from ablations.measure.memory import parameter_count, peak_memory
from ablations.measure.speed import Act, Make, clock_of, compare
from ablations.training.learner import Learner, forward

SHARE = 0.1  # of a cell's time that measuring may take
_SHARE_OF_STEPS = 0.75  # of that; the rest is for inference
_FEWEST = 15  # calls that a comparison of two takes at least, with the second copy of the plain network


@dataclass(frozen=True)
class Cost:
    """What a network takes; None is what was not measured.

    The memory is the most that a training step has allocated at a time, weights and optimizer included. Speeds are by
    the median training step, and the median inference of a batch of the same size; ratios are over the plain network's.
    """

    parameters: int
    peak_memory_mib: float | None = None
    train_images_per_second: float | None = None
    test_images_per_second: float | None = None
    train_time_ratio: float | None = None
    test_time_ratio: float | None = None


def measure_cost(
    learner: Learner, network: dict[str, Any], sample: Batch, seconds: float, step_seconds: float, *, needed: bool
) -> Cost:
    """Measures a trained network; takes a few more steps with it.

    Args:
        network: what describes it.
        sample: a training batch.
        seconds: that measuring may take; speed is left out where a single round would take more, unless it is `needed`.
            Memory, which takes a step, is measured in any case.
        step_seconds: what a training step takes, roughly.
    """
    started = time.perf_counter()
    recipe, (pixels, labels) = learner.recipe, sample
    learners = {"cell": learner}
    # Compiling the plain network would take longer than the cell may be measured.
    if recipe.compile == "none":
        plain, parts = plain_network(network["model"]), learner.micro_batches
        learners["plain"] = Learner(plain, recipe, learner.num_classes, 0, pixels.device, micro_batches=parts)
    models = {name: timed.model.train() for name, timed in learners.items()}
    peak = peak_memory(lambda: learner.step(*sample), learner.persistent, pixels.device)
    costs: dict[str, float | None] = {}

    def compare_speeds(mode: str, acts: Mapping[str, Act], share: float, call_seconds: float) -> None:
        left = seconds - (time.perf_counter() - started)
        if needed or left > _FEWEST * call_seconds:
            makes: dict[str, Make] = {name: lambda act=act: act for name, act in acts.items()}  # type: ignore[misc]
            baseline, clock = list(acts)[-1], clock_of(pixels.device)
            samples = compare(makes, baseline, clock, seconds=share * left, least_copies=1, most_copies=1)
            timing = samples.timing("cell")
            costs[f"{mode}_images_per_second"] = len(labels) / timing.ms * 1000
            costs[f"{mode}_time_ratio"] = timing.ratio if "plain" in acts else None

    steps: dict[str, Act] = {name: partial(timed.step, *sample) for name, timed in learners.items()}
    compare_speeds("train", steps, _SHARE_OF_STEPS, step_seconds)
    with torch.inference_mode():
        passes: dict[str, Act] = {name: partial(forward, net.eval(), recipe, pixels) for name, net in models.items()}
        compare_speeds("test", passes, 1.0, step_seconds / 3)  # a forward pass is about a third of a step
    return Cost(parameter_count(learner.model), peak, **costs)
