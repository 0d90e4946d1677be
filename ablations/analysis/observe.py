"""What a trained network does with test images: the gates that shuffle attention sets, and what the classifier gets."""

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
_UNITS = 1024  # gates of a branch that are looked at, of a map that has more
_BATCH_PIXELS = 128 * 32 * 32  # which fit into the caches' neighbourhood


@dataclass(frozen=True)
class Sample:
    """Test images, the first ones of each class, as networks get them: (N, 3, H, W), with their labels.

    `shown` are the same images as uint8 of shape (N, H, W, 3), for people.
    """

    pixels: Tensor
    labels: Tensor
    shown: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def images_of_each_class(images: DeviceImages, number: int) -> Sample:
    """Returns the first test images of each class, up to a number of each, in the order of the test set."""
    labels = images.test_labels
    of_class = [(labels == label).nonzero().flatten()[:number] for label in range(len(images.classes))]
    places = torch.cat(of_class).sort().values
    pixels, shown = images.some_tests(places)
    return Sample(pixels, labels[places], shown.permute(0, 2, 3, 1).numpy())


@dataclass(frozen=True)
class Gates:
    """A branch's gates in one module: by how much they `opened`, (images, gates); of a large map, a choice of 1,024."""

    path: str
    stage: int
    branch: str
    opened: NDArray[np.float32]


@dataclass(frozen=True)
class Observation:
    """What a network did with a sample.

    Args:
        gates: of the last module of shuffle attention in each stage, by branch.
        features: what the classifier got, (images, channels).
        weight: the classifier's, (classes, channels).
        logits: (images, classes).
        groups: of the last module of shuffle attention, whose feature map ends the last stage and is what the
            classifier averages; 0 where there is none, or something comes between.
    """

    gates: list[Gates]
    features: NDArray[np.float32]
    weight: NDArray[np.float32]
    logits: NDArray[np.float32]
    groups: int


def observe(model: nn.Module, network: dict[str, Any], sample: Sample) -> Observation:
    """Runs a sample through a network in evaluation mode."""
    watched = _last_of_each_stage(model, network)
    seen: dict[tuple[str, str], list[Tensor]] = {}
    inputs: list[Tensor] = []
    *_, classifier = (one for one in model.modules() if isinstance(one, nn.Linear))  # the last one makes the logits
    hooks = [classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))]
    hooks += [module.register_forward_pre_hook(partial(_watch_gates, path, seen)) for path, _, module in watched]
    try:
        with torch.inference_mode():
            logits = torch.cat([model(part) for part in batches(sample.pixels)])
    finally:
        for hook in hooks:
            hook.remove()
    gates = [
        Gates(path, stage, branch, torch.cat(seen[path, branch]).numpy())
        for path, stage, _ in watched
        for branch in (CHANNEL, SPATIAL)
        if (path, branch) in seen
    ]
    features = torch.cat(inputs)
    weight, groups = classifier.weight.detach().numpy(), _groups(network, watched, features)
    return Observation(gates, features.numpy(), weight, logits.numpy(), groups)


def batches(pixels: Tensor) -> list[Tensor]:
    """Splits images into batches that are quick to compute."""
    return list(pixels.split(max(1, _BATCH_PIXELS // pixels[0, 0].numel())))


def _last_of_each_stage(model: nn.Module, network: dict[str, Any]) -> list[tuple[str, int, ShuffleAttention]]:
    attention = network["attention"]
    if attention["name"] == NO_ATTENTION:
        return []
    places = find_backbone(network["model"]["name"]).selected_points(attention["position"], attention["stages"])
    placed = [(place.path, place.stage, model.get_submodule(place.path)) for place in places]
    last = {stage: (path, stage, one) for path, stage, one in placed if isinstance(one, ShuffleAttention)}
    return list(last.values())


def _watch_gates(
    path: str, seen: dict[tuple[str, str], list[Tensor]], module: nn.Module, given: tuple[Tensor, ...]
) -> None:
    assert isinstance(module, ShuffleAttention)
    if module.knobs.gate == "none":
        return
    for branch, gate in zip((CHANNEL, SPATIAL), module.gates(given[0]), strict=True):
        if gate is not None:
            seen.setdefault((path, branch), []).append(_some(gate.flatten(1)))


def _some(gates: Tensor) -> Tensor:
    if gates.shape[1] <= _UNITS:
        return gates
    chosen = torch.randperm(gates.shape[1], generator=torch.Generator().manual_seed(0))[:_UNITS]
    return gates[:, chosen.sort().values]


def _groups(network: dict[str, Any], watched: list[tuple[str, int, ShuffleAttention]], features: Tensor) -> int:
    """Returns the groups whose channels the classifier's input still has in their order."""
    backbone = find_backbone(network["model"]["name"])
    if not watched or network["attention"]["position"] not in ("residual", "post"):
        return 0
    _, stage, module = watched[-1]
    is_last = stage == len(backbone.stages) or stage == max(place.stage for place in backbone.insertion_points())
    return module.groups if is_last and module.channels == features.shape[1] else 0
