"""Shuffle attention and its rivals, as layers and networks to import.

    from sa_core import ShuffleAttention, create_model

Names are imported on first use, so parts without torch, such as `sa_core.attentions.knobs`, import quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa_core.attentions.degenerate import find_degenerate as find_degenerate
    from sa_core.attentions.degenerate import map_shapes as map_shapes
    from sa_core.attentions.registry import ATTENTION as ATTENTION
    from sa_core.attentions.shuffle_attention import ShuffleAttention as ShuffleAttention
    from sa_core.attentions.shuffle_attention import channel_shuffle as channel_shuffle
    from sa_core.attentions.spatial_group_enhance import SpatialGroupEnhance as SpatialGroupEnhance
    from sa_core.backbones.create import create_model as create_model
    from sa_core.backbones.sa_resnet import FeatureMaps as FeatureMaps
    from sa_core.backbones.sa_resnet import sa_resnet18 as sa_resnet18
    from sa_core.backbones.sa_resnet import sa_resnet34 as sa_resnet34
    from sa_core.backbones.sa_resnet import sa_resnet50 as sa_resnet50
    from sa_core.backbones.sa_resnet import sa_resnet101 as sa_resnet101

_HOMES = {
    "ATTENTION": "sa_core.attentions.registry",
    "ShuffleAttention": "sa_core.attentions.shuffle_attention",
    "channel_shuffle": "sa_core.attentions.shuffle_attention",
    "SpatialGroupEnhance": "sa_core.attentions.spatial_group_enhance",
    "FeatureMaps": "sa_core.backbones.sa_resnet",
    "create_model": "sa_core.backbones.create",
    "find_degenerate": "sa_core.attentions.degenerate",
    "map_shapes": "sa_core.attentions.degenerate",
    "sa_resnet18": "sa_core.backbones.sa_resnet",
    "sa_resnet34": "sa_core.backbones.sa_resnet",
    "sa_resnet50": "sa_core.backbones.sa_resnet",
    "sa_resnet101": "sa_core.backbones.sa_resnet",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
