"""Attention by name: `ATTENTION[name](channels, **knobs)` is a module that keeps the shape (B, C, H, W).

Rivals that timm has are timm's layers, configured as in their papers; docstrings name differences to timm's defaults.
The knobs are declared in `sa_core.attentions.knobs`. timm is imported when a rival is built, as that takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from sa_core.attentions.controls import (
    ConstantGate,
    FrozenShuffleAttention,
    MatchedSqueezeExcitation,
    RandomPermutation,
)
from sa_core.attentions.knobs import CbamKnobs, EfficientChannelKnobs, GlobalContextKnobs, SqueezeExcitationKnobs
from sa_core.attentions.shuffle_attention import ShuffleAttention
from sa_core.attentions.spatial_group_enhance import SpatialGroupEnhance
from sa_core.errors import needed


def identity(channels: int, *, device: Any = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The identity: the plain backbone."""
    del channels, device, dtype
    return nn.Identity()


def _given(device: Any, dtype: torch.dtype | None) -> dict[str, Any]:
    """Returns the arguments that are not None: timm's layers accept them since 1.0.21."""
    return {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}


def squeeze_excitation(
    channels: int, *, reduction: int = 16, device: Any = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """SE (Hu et al. 2018): pooling, two layers with biases, sigmoid.

    timm rounds the hidden units to a multiple of 8: no change from 128 channels on, but more units than in the paper
    on narrower maps (8 instead of 1 on 16 channels).
    """
    SqueezeExcitationKnobs(reduction).check(channels)
    with needed("timm", "attention=se"):
        from timm.layers.squeeze_excite import SEModule

    return SEModule(channels, rd_ratio=1 / reduction, **_given(device, dtype))


def efficient_channel(
    channels: int, *, kernel_size: int = 0, device: Any = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """ECA (Wang et al. 2020): pooling, a convolution along the channels, sigmoid.

    With `kernel_size=0` the paper's rule computes it from the number of channels: 5, 5, 5 and 7 in ResNet-50, where
    the official weights have 3, 5, 5 and 7.
    """
    EfficientChannelKnobs(kernel_size).check(channels)
    with needed("timm", "attention=eca"):
        from timm.layers.eca import EcaModule

    if kernel_size:
        return EcaModule(None, kernel_size=kernel_size, **_given(device, dtype))
    return EcaModule(channels, **_given(device, dtype))


def cbam(
    channels: int,
    *,
    reduction: int = 16,
    kernel_size: int = 7,
    mlp_bias: bool = True,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """CBAM (Woo et al. 2018): a channel gate from average and maximum, then a spatial gate.

    By default timm omits the biases of the channel gate's two layers; the official code has them (16,048 in ResNet-50).
    """
    CbamKnobs(reduction, kernel_size, mlp_bias).check(channels)
    with needed("timm", "attention=cbam"):
        from timm.layers.cbam import CbamModule

    return CbamModule(
        channels, rd_ratio=1 / reduction, spatial_kernel_size=kernel_size, mlp_bias=mlp_bias, **_given(device, dtype)
    )


def global_context(
    channels: int, *, reduction: int = 16, fusion: str = "add", device: Any = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """GC (Cao et al. 2019): an attention-weighted mean over positions, two layers with a layer norm between, fusion.

    The paper adds the context, with reduction 16; timm's defaults multiply by it as a gate, with reduction 8.
    """
    GlobalContextKnobs(reduction, fusion).check(channels)
    with needed("timm", "attention=gc"):
        from timm.layers.global_context import GlobalContext

    return GlobalContext(
        channels,
        rd_ratio=1 / reduction,
        fuse_add=fusion == "add",
        fuse_scale=fusion == "scale",
        **_given(device, dtype),
    )


ATTENTION: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "none": identity,
        "sa": ShuffleAttention,
        "se": squeeze_excitation,
        "eca": efficient_channel,
        "cbam": cbam,
        "gc": global_context,
        "sge": SpatialGroupEnhance,
        "identity": identity,
        "constant": ConstantGate,
        "frozen": FrozenShuffleAttention,
        "permute": RandomPermutation,
        "se_matched": MatchedSqueezeExcitation,
    }
)
