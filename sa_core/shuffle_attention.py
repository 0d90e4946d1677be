"""Shuffle attention (SA): channel and spatial gates on two halves of each group of channels, then a channel shuffle.

Source: Zhang and Yang, "SA-Net: Shuffle Attention for Deep Convolutional Neural Networks", ICASSP 2021,
arXiv 2102.00240, section 3; official code wofmanaf/SA-Net. `forward` is written to be read beside the paper.
Parameter names, shapes and initial values are the official layer's, so its state dicts load with `strict=True`.

The `group norm` of the paper has one group per channel: it is instance normalisation with an affine transform.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sa_core.catalog import ShuffleAttentionKnobs, norm_groups


class ShuffleAttention(nn.Module):
    """Shuffle attention over feature maps of shape (B, C, H, W); the output has the input's shape.

    With G groups, each branch of each group has c = C / 2G channels, and all groups share the parameters
    `cweight, cbias, sweight, sbias` of shape (1, c, 1, 1) and the affine parameters of the norm, of shape (c,).
    A variant without a branch has none of that branch's parameters, so none is left without a gradient.

    Args:
        channels: C, divisible by `2 * groups`.
        groups: G. The paper's 64 needs at least 128 channels.
        branches: which gates are there: `both`, `channel`, `spatial` or `none`. A removed branch passes its half of
            the channels through untouched.
        shuffle: whether the channel shuffle with two groups ends the module.
        norm: what normalises the spatial branch: `instance` (the official one), `group:<k>` (k groups over the
            branch's c channels), `layer` (one group), `batch`, or `none`.
        device, dtype: as in every `torch.nn` module.

    Raises:
        ValueError: if the knobs do not fit `channels`; the message says which values would.
    """

    def __init__(
        self,
        channels: int,
        groups: int = 64,
        *,
        branches: str = "both",
        shuffle: bool = True,
        norm: str = "instance",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        ShuffleAttentionKnobs(groups, branches, shuffle, norm).check(channels)
        self.channels, self.groups = channels, groups
        self.branches, self.shuffle, self.norm = branches, shuffle, norm
        c = channels // (2 * groups)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        # Weight 0 and bias 1: every gate starts as the constant sigmoid(1) = 0.731.
        if branches in ("both", "channel"):
            self.cweight = nn.Parameter(torch.zeros(1, c, 1, 1, **factory))
            self.cbias = nn.Parameter(torch.ones(1, c, 1, 1, **factory))
        if branches in ("both", "spatial"):
            self.sweight = nn.Parameter(torch.zeros(1, c, 1, 1, **factory))
            self.sbias = nn.Parameter(torch.ones(1, c, 1, 1, **factory))
            self.gn = _make_norm(norm, c, factory)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        batch, channels, height, width = x.shape
        # Under autocast the gates are computed in the parameters' precision and applied in that of x.
        x0, x1 = x.reshape(batch * self.groups, -1, height, width).chunk(2, dim=1)
        if self.branches in ("both", "channel"):
            # Equations 1 and 2: global average pooling, F_c, gate.
            pooled = x0.mean((2, 3), keepdim=True)
            x0 = x0 * torch.sigmoid(self.cweight * pooled + self.cbias).to(x.dtype)
        if self.branches in ("both", "spatial"):
            # Equation 3: norm, F_c, gate.
            x1 = x1 * torch.sigmoid(self.sweight * self.gn(x1) + self.sbias).to(x.dtype)
        out = torch.cat([x0, x1], dim=1).reshape(batch, channels, height, width)
        return channel_shuffle(out, 2) if self.shuffle else out

    def extra_repr(self) -> str:
        """Shows every knob: two variants that differ look different."""
        return (
            f"{self.channels}, groups={self.groups}, branches={self.branches}, shuffle={self.shuffle}, norm={self.norm}"
        )


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves `groups` blocks of channels of a (B, C, H, W) tensor: channel i of block k goes to i * groups + k."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


def _make_norm(norm: str, channels: int, factory: dict[str, Any]) -> nn.Module:
    groups = norm_groups(norm, channels)
    if groups is not None:
        return nn.GroupNorm(groups, channels, **factory)
    return nn.BatchNorm2d(channels, **factory) if norm == "batch" else nn.Identity()
