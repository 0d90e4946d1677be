"""Observes a trained network on test images: gate values of shuffle attention, and the classifier's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablations.data.device import DeviceImages
from ablations.design.variants import NO_ATTENTION
from sa_core import ShuffleAttention
from sa_core.backbones.registry import find_backbone

CHANNEL, SPATIAL = "channel", "spatial"
_UNITS = 1024  # gates of a branch that are kept; a random choice of more
_BATCH_PIXELS = 128 * 32 * 32  # a batch whose feature maps nearly fit into the CPU's caches


@dataclass(frozen=True)
class Sample:
    """The first test images of each class as input of networks, (N, 3, H, W), with their labels, (N,).

    `shown` are the same images for display, uint8 of shape (N, H, W, 3).
    """

    pixels: Tensor
    labels: Tensor
    shown: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def images_of_each_class(images: DeviceImages, number: int) -> Sample:
    """Returns the first `number` test images of each class, in the order of the test set."""
    labels = images.test_labels
    of_class = [(labels == label).nonzero().flatten()[:number] for label in range(len(images.classes))]
    indices = torch.cat(of_class).sort().values
    pixels, displayed = images.some_tests(indices)
    return Sample(pixels, labels[indices], displayed.permute(0, 2, 3, 1).numpy())


@dataclass(frozen=True)
class Gates:
    """The gate values of a branch in one module, `opened` (images, gates); of large maps a random choice of 1,024."""

    path: str
    stage: int
    branch: str
    opened: NDArray[np.float32]


@dataclass(frozen=True)
class Observation:
    """The response of a network to a sample.

    Attributes:
        gates: of the last shuffle attention module in each stage, by branch.
        features: input of the classifier, (images, channels).
        weight: weight of the classifier, (classes, channels).
        logits: (images, classes).
        groups: number of groups of the last shuffle attention module, if its output ends the last stage and is the
            feature map that is pooled for the classifier; otherwise 0.
    """

    gates: list[Gates]
    features: NDArray[np.float32]
    weight: NDArray[np.float32]
    logits: NDArray[np.float32]
    groups: int


def observe(model: nn.Module, network: dict[str, Any], sample: Sample) -> Observation:
    """Runs a sample through a network in evaluation mode."""
    watched = _last_of_each_stage(model, network)
    gates_of: dict[tuple[str, str], list[Tensor]] = {}
    inputs: list[Tensor] = []
    *_, classifier = (module for module in model.modules() if isinstance(module, nn.Linear))  # the last linear layer
    hooks = [classifier.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))]
    hooks += [module.register_forward_pre_hook(partial(_watch_gates, path, gates_of)) for path, _, module in watched]
    try:
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in batches(sample.pixels)])
    finally:
        for hook in hooks:
            hook.remove()
    gates = [
        Gates(path, stage, branch, torch.cat(gates_of[path, branch]).numpy())
        for path, stage, _ in watched
        for branch in (CHANNEL, SPATIAL)
        if (path, branch) in gates_of
    ]
    features = torch.cat(inputs)
    weight, groups = classifier.weight.detach().numpy(), _groups(network, watched, features)
    return Observation(gates, features.numpy(), weight, logits.numpy(), groups)


def batches(pixels: Tensor) -> list[Tensor]:
    """Splits images into batches of a size that is fast on a CPU."""
    return list(pixels.split(max(1, _BATCH_PIXELS // pixels[0, 0].numel())))


def _last_of_each_stage(model: nn.Module, network: dict[str, Any]) -> list[tuple[str, int, ShuffleAttention]]:
    attention = network["attention"]
    if attention["name"] == NO_ATTENTION:
        return []
    last: dict[int, tuple[str, int, ShuffleAttention]] = {}
    for point in find_backbone(network["model"]["name"]).selected_points(attention["position"], attention["stages"]):
        module = model.get_submodule(point.path)
        if isinstance(module, ShuffleAttention):
            last[point.stage] = point.path, point.stage, module
    return list(last.values())


def _watch_gates(
    path: str, gates_of: dict[tuple[str, str], list[Tensor]], module: nn.Module, arguments: tuple[Tensor, ...]
) -> None:
    assert isinstance(module, ShuffleAttention)
    if module.knobs.gate == "none":
        return
    for branch, gate in zip((CHANNEL, SPATIAL), module.gates(arguments[0]), strict=True):
        if gate is not None:
            gates_of.setdefault((path, branch), []).append(_some(gate.flatten(1)))


def _some(gates: Tensor) -> Tensor:
    if gates.shape[1] <= _UNITS:
        return gates
    chosen = torch.randperm(gates.shape[1], generator=torch.Generator().manual_seed(0))[:_UNITS]
    return gates[:, chosen.sort().values]


def _groups(network: dict[str, Any], watched: list[tuple[str, int, ShuffleAttention]], features: Tensor) -> int:
    """Returns `Observation.groups`."""
    backbone = find_backbone(network["model"]["name"])
    if not watched or network["attention"]["position"] not in ("residual", "post"):
        return 0
    _, stage, module = watched[-1]
    is_last = stage == len(backbone.stages) or stage == max(point.stage for point in backbone.insertion_points())
    return module.groups if is_last and module.channels == features.shape[1] else 0
