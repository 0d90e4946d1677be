"""The places in a backbone where attention may sit, as its table of stages tells them. Without torch.

A place is a block and a position in it, after the variants of Hu et al. 2018 (squeeze-and-excitation, section 6.5):

    residual   after the block's last norm, before the addition: where SE and SA-Net put it
    pre        before the block's first convolution, beside the shortcut
    post       after the addition
    shortcut   on the shortcut, after its projection where it has one

In ShuffleNetV2's units, which concatenate and shuffle instead of adding, `residual` is the end of the convolved half,
`pre` its start, `shortcut` the other half, and `post` stands after the shuffle.
"""

from __future__ import annotations

from dataclasses import dataclass

from sa_core.errors import OptionError

POSITIONS = ("residual", "pre", "post", "shortcut")
STEMS = ("imagenet", "cifar")
TIMM = "timm/"  # what names of models of timm begin with


@dataclass(frozen=True)
class InsertionPoint:
    """A place for attention: the number of its stage (from 1), its module path, and how many channels it has there."""

    stage: int
    path: str
    channels: int


@dataclass(frozen=True)
class Stage:
    """Blocks in a row that give out feature maps of `channels` channels; the first gets `in_channels`."""

    name: str
    in_channels: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class Backbone:
    """A network that attention is put into.

    `stems` are the first layers to choose from; a backbone without a choice has none.
    """

    name: str
    family: str
    stages: tuple[Stage, ...] = ()
    stems: tuple[str, ...] = ()

    def insertion_points(self, position: str = "residual") -> list[InsertionPoint]:
        """Returns the places at `position`, a place a block, in the order of the network.

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
        """Returns the places at `position` in the stages that `stages` names, as `select_stages` reads it."""
        insertion_points = self.insertion_points(position)
        chosen = select_stages(stages, max(place.stage for place in insertion_points), self.name)
        return [place for place in insertion_points if place.stage in chosen]


def select_stages(stages: str, count: int, backbone: str) -> set[int]:
    """Reads `all`, `first`, `last`, or numbers from 1 joined by `+`, as `2+3`.

    Raises:
        OptionError: if that names no stage of a backbone with `count` of them.
    """
    everything = set(range(1, count + 1))
    words = {"all": everything, "first": {1}, "last": {count}}
    if stages in words:
        return words[stages]
    chosen = {int(part) if part.isdecimal() else 0 for part in stages.split("+")}
    if not chosen <= everything:
        raise OptionError(
            "stages",
            stages,
            f"is not a valid choice: {backbone} has stages 1 to {count}; use for example 2+3",
            ("all", "first", "last"),
        )
    return chosen
