"""The insertion points of a backbone for attention, computed from its table of stages. Does not import torch.

An insertion point is a block and a position in it (Hu et al. 2018, squeeze-and-excitation, section 6.5):

    residual   after the block's last norm, before the addition, as in SE and SA-Net
    pre        before the first convolution of the residual path
    post       after the addition
    shortcut   on the shortcut, after its projection if it has one

In ShuffleNetV2's units, which concatenate and shuffle instead of adding, `residual` is the end of the convolved half,
`pre` its start, `shortcut` the other half, and `post` follows the shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass

from sa_core.errors import OptionError

POSITIONS = ("residual", "pre", "post", "shortcut")
STEMS = ("imagenet", "cifar")
TIMM = "timm/"  # prefix of the names of timm's models


@dataclass(frozen=True)
class InsertionPoint:
    """An insertion point: the number of its stage (from 1), its module path, and its number of channels."""

    stage: int
    path: str
    channels: int


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks whose output has `channels` channels; the input of the first has `in_channels`."""

    name: str
    in_channels: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Backbone:
    """A network with insertion points; `stems` are the stems to choose from, if there is a choice."""

    name: str
    family: str
    stages: tuple[Stage, ...] = ()
    stems: tuple[str, ...] = ()

    def insertion_points(self, position: str = "residual") -> list[InsertionPoint]:
        """Returns the insertion points at `position`, one per block, in the order of the network.

        Raises:
            OptionError: if there is no such position.
        """
        if position not in POSITIONS:
            raise OptionError("position", position, "is not a valid choice", POSITIONS)
        return [
            InsertionPoint(number, f"{stage.name}.{block}.sa", self._channels(stage, block, position))
            for number, stage in enumerate(self.stages, start=1)
            for block in range(stage.blocks)
        ]

    def _channels(self, stage: Stage, block: int, position: str) -> int:
        halved = self.family == "shufflenet" and position != "post"
        if position == "pre" and block == 0:
            return stage.in_channels
        return stage.channels // 2 if halved else stage.channels

    def selected_points(self, position: str, stages: str) -> list[InsertionPoint]:
        """Returns the insertion points at `position` in the given stages (see `select_stages`)."""
        insertion_points = self.insertion_points(position)
        selected = select_stages(stages, max(point.stage for point in insertion_points), self.name)
        return [point for point in insertion_points if point.stage in selected]


def select_stages(stages: str, count: int, backbone: str) -> set[int]:
    """Parses `all`, `first`, `last`, or numbers joined by `+`, such as `2+3`, for a backbone with `count` stages.

    Raises:
        OptionError: if the value is something else, or there is no such stage.
    """
    every_stage = set(range(1, count + 1))
    names = {"all": every_stage, "first": {1}, "last": {count}}
    if stages in names:
        return names[stages]
    selected = {int(part) if part.isdecimal() else 0 for part in stages.split("+")}
    if not selected <= every_stage:
        reason = f"is not a valid choice: {backbone} has stages 1 to {count}; use for example 2+3"
        raise OptionError("stages", stages, reason, names)
    return selected
