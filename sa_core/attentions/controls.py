"""Controls that isolate the mechanism behind the effect of shuffle attention.

(`nn.Identity` at the insertion points is a control of the suite itself: its results must equal the plain network's.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core.attentions.declaration import default_of
from sa_core.attentions.knobs import ConstantKnobs, MatchedKnobs, groups_of
from sa_core.attentions.shuffle_attention import ShuffleAttention, in_layout_of


class ConstantGate(nn.Module):
    """A gate independent of the image: multiplies (B, C, H, W) by a constant that is not trained.

    The default is sigmoid(1), the initial value of the official gates. `channels`, `device` and `dtype` are ignored.
    """

    def __init__(
        self,
        channels: int,
        *,
        value: float = default_of(ConstantKnobs, "value"),
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        del channels, device, dtype
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        return x * self.value

    def extra_repr(self) -> str:
        """Shows the constant."""
        return f"{self.value:.4g}"


class RandomPermutation(nn.Module):
    """The shuffle without a gate: permutes the channels of (B, C, H, W).

    The permutation is drawn from torch's generator in the constructor and stored in the buffer `permutation`.
    """

    permutation: Tensor

    def __init__(self, channels: int, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        del dtype
        super().__init__()
        self.register_buffer("permutation", torch.randperm(channels, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        return in_layout_of(x, x.index_select(1, self.permutation))


class FrozenShuffleAttention(ShuffleAttention):
    """Shuffle attention with random gates that depend on the image but are not trained.

    Has the arguments of `ShuffleAttention`. The constructor adds standard normal noise from torch's generator to
    weights and biases.
    """

    def __init__(self, channels: int, groups: int | str = 64, **knobs: Any) -> None:
        super().__init__(channels, groups, **knobs)
        with torch.no_grad():
            for name in ("cweight", "cbias", "sweight", "sbias"):
                if hasattr(self, name):
                    parameter = getattr(self, name)
                    parameter.add_(torch.randn_like(parameter))
        self.requires_grad_(False)


class MatchedSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with the parameter count of shuffle attention: 6c, c = C / 2G, shared by all G groups.

    Each group of 2c channels is pooled, squeezed to one hidden unit (2c weights), and excited from it (2c weights and
    2c biases), as Hu et al. 2018 do with all channels. The hidden unit has no bias, so the counts are equal.

    Args:
        channels: C, divisible by `2 * groups`.
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
        knobs = MatchedKnobs(groups_of(MatchedKnobs, groups, channels), groups_policy)
        knobs.check(channels)
        self.groups = knobs.groups_on(channels)
        width = channels // self.groups
        self.squeeze = nn.Linear(width, 1, bias=False, device=device, dtype=dtype)
        self.excite = nn.Linear(1, width, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C, H, W)."""
        pooled = x.mean((2, 3)).unflatten(1, (self.groups, -1))  # (B, G, 2c)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
        return x * gate.flatten(1)[:, :, None, None].to(x.dtype)

    def extra_repr(self) -> str:
        """Shows the groups."""
        return f"groups={self.groups}"
