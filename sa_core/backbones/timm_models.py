"""timm's models, `timm/<name>`, with attention in every block that accepts an `attn_layer`.

The insertion points and their widths are found by building the model on the meta device with an empty attention layer
and running it: each such layer that is called with a feature map (B, C, H, W) is an insertion point.
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


class EmptyInsertionPoint(nn.Identity):
    """An empty attention layer that stores its number of channels."""

    def __init__(self, channels: int, **_ignored: Any) -> None:
        super().__init__()
        self.channels = channels


@dataclass(frozen=True)
class TimmBackbone(Backbone):
    """A model of timm. timm's code fixes the position of attention: in ResNets, after a block's last norm."""

    points: tuple[InsertionPoint, ...] = ()

    def insertion_points(self, position: str = "residual") -> list[InsertionPoint]:
        """Returns the insertion points of timm's blocks."""
        if position != "residual":
            raise OptionError("position", position, f"is not supported by {self.name}", ("residual",))
        return list(self.points)


@cache
def find_timm_backbone(name: str) -> TimmBackbone:
    """Returns a model of timm by name, such as `timm/resnet26` or `timm/resnet26.bt_in1k`.

    Raises:
        OptionError: if timm has no such model, or its blocks do not accept `attn_layer`.
    """
    architecture = name.removeprefix(TIMM)
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise OptionError("model", name, "unknown timm model", [TIMM + near_name for near_name in near])
    widths = _widths(name)
    stages = list(dict.fromkeys(map(_stage_of, widths)))
    points = [InsertionPoint(1 + stages.index(_stage_of(path)), path, channels) for path, channels in widths.items()]
    return TimmBackbone(name, "timm", points=tuple(points))


def _widths(name: str) -> dict[str, int]:
    """Returns the number of channels of each insertion point by its path, in the order of the forward pass."""
    with torch.device("meta"), torch.inference_mode():
        model = build(name, 10).eval()
        widths: dict[str, int] = {}

        def record(path: str, layer: EmptyInsertionPoint, inputs: tuple[torch.Tensor, ...]) -> None:
            shape = inputs[0].shape
            if len(shape) != 4 or shape[1] != layer.channels:
                raise _unsupported(name, "has an attn_layer for tokens, not for feature maps")
            widths[path] = layer.channels

        for path, module in model.named_modules():
            if isinstance(module, EmptyInsertionPoint):
                module.register_forward_pre_hook(partial(record, path))
        model(torch.empty(1, *resolve_model_data_config(model)["input_size"]))
    return widths


def build(name: str, num_classes: int, in_chans: int = 3) -> nn.Module:
    """Builds a model of timm, untrained, with empty insertion points."""
    layer = {"attn_layer": EmptyInsertionPoint}
    # ResNets pass `block_args` to their blocks; models built from a block configuration take `attn_layer` directly.
    for options in ({"block_args": layer}, layer):
        with suppress(TypeError, AttributeError, AssertionError, ValueError):
            model: nn.Module = timm.create_model(
                name.removeprefix(TIMM), num_classes=num_classes, in_chans=in_chans, **options
            )
            if any(isinstance(module, EmptyInsertionPoint) for module in model.modules()):
                return model
    raise _unsupported(name, "has blocks that do not support attn_layer")


def _unsupported(name: str, reason: str) -> OptionError:
    examples = ", ".join(
        TIMM + model for model in ("resnet26", "resnet50", "resnext50_32x4d", "res2net50_26w_4s", "gernet_s")
    )
    return OptionError("model", name, f"{reason}; supported models include {examples}")


def _stage_of(path: str) -> str:
    """Returns a module path up to its first number: `layer2` for `layer2.1.se`."""
    match = re.match(r".*?\d+", path)
    return match.group() if match else path
