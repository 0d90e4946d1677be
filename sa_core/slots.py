"""The slot that a block of a backbone has for attention, and where in the block it stands."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SlottedBlock(nn.Module):
    """A block of a residual path and a shortcut, with a slot for attention that is named `sa` as in the official code.

    A subclass says what its paths are. `position` is where attention stands; `sa_core.places` tells what each means.
    """

    position: str = "residual"

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.sa: nn.Module = nn.Identity()

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the residual path and the shortcut start from: in ResNets, the same."""
        return x, x

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
        residual, shortcut = self.residual(residual), self.shortcut(shortcut)
        if self.position == "residual":
            residual = self.sa(residual)
        elif self.position == "shortcut":
            shortcut = self.sa(shortcut)
        out = self.join(residual, shortcut)
        return self.sa(out) if self.position == "post" else out
