"""Spatial group-wise enhance (SGE), a rival that is not in timm.

Source: Li, Hu and Yang, "Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks",
2019, arXiv 1905.09646; official code implus/PytorchInsight. Names, shapes and initial values are the official ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sa_core.attentions.knobs import SpatialGroupEnhanceKnobs, groups_of

_EPSILON = 1e-5


class SpatialGroupEnhance(nn.Module):
    """SGE over feature maps of shape (B, C, H, W); the output has the input's shape and memory format.

    In each group, the gate of a position is its scalar product with the group's mean, standardised over the positions,
    then an affine transform (weight and bias of shape (1, G, 1, 1)), then a sigmoid.

    Args:
        channels: C, divisible by `groups`.
        groups: G, or `auto`, as in shuffle attention.
        groups_policy: if G does not fit, `strict` raises an error, `clamp` uses the largest number up to G that fits.

    Raises:
        OptionError (a ValueError): if the knobs do not fit `channels`.
    """

    def __init__(
        self,
        channels: int,
        groups: int | str = 64,
        *,
        groups_policy: str = "strict",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        knobs = SpatialGroupEnhanceKnobs(groups_of(SpatialGroupEnhanceKnobs, groups, channels), groups_policy)
        knobs.check(channels)
        self.channels, self.groups = channels, knobs.groups_on(channels)
        self.weight = nn.Parameter(torch.zeros(1, self.groups, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.ones(1, self.groups, 1, 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        grouped = x.unflatten(1, (self.groups, -1))  # (B, G, C/G, H, W), a view in either memory format
        agreement = (grouped * grouped.mean((3, 4), keepdim=True)).sum(2)
        agreement = agreement.to(torch.promote_types(agreement.dtype, torch.float32))
        centred = agreement - agreement.mean((2, 3), keepdim=True)
        # Divided by n - 1, as in the official code; a single position has a deviation of 0.
        correction = 1 if x.shape[2] * x.shape[3] > 1 else 0
        deviation = agreement.std((2, 3), correction=correction, keepdim=True) + _EPSILON
        gate = torch.sigmoid(self.weight * (centred / deviation) + self.bias).to(x.dtype)
        out: Tensor = (grouped * gate.unsqueeze(2)).flatten(1, 2)
        return out

    def extra_repr(self) -> str:
        """Shows channels and groups."""
        return f"{self.channels}, groups={self.groups}"
