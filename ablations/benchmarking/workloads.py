"""What a benchmark runs: attention modules on the feature maps of their places, and whole networks, with or without it.

A workload is built for one setting (precision, layout, eager or compiled) and hands out one callable a mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ablations.config import TrainConfig
from ablations.design.variants import NO_ATTENTION, Variant, plain_network
from ablations.measure.memory import saved_bytes
from ablations.measure.record import Setting
from ablations.measure.speed import Act
from ablations.training.learner import Learner, autocast, build_network, forward, layout
from sa_core import ATTENTION
from sa_core.backbones.places import Place
from sa_core.backbones.registry import find_backbone

FORWARD, BACKWARD, STEP = "forward", "forward+backward", "training step"

Make = Callable[[int], nn.Module]  # of channels


@dataclass(frozen=True)
class Candidate:
    """An attention module that is measured: a variant of a sweep, or a class from elsewhere.

    Args:
        name: as tables have it.
        make: returns the module for so many channels.
        variant: that it is, None for others.
    """

    name: str
    make: Make
    variant: Variant | None = None


def candidate_of(variant: Variant) -> Candidate:
    """Returns the attention of a variant."""
    knobs = {key: value for key, value in variant.attention.items() if key not in ("name", "stages", "position")}
    return Candidate(variant.name, lambda channels: ATTENTION[variant.attention["name"]](channels, **knobs), variant)


def candidate_from(name: str, module: Callable[..., nn.Module], groups: int | None) -> Candidate:
    """Returns a class from elsewhere; it gets `groups` where it takes them."""
    knobs = {"groups": groups} if groups is not None and "groups" in inspect.signature(module).parameters else {}
    return Candidate(name, lambda channels: module(channels, **knobs))


@dataclass(frozen=True)
class Shape:
    """A stage's feature map, where attention stands: its name, and (channels, height, width)."""

    stage: str
    channels: int
    height: int
    width: int


def shapes_of(model: dict[str, Any], position: str, resolution: int) -> list[Shape]:
    """Returns the feature maps that reach a backbone's places, each once a stage, from a pass on the meta device."""
    places = find_backbone(model["name"]).places(position)
    found: list[Shape] = []

    def note(place: Place) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shape = Shape(place.path.partition(".")[0], *inputs[0].shape[1:])
            if shape not in found:
                found.append(shape)

        return hook

    with torch.device("meta"), torch.no_grad():
        network = build_network(
            {"model": model, "attention": {"name": NO_ATTENTION, "position": position}}, 10, 0
        ).eval()
        for place in places:
            network.get_submodule(place.path).register_forward_pre_hook(note(place))
        network(torch.empty(1, 3, resolution, resolution))
    return found


class Workload:
    """A module or network with an input, in one setting; `acts` has a callable a mode."""

    def __init__(self, module: nn.Module, x: Tensor, setting: Setting, persistent: Callable[[], list[Tensor]]) -> None:
        self.module, self.x, self._setting, self._persistent = module, x, setting, persistent
        self.acts: dict[str, Act] = {}

    @property
    def persistent(self) -> list[Tensor]:
        """What it keeps between calls: parameters, buffers, and the optimizer's state once there is one."""
        return self._persistent()

    def saved_bytes(self) -> int:
        """Counts the bytes that autograd keeps for backward."""
        with autocast(self._setting.precision, self.x.device):
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

    Args:
        make: the module.
        x: the input, (B, C, H, W), in the setting's type and layout; all modules of a comparison share it, so that none
            has a luckier place in memory.
        gradient: of the output, likewise.
        setting: in which it runs.
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

    workload = Workload(module, x, setting, lambda: [*module.parameters(), *module.buffers()])
    workload.acts = {FORWARD: act_forward, BACKWARD: act_backward}
    return workload


def module_inputs(shape: Sequence[int], setting: Setting, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the input of modules, which requires a gradient, and the gradient of their output."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    x, gradient = (
        torch.randn(tuple(shape), generator=generator)
        .to(device, dtype)
        .contiguous(memory_format=layout(setting.layout))
        for _ in range(2)
    )
    return x.requires_grad_(), gradient


def network_workload(
    candidate: Candidate | None, model: dict[str, Any], pixels: Tensor, labels: Tensor, classes: int, setting: Setting
) -> Workload:
    """Builds a network and what is timed of it: `forward`, and `training step`.

    Args:
        candidate: its attention, at all places where the variant has it; None for the plain network.
        model: the backbone, `{"name": ..., "stem": ...}`.
        pixels: images, (B, 3, H, W).
        labels: their classes, (B,).
        classes: length of the logits.
        setting: in which it runs.
    """
    recipe = TrainConfig(
        compile="none" if setting.compile == "eager" else "default",
        precision=setting.precision,
        memory_format=setting.layout,
    )
    variant = candidate.variant if candidate else None
    network = variant.network if variant else plain_network(model)
    learner = Learner(network, recipe, classes, 0, pixels.device, with_attention(candidate, model["name"]))
    run = _compiled(learner.model, setting)

    def act_forward() -> None:
        with torch.inference_mode():
            forward(run, recipe, pixels)

    workload = Workload(learner.model, pixels, setting, lambda: learner.persistent)
    workload.acts = {FORWARD: act_forward, STEP: lambda: learner.step(pixels, labels)}
    return workload


def with_attention(candidate: Candidate | None, backbone: str) -> Callable[[nn.Module], None]:
    """Returns what puts a class from elsewhere into all residual places of a plain network."""

    def insert(model: nn.Module) -> None:
        if candidate is not None and candidate.variant is None:
            for place in find_backbone(backbone).places():
                model.set_submodule(place.path, candidate.make(place.channels))

    return insert


def _compiled(module: nn.Module, setting: Setting) -> nn.Module:
    if setting.compile == "eager":
        return module
    return cast(nn.Module, torch.compile(module, dynamic=False))
