"""Measures the cost of networks relative to their plain backbone: time of a training step and of inference, and memory.

Networks are measured separately, before any cell is trained: untrained copies take steps on random images of the
study's size, interleaved with steps of the plain network. The time of a step does not depend on the image content.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from ablations.common.process import keep_freed_memory
from ablations.common.settings import Settings
from ablations.common.wording import first_line
from ablations.config import OWN_GRAPHS, TrainConfig
from ablations.data.device import Batch
from ablations.design.variants import plain_network
from ablations.measure.capture import captured
from ablations.measure.costs import CAPTURED, MODES, PLAIN, NetworkCost, Speed
from ablations.measure.memory import parameter_count, peak_memory
from ablations.measure.speed import LEAST_COPIES, TWIN, Act, Samples, clock_of, compare
from ablations.training.learner import Learner, forward

_MOST_COPIES = 100
# Modes of torch.compile that use CUDA graphs, and the equivalent modes without them.
_WITHOUT_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
_REASON = 200  # maximum length of a stored error message
_STILL = 1e-6  # learning rate: so small that training on random images does not make the loss overflow


@dataclass(frozen=True)
class CostSetting:
    """The settings of the study under which networks are measured.

    Args:
        recipe: the training recipe, with precision and memory format resolved.
        classes: number of classes.
        side: height and width of the images, in pixels.
        device: `cpu` or `cuda`.
        precision: relative half width of the 95 % interval of a ratio at which timing ends.
        seconds: time limit for timing training steps, and the same again for inference.
    """

    recipe: TrainConfig
    classes: int
    side: int
    device: str
    precision: float
    seconds: float


def measure_costs(networks: Mapping[str, Settings], model: Settings, setting: CostSetting) -> dict[str, NetworkCost]:
    """Measures networks of one backbone, untrained, on random images.

    On a GPU each call is timed twice: launched from Python, and replayed as a CUDA graph. A call that cannot be
    captured has no replay time.

    If a network cannot be built or fails in a step, its cost contains the reason, and the other networks are measured
    without it. Since compiling takes minutes, training steps of compiled networks are timed with a single copy.

    Args:
        networks: by name, each `{"model": ..., "attention": ...}`.
        model: their backbone.
        setting: the settings of the study.

    Returns:
        The cost of each network, and that of the plain network as `PLAIN`. The ratios of `PLAIN` compare a second copy
        of it with the first: the noise floor.
    """
    keep_freed_memory()
    all_networks = {PLAIN: plain_network(model)} | dict(networks)
    costs = {name: _weigh(network, setting) for name, network in all_networks.items()}
    for mode in MODES:
        fit = {name: network for name, network in all_networks.items() if not costs[name].failed}
        if PLAIN not in fit:
            reason = f"the network without attention could not be measured: {costs[PLAIN].failed}"
            return {name: replace(cost, failed=cost.failed or reason) for name, cost in costs.items()}
        for name, found in _time(fit, setting, mode).items():
            change: dict[str, Any] = {mode: found} if isinstance(found, Speed) else {"failed": found}
            costs[name] = replace(costs[name], **change)
    for mode in MODES if are_captured(setting) else ():
        fit = {name: network for name, network in all_networks.items() if not costs[name].failed}
        for name, found in _time(fit, setting, mode, is_captured=True).items():
            captures: dict[str, Any] = {f"{CAPTURED}{mode}": found} if isinstance(found, Speed) else {}
            costs[name] = replace(costs[name], **captures)
    return costs


def are_captured(setting: CostSetting) -> bool:
    """Whether calls are also timed as CUDA graphs: on a GPU, unless the compiled code already uses CUDA graphs."""
    return setting.device == "cuda" and setting.recipe.compile not in OWN_GRAPHS


def _time(
    networks: Mapping[str, Settings], setting: CostSetting, mode: str, *, is_captured: bool = False
) -> dict[str, Speed | str]:
    """Times networks in interleaved order; returns the speed of each, or the reason why it could not be timed."""
    make = _make_captured if is_captured else _make
    makes = {name: partial(make, network, setting, mode) for name, network in networks.items()}
    is_compiled = mode == "train" and setting.recipe.compile != "none"
    try:
        samples = compare(
            makes,
            PLAIN,
            clock_of(torch.device(setting.device)),
            seconds=setting.seconds,
            precision=setting.precision,
            least_copies=1 if is_compiled else LEAST_COPIES,
            most_copies=1 if is_compiled else _MOST_COPIES,
        )
        return {name: _speed(samples, name) for name in networks}
    except Exception as error:  # for example, not enough memory for one copy of each network at the same time
        others = [name for name in networks if name != PLAIN]
        if len(others) <= 1:
            return dict.fromkeys(others or networks, _reason(error))
    found: dict[str, Speed | str] = {}
    for name in others:  # time each network separately with the plain one
        gc.collect()
        found |= _time({PLAIN: networks[PLAIN], name: networks[name]}, setting, mode, is_captured=is_captured)
    return found


def _weigh(network: Settings, setting: CostSetting) -> NetworkCost:
    """Measures peak memory in the second of two steps; a network that fails here would also fail in timing.

    Replayed CUDA graphs reuse memory that the allocator does not count, so the same code is run without them.
    """
    recipe = setting.recipe
    setting = replace(setting, recipe=replace(recipe, compile=_WITHOUT_GRAPHS.get(recipe.compile, recipe.compile)))
    try:
        learner, sample = _learner(network, setting), _sample(setting)
        learner.step(*sample)  # allocates the optimizer's state
        peak = peak_memory(lambda: learner.step(*sample), learner.persistent, sample[0].device)
        return NetworkCost(parameter_count(learner.model), peak)
    except Exception as error:  # for example, not enough memory
        return NetworkCost(failed=_reason(error))
    finally:
        gc.collect()


def _reason(error: Exception) -> str:
    return first_line(error)[:_REASON]


def _speed(samples: Samples, name: str) -> Speed:
    ratios = samples.log_ratios(TWIN if name == PLAIN else name)
    return Speed(samples.timing(name).ms, tuple(round(float(value), 6) for value in ratios))


def _make(network: Settings, setting: CostSetting, mode: str) -> Act:
    """Builds a copy of a network, and returns its training step or inference."""
    learner, (pixels, labels) = _learner(network, setting), _sample(setting)
    if mode == "train":
        learner.model.train()
        return partial(learner.step, pixels, labels)
    act: Act = torch.inference_mode()(partial(forward, learner.model.eval(), setting.recipe, pixels))
    return act


def _make_captured(network: Settings, setting: CostSetting, mode: str) -> Act:
    """Builds a copy of a network, and returns its training step or inference as a CUDA graph."""
    return captured(_make(network, setting, mode))


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
