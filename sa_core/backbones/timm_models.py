"""timm's models, `timm/<name>`, with attention in every block that takes an `attn_layer`.

Which models do, and how wide their places are, is found out by building one on the meta device with an empty slot
as its attention layer, and running it: what is called with a feature map (B, C, H, W) is a place.
"""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from sa_core.backbones.insertion_points import TIMM, Backbone, InsertionPoint
from sa_core.errors import OptionError


class Slot(nn.Identity):
    """An empty slot that remembers how many channels it was made for."""

    def __init__(self, channels: int, **_ignored: Any) -> None:
        super().__init__()
        self.channels = channels


@dataclass(frozen=True)
class TimmBackbone(Backbone):
    """A model of timm; it has attention where timm puts it: in ResNets, after a block's last norm."""

    slots: tuple[InsertionPoint, ...] = ()

    def insertion_points(self, position: str = "residual") -> list[InsertionPoint]:
        """Returns the slots that timm's blocks have."""
        if position != "residual":
            raise OptionError("position", position, f"is not supported by {self.name}", ("residual",))
        return list(self.slots)


@cache
def find_timm_backbone(name: str) -> TimmBackbone:
    """Returns a model of timm by its name, `timm/resnet26` or `timm/resnet26.bt_in1k`.

    Raises:
        OptionError: if timm has no such model, or its blocks take no `attn_layer`.
    """
    architecture = name.removeprefix(TIMM)
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise OptionError("model", name, "unknown timm model", [f"{TIMM}{other}" for other in near])
    insertion_points = _probe(name)
    stages = {stage: number for number, stage in enumerate(dict.fromkeys(map(_stage_of, insertion_points)), start=1)}
    slots = tuple(
        InsertionPoint(stages[_stage_of(path)], path, channels) for path, channels in insertion_points.items()
    )
    return TimmBackbone(name, "timm", slots=slots)


def _probe(name: str) -> dict[str, int]:
    """Returns the channels at each slot that gets a feature map when the model runs, by its path, in that order."""
    with torch.device("meta"), torch.inference_mode():
        model = build(name, 10).eval()
        found: dict[str, int] = {}

        def note(path: str, slot: Slot, inputs: tuple[torch.Tensor, ...]) -> None:
            shape = inputs[0].shape
            if len(shape) != 4 or shape[1] != slot.channels:
                raise _refusal(name, "has an attn_layer for tokens, not for feature maps")
            found[path] = slot.channels

        for path, module in model.named_modules():
            if isinstance(module, Slot):
                module.register_forward_pre_hook(partial(note, path))
        model(torch.empty(1, *resolve_model_data_config(model)["input_size"]))
    return found


def build(name: str, num_classes: int, in_chans: int = 3) -> nn.Module:
    """Builds a model of timm, untrained, with empty slots."""
    architecture = name.removeprefix(TIMM)
    # ResNets pass their blocks' options on; models that are made from a description of blocks take it as their own.
    for options in ({"block_args": {"attn_layer": Slot}}, {"attn_layer": Slot}):
        with suppress(TypeError, AttributeError, AssertionError, ValueError):
            model: nn.Module = timm.create_model(architecture, num_classes=num_classes, in_chans=in_chans, **options)
            if any(isinstance(module, Slot) for module in model.modules()):
                return model
    raise _refusal(name, "has blocks that do not support attn_layer")


def _refusal(name: str, reason: str) -> OptionError:
    known = ("resnet26", "resnet50", "resnext50_32x4d", "res2net50_26w_4s", "gernet_s")
    return OptionError(
        "model", name, f"{reason}; supported models include {', '.join(f'{TIMM}{other}' for other in known)}"
    )


def _stage_of(path: str) -> str:
    """Returns the part of a module path that ends with its first number: `layer2` of `layer2.1.se`."""
    found = re.match(r".*?\d+", path)
    return found.group() if found else path
