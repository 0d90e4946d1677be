"""Attention by name: `ATTENTION[name](channels, **knobs)` is a module that keeps the shape (B, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from sa_core.shuffle_attention import ShuffleAttention


def _none(_channels: int) -> nn.Module:
    """Nothing at all: the plain backbone."""
    return nn.Identity()


ATTENTION: Mapping[str, Callable[..., nn.Module]] = MappingProxyType({"none": _none, "sa": ShuffleAttention})
