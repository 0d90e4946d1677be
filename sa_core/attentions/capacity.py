"""Capacity of a module at a given width: hidden units, groups, kernel size. Does not import torch.

Knobs of different modules are not directly comparable: timm rounds the hidden units of SE to a multiple of 8, those of
CBAM and GC to an integer, and ECA derives its kernel size from the width.
"""

from __future__ import annotations

from dataclasses import dataclass

from sa_core.attentions.declaration import Knobs
from sa_core.attentions.knobs import EfficientChannelKnobs, GroupedKnobs, ReducedKnobs


@dataclass(frozen=True)
class Capacity:
    """The capacity of a module at an insertion point; None for a quantity that the module lacks.

    Attributes:
        channels: width of the insertion point, C.
        hidden_units: units of the hidden layer of the channel gate (SE, CBAM, GC).
        kernel_size: number of channels from which each gate is computed (ECA).
        groups: groups of channels with shared parameters, G (SA and its controls, SGE).
    """

    channels: int
    hidden_units: int | None = None
    kernel_size: int | None = None
    groups: int | None = None

    @property
    def group_channels(self) -> int | None:
        """Channels per group, C / G."""
        return self.channels // self.groups if self.groups else None


def capacity_on(knobs: Knobs, channels: int) -> Capacity:
    """Returns the capacity of the module with these knobs on `channels` channels.

    Raises:
        OptionError: if the number of groups does not fit.
    """
    if isinstance(knobs, ReducedKnobs):
        return Capacity(channels, hidden_units=knobs.hidden_units_on(channels))
    if isinstance(knobs, EfficientChannelKnobs):
        return Capacity(channels, kernel_size=knobs.kernel_size_on(channels))
    if isinstance(knobs, GroupedKnobs):
        return Capacity(channels, groups=knobs.groups_on(channels))
    return Capacity(channels)
