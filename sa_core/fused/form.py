"""The options of the fused operator, its parameters, and the tensors that it allocates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NOTHING = torch.empty(0)  # its address is null


class Form(NamedTuple):
    """The function that the operator computes.

    Args:
        groups: groups of channels, G.
        split: channels of a group before its spatial branch: c, or 0 or C / G if one branch has the whole group.
        channel_gate: whether these channels have a gate computed from their means; otherwise they pass unchanged.
        spatial_gate: input of the gate of the remaining channels: their values after instance normalization
            (`instance`), their values (`plain`), or no gate (`none`).
        shuffle_groups: channel blocks that the shuffle interleaves; 1 for no shuffle.
        norm: batch norm before the gates: `none`, with `running` statistics, or with those of the `batch`.
        gn_epsilon, bn_epsilon: constants added to the variances.
    """

    groups: int
    split: int
    channel_gate: bool
    spatial_gate: str
    shuffle_groups: int
    norm: str = "none"
    gn_epsilon: float = 1e-5
    bn_epsilon: float = 1e-5

    def widths(self, channels: int) -> tuple[int, ...]:
        """Returns the number of elements of each of the `Parameters` on `channels` channels."""
        rest = channels // self.groups - self.split
        return (self.split, self.split, rest, rest, rest, rest, channels, channels)


class Parameters(NamedTuple):
    """The trained parameters, in float32; None is a weight of 1 or a bias of 0.

    Gates and norm of a branch have one value per channel of the branch in a group, the batch norm one per channel.
    """

    cweight: Tensor | None = None
    cbias: Tensor | None = None
    sweight: Tensor | None = None
    sbias: Tensor | None = None
    gn_weight: Tensor | None = None
    gn_bias: Tensor | None = None
    bn_weight: Tensor | None = None
    bn_bias: Tensor | None = None


def layout_of(x: Tensor) -> torch.memory_format:
    """Returns the memory format that kernels use for a map: channels_last only if the map is not contiguous."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def new_results(x: Tensor, form: Form, *, kept: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """Allocates the results of forward.

    These are the map (B, C, H, W); `rows` (2, B, C), for each channel of each image its mean minus its first value, and
    its variance, or an equivalent pair of numbers; and `moments` (3, C), mean and variance of the batch norm, and the
    rounding error of that mean. Backward needs the last two and x, and the first if it ends in a ReLU. `rows` is empty
    unless `kept` for backward.
    """
    images, channels = x.shape[:2]
    return (
        torch.empty_like(x, memory_format=layout_of(x)),
        torch.empty((2, images, channels), dtype=torch.float32, device=x.device) if kept else _NOTHING,
        None if form.norm == "none" else torch.empty((3, channels), dtype=torch.float32, device=x.device),
    )


def new_gradients(x: Tensor, form: Form, *, joined: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Allocates the results of backward.

    These are the gradients of x and, if `joined`, of the shortcut; of the gates' parameters, one row each in the order
    of `Parameters`, left-aligned and as wide as the wider branch; and of weight and bias of the batch norm, (2, C).
    """
    channels, layout = x.shape[1], layout_of(x)
    width = max(form.widths(channels)[:6])
    return (
        torch.empty_like(x, memory_format=layout),
        torch.empty_like(x, memory_format=layout) if joined else None,
        torch.zeros((6, width), dtype=torch.float32, device=x.device),
        None if form.norm == "none" else torch.empty((2, channels), dtype=torch.float32, device=x.device),
    )
