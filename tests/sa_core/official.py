"""The formulation of the official layer in PyTorch operations, as a reference for the project's module.

Written after Zhang and Yang 2021 and the structure of their code (wofmanaf/SA-Net): groups are folded into the batch,
the pooling is `nn.AdaptiveAvgPool2d`, the norm `nn.GroupNorm` with one group per channel, and the shuffle a copy. The
benchmark can time it with the modules (`bench.also`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OfficialShuffleAttention(nn.Module):
    """Shuffle attention over (B, C, H, W), in the formulation of the official code."""

    def __init__(self, channels: int, groups: int = 64) -> None:
        super().__init__()
        self.groups = groups
        c = channels // (2 * groups)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.cweight = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, c, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, c, 1, 1))
        self.sigmoid = nn.Sigmoid()
        self.gn = nn.GroupNorm(c, c)

    @staticmethod
    def channel_shuffle(x: Tensor, groups: int) -> Tensor:
        b, _, h, w = x.shape
        x = x.reshape(b, groups, -1, h, w)
        x = x.permute(0, 2, 1, 3, 4)
        return x.reshape(b, -1, h, w)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        x = x.reshape(b * self.groups, -1, h, w)
        x_0, x_1 = x.chunk(2, dim=1)

        xn = self.avg_pool(x_0)
        xn = self.cweight * xn + self.cbias
        xn = x_0 * self.sigmoid(xn)

        xs = self.gn(x_1)
        xs = self.sweight * xs + self.sbias
        xs = x_1 * self.sigmoid(xs)

        out = torch.cat([xn, xs], dim=1)
        out = out.reshape(b, -1, h, w)
        return self.channel_shuffle(out, 2)
