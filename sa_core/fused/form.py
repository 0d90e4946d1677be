"""What the fused operator is told beside its tensors, and the tensors that it makes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_NOTHING = torch.empty(0)  # has no address


class Form(NamedTuple):
    """Which function is computed.

    Args:
        groups: groups of channels, G.
        split: how many channels of a group come before its spatial branch: c, or 0 or C / G where one branch has all.
        channel_gate: whether those channels are gated by their means; otherwise they pass.
        spatial_gate: what the other channels are gated by: themselves after instance normalisation (`instance`),
            themselves as they are (`plain`), or nothing (`none`).
        shuffle_groups: blocks of channels that the shuffle interleaves; 1 is no shuffle.
        norm: the batch norm before the gates: `none`, by `running` statistics, or by those of the `batch`.
        gn_epsilon, bn_epsilon: what is added to variances.
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
        """Returns how many numbers each of the `Parameters` has on so many channels."""
        rest = channels // self.groups - self.split
        return (self.split, self.split, rest, rest, rest, rest, channels, channels)


class Parameters(NamedTuple):
    """What is learnt, in float32; None is a weight of 1 or a bias of 0.

    Of the gates there is a number for each channel of a branch in a group, of the batch norm one for each channel.
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
    """Returns the layout in which a map is worked on: channels_last where it comes in no other."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def new_results(x: Tensor, form: Form, *, kept: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns room for what forward computes.

    That is the map (B, C, H, W); `rows` (2, B, C), of each channel of each image its mean less its first value, and its
    variance, or two others of which both follow; and `moments` (3, C), mean and variance that the batch norm uses, and
    what that mean lacks for being a float32. Backward needs the last two beside x, and the first if it ends in a ReLU;
    unless they are `kept` for it, there is no room for the `rows`.
    """
    images, channels = x.shape[:2]
    return (
        torch.empty_like(x, memory_format=layout_of(x)),
        torch.empty((2, images, channels), dtype=torch.float32, device=x.device) if kept else _NOTHING,
        None if form.norm == "none" else torch.empty((3, channels), dtype=torch.float32, device=x.device),
    )


def new_gradients(x: Tensor, form: Form, *, joined: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Returns room for what backward computes.

    That is the gradients of x and, if something was added to the result, of that; of the gates' parameters, a row for
    each in the order of `Parameters`, filled from the left, as wide as the wider branch; and of weight and bias of the
    batch norm, (2, C).
    """
    channels, layout = x.shape[1], layout_of(x)
    width = max(form.widths(channels)[:6])
    return (
        torch.empty_like(x, memory_format=layout),
        torch.empty_like(x, memory_format=layout) if joined else None,
        torch.zeros((6, width), dtype=torch.float32, device=x.device),
        None if form.norm == "none" else torch.empty((2, channels), dtype=torch.float32, device=x.device),
    )
