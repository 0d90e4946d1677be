"""The workloads of a benchmark: attention modules on feature maps of insertion points, and whole networks.

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

Make = Callable[[int], nn.Module]  # builds a module for a number of channels
Build = Callable[["Candidate"], "Workload"]  # on the shared input


@dataclass(frozen=True)
class Candidate:
    """An attention module to measure: that of a variant, a third-party class, or the reference.

    Attributes:
        name: name in tables.
        make: builds the module for a number of channels.
        network: settings of the network with it; None for a third-party class, which is inserted at all residual
            insertion points of the plain network.
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
        """Returns a third-party class, which is called with `groups` if it has this parameter."""
        knobs = {"groups": groups} if groups is not None and "groups" in inspect.signature(module).parameters else {}
        return cls(name, lambda channels: module(channels, **knobs))

    @classmethod
    def baseline(cls, name: str, model: Settings) -> Candidate:
        """Returns the reference: a copy of the input as a module, and the plain network."""
        return cls(name, lambda _: Copy(), plain_network(model))

    def insert(self, backbone: str, network: nn.Module) -> None:
        """Inserts a third-party class into a plain network; the network of any other candidate is complete."""
        for point in find_backbone(backbone).insertion_points() if self.network is None else ():
            network.set_submodule(point.path, self.make(point.channels))


@dataclass(frozen=True)
class Shape:
    """The feature map at a stage's insertion points: name of the stage, and (channels, height, width)."""

    stage: str
    channels: int
    height: int
    width: int

    def of_batch(self, batch: int) -> tuple[int, int, int, int]:
        """Returns the shape (B, C, H, W) of a batch."""
        return batch, self.channels, self.height, self.width


def shapes_of(model: Settings, position: str, resolution: int) -> list[Shape]:
    """Returns the distinct feature maps at a backbone's insertion points, from a forward pass on the meta device."""
    shapes: dict[Shape, None] = {}

    def record(stage: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[Shape(stage, *inputs[0].shape[1:])] = None

    plain = {"model": model, "attention": {"name": NO_ATTENTION, "position": position}}
    with torch.device("meta"), torch.no_grad():
        network = build_network(plain, 10, 0).eval()
        for point in find_backbone(model["name"]).insertion_points(position):
            stage = point.path.partition(".")[0]
            network.get_submodule(point.path).register_forward_pre_hook(partial(record, stage))
        network(torch.empty(1, 3, resolution, resolution))
    return list(shapes)


@dataclass(frozen=True)
class Workload:
    """A module or network with an input, in one setting; `acts` has a callable per mode.

    The callables launch kernels from Python. `persistent` returns the tensors kept between calls: parameters, buffers,
    and the state of the optimizer, if any.
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
        """Returns the bytes of activations that autograd saves for the backward pass."""
        with autocast(self.setting.precision, self.x.device):
            return saved_bytes(self.module, self.x)


class Copy(nn.Module):
    """Copies its input, and in the backward pass its gradient: the least work of a module that writes an output."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns a copy of a tensor."""
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
    """Builds a module for the channels of `x`, timed in `forward` and `forward+backward`.

    All modules of a comparison share the input, (B, C, H, W) in the setting's dtype and layout, and the gradient of the
    output, so that their alignment in memory does not differ.
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
    """Builds a network, timed in `forward` and `training step`.

    Args:
        candidate: its attention module.
        model: the backbone, `{"name": ..., "stem": ...}`.
        pixels, labels: images, (B, 3, H, W), and their classes, (B,).
        classes: number of classes.
        setting: precision, layout and compilation.
    """
    mode = "default" if setting.compile == "compiled" else "none"
    recipe = TrainConfig(compile=mode, precision=setting.precision, memory_format=setting.layout)
    network, insert = candidate.network or plain_network(model), partial(candidate.insert, model["name"])
    learner = Learner(network, recipe, classes, 0, pixels.device, insert)
    run = _compiled(learner.model, setting)

    def act_forward() -> None:
        with torch.inference_mode():
            forward(run, recipe, pixels)

    acts: dict[str, Act] = {FORWARD: act_forward, STEP: partial(learner.step, pixels, labels)}
    return Workload(learner.model, pixels, setting, lambda: learner.persistent, acts)


def _compiled(module: nn.Module, setting: Setting) -> nn.Module:
    if setting.compile != "compiled" or isinstance(module, Copy):  # a copy has nothing to compile
        return module
    return compiled(module)
