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

_NAMES = {
    "attentions.registry": ("ATTENTION",),
    "attentions.shuffle_attention": ("ShuffleAttention", "channel_shuffle"),
    "attentions.spatial_group_enhance": ("SpatialGroupEnhance",),
    "attentions.degenerate": ("find_degenerate", "map_shapes"),
    "backbones.create": ("create_model",),
    "backbones.sa_resnet": ("FeatureMaps", "sa_resnet18", "sa_resnet34", "sa_resnet50", "sa_resnet101"),
}
_MODULES = {name: f"sa_core.{module}" for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
