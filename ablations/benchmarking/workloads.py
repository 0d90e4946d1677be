"""What a benchmark runs: attention modules on the feature maps of their places, and whole networks, with or without it.

A workload is built for one setting (precision, layout, execution) and has one callable per mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablations.common.settings import Settings
from ablations.config import TrainConfig
from ablations.design.variants import NO_ATTENTION, Variant, plain_network
from ablations.measure.capture import captured
from ablations.measure.memory import saved_bytes
from ablations.measure.record import Setting
from ablations.measure.speed import Act
from ablations.training.learner import Learner, autocast, build_network, compiled, forward, layout
from sa_core import ATTENTION
from sa_core.backbones.registry import find_backbone

FORWARD, BACKWARD, STEP = "forward", "forward+backward", "training step"

Make = Callable[[int], nn.Module]  # of channels
Build = Callable[["Candidate"], "Workload"]  # with the input that all share


@dataclass(frozen=True)
class Candidate:
    """An attention module that is measured: a sweep's variant, a class from elsewhere, or what these are compared with.

    Args:
        name: as tables have it.
        make: returns the module for so many channels.
        network: that has it; None of a class from elsewhere, which is put into all residual places of the plain one.
    """

    name: str
    make: Make
    network: Settings | None = None

    @classmethod
    def of_variant(cls, variant: Variant) -> Candidate:
        """Returns the attention of a variant."""
        knobs = {key: value for key, value in variant.attention.items() if key not in ("name", "stages", "position")}
        attention = ATTENTION[variant.attention["name"]]
        return cls(variant.name, lambda channels: attention(channels, **knobs), variant.network)

    @classmethod
    def of_class(cls, name: str, module: Callable[..., nn.Module], groups: int | None) -> Candidate:
        """Returns a class from elsewhere; it gets `groups` where it takes them."""
        knobs = {"groups": groups} if groups is not None and "groups" in inspect.signature(module).parameters else {}
        return cls(name, lambda channels: module(channels, **knobs))

    @classmethod
    def baseline(cls, name: str, model: Settings) -> Candidate:
        """Returns what others are compared with: by itself a copy, and in a network nothing."""
        return cls(name, lambda _: Copy(), plain_network(model))

    def insert(self, backbone: str, network: nn.Module) -> None:
        """Puts a class from elsewhere into the places of a plain network; what is no such class is there already."""
        for place in find_backbone(backbone).insertion_points() if self.network is None else ():
            network.set_submodule(place.path, self.make(place.channels))


@dataclass(frozen=True)
class Shape:
    """A stage's feature map, where attention stands: its name, and (channels, height, width)."""

    stage: str
    channels: int
    height: int
    width: int

    def of_batch(self, batch: int) -> tuple[int, int, int, int]:
        """Returns the shape of so many of them."""
        return batch, self.channels, self.height, self.width


def shapes_of(model: Settings, position: str, resolution: int) -> list[Shape]:
    """Returns the feature maps that reach a backbone's places, each once a stage, from a pass on the meta device."""
    found: dict[Shape, None] = {}

    def note(stage: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[Shape(stage, *inputs[0].shape[1:])] = None

    plain = {"model": model, "attention": {"name": NO_ATTENTION, "position": position}}
    with torch.device("meta"), torch.no_grad():
        network = build_network(plain, 10, 0).eval()
        for place in find_backbone(model["name"]).insertion_points(position):
            stage = place.path.partition(".")[0]
            network.get_submodule(place.path).register_forward_pre_hook(partial(note, stage))
        network(torch.empty(1, 3, resolution, resolution))
    return list(found)


@dataclass(frozen=True)
class Workload:
    """A module or network, as it was built, with an input, in one setting; `acts` has a callable per mode.

    The callables launch from Python. `persistent` returns what it keeps between calls: parameters, buffers, and the
    optimizer's state once there is one.
    """

    module: nn.Module
    x: Tensor
    setting: Setting
    persistent: Callable[[], list[Tensor]]
    acts: Mapping[str, Act]

    def timed(self, mode: str) -> Act:
        """Returns the call that is timed: that of the mode, or in a `captured` setting its replay as a CUDA graph."""
        return captured(self.acts[mode]) if self.setting.compile == "captured" else self.acts[mode]

    def saved_bytes(self) -> int:
        """Counts the bytes that autograd keeps for backward."""
        with autocast(self.setting.precision, self.x.device):
            return saved_bytes(self.module, self.x)


class Copy(nn.Module):
    """Copies its input, and on the way back its gradient: the least that a module can do that has an output."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps a tensor to another one that is equal."""
        copied: Tensor = _Copy.apply(x)
        return copied


class _Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return gradient.clone()


def module_workload(make: Make, x: Tensor, gradient: Tensor, setting: Setting) -> Workload:
    """Builds a module for the channels of `x` and what is timed of it: `forward`, and `forward+backward`.

    All modules of a comparison share the input, (B, C, H, W) in the setting's type and layout, and the gradient of the
    output, so that none has a luckier place in memory.
    """
    torch.manual_seed(0)
    module = make(x.shape[1]).to(x.device).train()
    run = _compiled(module, setting)
    inputs = [x, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    plain = x.detach()

    def act_forward() -> None:
        with torch.inference_mode(), autocast(setting.precision, x.device):
            run(plain)

    def act_backward() -> None:
        with autocast(setting.precision, x.device):
            out = run(x)
        torch.autograd.grad(out, inputs, gradient)

    def persistent() -> list[Tensor]:
        return [*module.parameters(), *module.buffers()]

    return Workload(module, x, setting, persistent, {FORWARD: act_forward, BACKWARD: act_backward})


def module_inputs(shape: Sequence[int], setting: Setting, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the input of modules, which requires a gradient, and the gradient of their output."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    drawn = [torch.randn(tuple(shape), generator=generator).to(device, dtype) for _ in range(2)]
    x, gradient = (tensor.contiguous(memory_format=layout(setting.layout)) for tensor in drawn)
    return x.requires_grad_(), gradient


def network_workload(
    candidate: Candidate, model: Settings, pixels: Tensor, labels: Tensor, classes: int, setting: Setting
) -> Workload:
    """Builds a network and what is timed of it: `forward`, and `training step`.

    Args:
        candidate: its attention.
        model: the backbone, `{"name": ..., "stem": ...}`.
        pixels, labels: images, (B, 3, H, W), and their classes, (B,).
        classes: length of the logits.
        setting: in which it runs.
    """
    how = "default" if setting.compile == "compiled" else "none"
    recipe = TrainConfig(compile=how, precision=setting.precision, memory_format=setting.layout)
    network, insert = candidate.network or plain_network(model), partial(candidate.insert, model["name"])
    learner = Learner(network, recipe, classes, 0, pixels.device, insert)
    run = _compiled(learner.model, setting)

    def act_forward() -> None:
        with torch.inference_mode():
            forward(run, recipe, pixels)

    acts: dict[str, Act] = {FORWARD: act_forward, STEP: partial(learner.step, pixels, labels)}
    return Workload(learner.model, pixels, setting, lambda: learner.persistent, acts)


def _compiled(module: nn.Module, setting: Setting) -> nn.Module:
    if setting.compile != "compiled" or isinstance(module, Copy):  # of which there is nothing to compile
        return module
    return compiled(module)
