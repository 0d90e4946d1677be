"""What a trained network does with test images: the gates that shuffle attention sets, and what the classifier gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ablations.analysis.sample import Sample, batches
from ablations.design.variants import NO_ATTENTION
from sa_core import ShuffleAttention
from sa_core.backbones.registry import find_backbone

CHANNEL, SPATIAL = "channel", "spatial"
_UNITS = 1024  # gates of a branch that are looked at, of a map that has more


@dataclass(frozen=True)
class Gates:
    """The gates of a branch of one module.

    `opened` is by how much, (images, gates); of a large map, it is a fixed choice of 1,024 gates.
    """

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
    classifier = _classifier(model)
    hooks = [classifier.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))]
    hooks += [module.register_forward_pre_hook(_gate_watcher(path, seen)) for path, _, module in watched]
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
    return Observation(
        gates, features.numpy(), classifier.weight.detach().numpy(), logits.numpy(), _groups(network, watched, features)
    )


def _last_of_each_stage(model: nn.Module, network: dict[str, Any]) -> list[tuple[str, int, ShuffleAttention]]:
    attention = network["attention"]
    if attention["name"] == NO_ATTENTION:
        return []
    places = find_backbone(network["model"]["name"]).selected_places(attention["position"], attention["stages"])
    found = {}
    for place in places:
        module = model.get_submodule(place.path)
        if isinstance(module, ShuffleAttention):
            found[place.stage] = (place.path, place.stage, module)
    return list(found.values())


def _gate_watcher(
    path: str, seen: dict[tuple[str, str], list[Tensor]]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def watch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, ShuffleAttention)
        if module.knobs.gate == "none":
            return
        for branch, gate in zip((CHANNEL, SPATIAL), module.gates(given[0]), strict=True):
            if gate is not None:
                seen.setdefault((path, branch), []).append(_some(gate.flatten(1)))

    return watch


def _some(gates: Tensor) -> Tensor:
    if gates.shape[1] <= _UNITS:
        return gates
    chosen = torch.randperm(gates.shape[1], generator=torch.Generator().manual_seed(0))[:_UNITS]
    return gates[:, chosen.sort().values]


def _classifier(model: nn.Module) -> nn.Linear:
    """Returns the layer that makes the logits, which in all backbones of the suite is the last linear one."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def _groups(network: dict[str, Any], watched: list[tuple[str, int, ShuffleAttention]], features: Tensor) -> int:
    """Returns the groups whose channels the classifier's input still has in their order."""
    backbone = find_backbone(network["model"]["name"])
    if not watched or network["attention"]["position"] not in ("residual", "post"):
        return 0
    _, stage, module = watched[-1]
    is_last = stage == len(backbone.stages) or stage == max(place.stage for place in backbone.places())
    return module.groups if is_last and module.channels == features.shape[1] else 0
