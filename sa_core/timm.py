"""Registers SA-ResNets with timm: `timm.create_model("sa_resnet50")` builds them after `import sa_core.timm`.

The networks are those of `sa_core.sa_resnet50` etc.; timm adds `features_only`, `in_chans`, checkpoints and its
training scripts. There are no pretrained weights; `checkpoint_path=` accepts the official ones.
"""

from __future__ import annotations

from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from sa_core.backbones.sa_resnet import SA_RESNETS

default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for name in SA_RESNETS
    }
)


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    network: nn.Module = build_model_with_cfg(
        SA_RESNETS[name], name, pretrained, kwargs_filter=("global_pool",), **options
    )
    return network


@register_model
def sa_resnet18(pretrained: bool = False, **options: Any) -> nn.Module:
    """SA-ResNet-18 with 16 groups."""
    return _build("sa_resnet18", pretrained, options)


@register_model
def sa_resnet34(pretrained: bool = False, **options: Any) -> nn.Module:
    """SA-ResNet-34 with 16 groups."""
    return _build("sa_resnet34", pretrained, options)


@register_model
def sa_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:
    """SA-ResNet-50 with the official 64 groups."""
    return _build("sa_resnet50", pretrained, options)


@register_model
def sa_resnet101(pretrained: bool = False, **options: Any) -> nn.Module:
    """SA-ResNet-101 with the official 64 groups."""
    return _build("sa_resnet101", pretrained, options)
