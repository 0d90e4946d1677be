"""Blocks of backbones with an insertion point for attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core.fused.block import end_of_block


class AttentionBlock(nn.Module):
    """A block with a residual path and a shortcut; its attention module is named `sa`, as in the official code.

    Subclasses define the paths. `position` is the insertion point, see `sa_core.backbones.insertion_points`.
    """

    __constants__ = ("position", "fused")  # for TorchScript, which compiles torch's operations
    position: str = "residual"
    fused: bool = False  # whether the end of the block is computed in one pass where supported
    last_norm: str = ""  # name of the norm that ends the residual path, before addition and ReLU

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.sa: nn.Module = nn.Identity()

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the inputs of the residual path and of the shortcut: in ResNets, the input of the block."""
        return x, x

    def convolved(self, x: Tensor) -> Tensor:
        """The residual path up to its last convolution."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """The residual path, with its last norm."""
        raise NotImplementedError

    def shortcut(self, x: Tensor) -> Tensor:
        """The shortcut."""
        raise NotImplementedError

    def join(self, residual: Tensor, shortcut: Tensor) -> Tensor:
        """Combines both paths: in ResNets by addition and ReLU."""
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
        """`forward` with the end of the block fused; where that is not supported, with separate operations."""
        convolved, shortcut = self.convolved(residual), self.shortcut(shortcut)
        norm = self.get_submodule(self.last_norm)
        out = end_of_block(convolved, norm, self.sa, shortcut)
        return self.join(self.sa(norm(convolved)), shortcut) if out is None else out
