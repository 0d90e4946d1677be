"""What networks cost beside the plain one of their backbone: time of a training step, time of inference, memory.

Networks are measured by themselves and not in cells: untrained copies take steps on random images of the study's size,
in turns with the plain network, while nothing is trained. A step takes as long with these as with real ones.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn import functional as F

from ablations.common.process import keep_freed_memory
from ablations.common.settings import Settings
from ablations.common.wording import first_line
from ablations.config import TrainConfig
from ablations.data.device import Batch
from ablations.design.variants import plain_network
from ablations.measure.costs import PLAIN, NetworkCost, Speed
from ablations.measure.memory import parameter_count, peak_memory
from ablations.measure.speed import TWIN, Act, Samples, clock_of, compare
from ablations.training.learner import Learner, forward

_REASON = 200  # characters of an error that are kept
_STILL = 1e-6  # learning rate: weights of random images stay as they are, so that no loss overflows meanwhile


@dataclass(frozen=True)
class CostSetting:
    """Under which circumstances networks are measured.

    Args:
        recipe: of training steps, with precision and memory format resolved.
        classes: number of classes.
        side: height and width of the images, in pixels.
        device: `cpu` or `cuda`.
        precision: relative half width of the 95 % interval of a ratio at which timing ends.
        seconds: after which timing of training steps, and again of inference, ends, however wide the intervals are.
    """

    recipe: TrainConfig
    classes: int
    side: int
    device: str
    precision: float
    seconds: float


def measure_costs(networks: Mapping[str, Settings], model: Settings, setting: CostSetting) -> dict[str, NetworkCost]:
    """Measures networks of one backbone; a network that fails costs the others nothing.

    Returns also, under `PLAIN`, what the plain network takes, with the ratios of a second copy of it to the first: the
    noise floor.

    Args:
        networks: by name, each `{"model": ..., "attention": ...}`.
        model: their backbone.
        setting: of the study.
    """
    keep_freed_memory()
    compiles = setting.recipe.compile != "none"
    if compiles:  # every network runs the same lines of Python, and dynamo would give up after eight
        torch._dynamo.config.recompile_limit = 4096
        torch._dynamo.config.accumulated_recompile_limit = 65536
    known = {PLAIN: plain_network(model)} | dict(networks)
    costs = {name: _weigh(network, setting) for name, network in known.items()}
    fit = {name: network for name, network in known.items() if not costs[name].failed}
    if PLAIN not in fit:
        return costs
    for mode in ("train", "test"):
        makes = {name: partial(_make, network, setting, mode) for name, network in fit.items()}
        copies = {"least_copies": 1, "most_copies": 1} if compiles else {}  # each takes minutes to compile
        samples = compare(
            makes,
            PLAIN,
            clock_of(torch.device(setting.device)),
            seconds=setting.seconds,
            precision=setting.precision,
            **copies,
        )
        for name in fit:
            speed = _speed(samples, name)
            costs[name] = replace(costs[name], train=speed) if mode == "train" else replace(costs[name], test=speed)
    return costs


def _weigh(network: Settings, setting: CostSetting) -> NetworkCost:
    """Measures memory, which takes two steps; what these raise would be in the way of timing, too."""
    try:
        learner, sample = _learner(network, setting), _sample(setting)
        learner.step(*sample)  # the optimizer has its state from here on
        peak = peak_memory(lambda: learner.step(*sample), learner.persistent, sample[0].device)
        return NetworkCost(parameter_count(learner.model), peak)
    except Exception as error:  # such as too little memory
        return NetworkCost(failed=first_line(error)[:_REASON])
    finally:
        gc.collect()


def _speed(samples: Samples, name: str) -> Speed:
    ratios = samples.log_ratios(TWIN if name == PLAIN else name)
    return Speed(samples.timing(name).ms, tuple(round(float(value), 6) for value in ratios))


def _make(network: Settings, setting: CostSetting, mode: str) -> Act:
    """Builds a copy of a network, and returns a training step or an inference of it."""
    learner, (pixels, labels) = _learner(network, setting), _sample(setting)
    if mode == "train":
        learner.model.train()
        return partial(learner.step, pixels, labels)
    return _without_gradients(partial(forward, learner.model.eval(), setting.recipe, pixels))


def _without_gradients(act: Callable[[], object]) -> Act:
    def run() -> object:
        with torch.inference_mode():
            return act()

    return run


def _learner(network: Settings, setting: CostSetting) -> Learner:
    recipe = replace(setting.recipe, learning_rate=_STILL)
    return Learner(network, recipe, setting.classes, 0, torch.device(setting.device))


def _sample(setting: CostSetting) -> Batch:
    recipe, device = setting.recipe, torch.device(setting.device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(recipe.batch_size, 3, setting.side, setting.side, generator=generator)
    labels = torch.randint(setting.classes, (recipe.batch_size,), generator=generator)
    if recipe.mixup or recipe.cutmix:
        labels = F.one_hot(labels, setting.classes).float()
    return pixels.to(device), labels.to(device)
