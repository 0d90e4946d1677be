"""What there is to choose from, and what fits where: known without importing torch.

The names and limits live here, apart from the networks themselves, so that a study of a thousand cells is checked
(and `--help` answered) before the seconds that importing torch takes are spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

BRANCHES = ("both", "channel", "spatial", "none")
NORMS = ("instance", "group:<k>", "layer", "batch", "none")


@dataclass(frozen=True)
class Stage:
    """One stage of a backbone: the places where attention may sit share their number of channels."""

    name: str
    channels: int
    blocks: int


def fitting_groups(channels: int) -> list[int]:
    """Returns the group counts that `channels` can be split into: the divisors of `channels / 2`, ascending."""
    return [groups for groups in range(1, channels // 2 + 1) if channels % (2 * groups) == 0]


def split_channels(channels: int, groups: int) -> int:
    """Returns C/2G, the channels of one branch of one group.

    Raises:
        ValueError: if `channels` does not split into `groups` groups of two equal halves.
    """
    if groups < 1 or channels < 2 or channels % (2 * groups):
        fitting = ", ".join(map(str, fitting_groups(channels))) or "none"
        raise ValueError(
            f"groups={groups} does not split {channels} channels into groups of two equal halves "
            f"(channels must be divisible by 2 * groups; for {channels} channels these are: {fitting})"
        )
    return channels // (2 * groups)


def norm_groups(norm: str, channels: int) -> int | None:
    """Returns how many groups GroupNorm takes over a branch of `channels` channels, None where `norm` is no GroupNorm.

    Raises:
        ValueError: if `norm` is unknown, or is `group:<k>` and k does not divide `channels`.
    """
    if norm in ("batch", "none"):
        return None
    if norm == "instance":
        return channels
    if norm == "layer":
        return 1
    kind, _, number = norm.partition(":")
    if kind != "group" or not number.isdecimal():
        raise ValueError(f"norm={norm} is not known; valid: {', '.join(NORMS)}")
    groups = int(number)
    if groups < 1 or channels % groups:
        fitting = ", ".join(f"group:{k}" for k in range(1, channels + 1) if channels % k == 0)
        raise ValueError(f"norm={norm} does not divide the {channels} channels of a branch; valid here: {fitting}")
    return groups


@dataclass(frozen=True)
class Knobs:
    """The options of an attention module, with their defaults; a module without options has just this."""

    def check(self, channels: int) -> None:
        """Checks that the module can stand on `channels` channels.

        Raises:
            ValueError: naming the knob, the value received, the reason and what would do.
        """


@dataclass(frozen=True)
class ShuffleAttentionKnobs(Knobs):
    """What `ShuffleAttention` can be told; the defaults are the official layer."""

    groups: int = field(default=64, metadata={"help": "Groups of channels, G; 2G must divide the channels."})
    branches: str = field(
        default="both", metadata={"help": "Gates that are there; a removed branch passes its half through."}
    )
    shuffle: bool = field(default=True, metadata={"help": "Whether a channel shuffle ends the module."})
    norm: str = field(
        default="instance", metadata={"help": "Norm of the spatial branch; instance is the official one."}
    )

    def check(self, channels: int) -> None:
        """Checks the split of the channels, and the norm over a branch's share of them."""
        if self.branches not in BRANCHES:
            raise ValueError(f"branches={self.branches} is not known; valid: {', '.join(BRANCHES)}")
        norm_groups(self.norm, split_channels(channels, self.groups))


ATTENTIONS: Mapping[str, type[Knobs]] = MappingProxyType({"none": Knobs, "sa": ShuffleAttentionKnobs})


def _cifar_resnet(depth: int) -> tuple[Stage, ...]:
    """Returns the stages of a CIFAR ResNet of depth 6n + 2 (He et al. 2015, section 4.2): 16, 32, 64 channels."""
    blocks = (depth - 2) // 6
    return tuple(Stage(f"layer{i}", channels, blocks) for i, channels in enumerate((16, 32, 64), start=1))


BACKBONES: Mapping[str, tuple[Stage, ...]] = MappingProxyType(
    {f"resnet{depth}": _cifar_resnet(depth) for depth in (8, 20, 32, 56)}
)
