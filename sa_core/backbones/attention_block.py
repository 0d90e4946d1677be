"""Blocks of backbones with an insertion point for attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core.fused.block import end_of_block


class AttentionBlock(nn.Module):
    """A block of a residual path and a shortcut; its attention module is named `sa`, as in the official code.

    A subclass defines the paths. `position` is the insertion point, see `sa_core.backbones.insertion_points`.
    """

    __constants__ = ("position", "fused")  # for TorchScript, which compiles the torch path
    position: str = "residual"
    fused: bool = False  # whether the block's end is computed in one pass where that can be had
    last_norm: str = ""  # the name of the norm that ends the residual path, where addition and ReLU follow

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.sa: nn.Module = nn.Identity()

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the residual path and the shortcut start from: in ResNets, the same."""
        return x, x

    def convolved(self, x: Tensor) -> Tensor:
        """The block's convolutions, with the norms between them."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """The block's convolutions and norms."""
        raise NotImplementedError

    def shortcut(self, x: Tensor) -> Tensor:
        """What stands beside them."""
        raise NotImplementedError

    def join(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """Brings the two together: in ResNets, by addition."""
        return F.relu(residual + shortcut, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Runs the block with attention at its position."""
        residual, shortcut = self.paths(x)
        if self.position == "pre":
            residual = self.sa(residual)
        if not torch.jit.is_scripting() and self.fused and self.position == "residual":  # type: ignore[attr-defined]
            return self._fused_forward(residual, shortcut)
        residual, shortcut = self.residual(residual), self.shortcut(shortcut)
        if self.position == "residual":
            residual = self.sa(residual)
        elif self.position == "shortcut":
            shortcut = self.sa(shortcut)
        out = self.join(residual, shortcut)
        return self.sa(out) if self.position == "post" else out

    def _fused_forward(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """The same with attention at the end of the residual path; what cannot be fused is computed as it stands."""
        convolved, shortcut = self.convolved(residual), self.shortcut(shortcut)
        norm = self.get_submodule(self.last_norm)
        out = end_of_block(convolved, norm, self.sa, shortcut)
        return self.join(self.sa(norm(convolved)), shortcut) if out is None else out
