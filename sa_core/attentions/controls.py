"""Controls: what shuffle attention is compared with to learn which mechanism it owes its effect to.

(The empty slot, `nn.Identity`, is a control of the suite itself: it must come to what the plain network comes to.)
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
    """A gate that says nothing about the image: multiplies (B, C, H, W) by one number that does not learn.

    By default that is sigmoid(1), where the official gates start. Any `channels`, `device` and `dtype` will do.
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
        """Shows the number."""
        return f"{self.value:.4g}"


class RandomPermutation(nn.Module):
    """The shuffle without any gate: brings the channels of (B, C, H, W) into one order.

    That is drawn from torch's generator when the module is made, and kept in the buffer `permutation`.
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
    """Shuffle attention with gates that look at the image and do not learn: noise is added to weights and biases.

    Takes what `ShuffleAttention` takes; the noise, standard normal, is drawn from torch's generator when it is made.
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
    """Squeeze-and-excitation with the parameters of shuffle attention: 6c, c = C / 2G, shared by all G groups.

    Each group of 2c channels is pooled, squeezed to one hidden unit (2c weights), and excited from it (2c weights and
    2c biases), as Hu et al. 2018 do with all channels; the hidden unit has no bias, so the numbers match exactly.

    Args:
        channels: C, divisible by `2 * groups`.
        groups: G, or `auto`, as in shuffle attention.
        groups_policy: `strict` refuses a G that does not fit; `clamp` takes the most groups up to G that do.

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
