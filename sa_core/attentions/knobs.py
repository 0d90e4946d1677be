"""The options of every attention module: type, default (the paper's), meaning and valid values.

They are separate from the modules, so that a study is checked, and `--help` shown, without the seconds that importing
torch takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from sa_core.attentions.declaration import Knobs, knob
from sa_core.attentions.findings import (
    CONSTANT_GATE,
    INPUT_INDEPENDENT,
    NO_GRADIENT,
    SINGLE_HIDDEN_UNIT,
    Finding,
)
from sa_core.errors import OptionError

AUTO = "auto"  # number of groups proportional to the width
PAPER_GROUPS = 64
_PAPER_GROUP_CHANNELS = 4  # channels per group with G = 64 in the narrowest stage of ResNet-50 (256 channels)
PAPER_REDUCTION = 16
_PAPER_HIDDEN_UNITS = 16  # hidden units with a reduction of 16 in that stage


@dataclass(frozen=True)
class GroupedKnobs(Knobs):
    """Knobs of modules that share their parameters between groups of channels."""

    _multiple: ClassVar[int] = 1  # the number of channels per group is a multiple of it
    _misfit: ClassVar[str] = "does not divide {channels} channels"

    groups: int = knob(PAPER_GROUPS, "Groups of channels, G.", minimum=1)
    groups_policy: str = knob(
        "strict",
        "If G does not fit the channels of an insertion point: strict raises an error, clamp uses the largest number "
        "of groups up to G that fits.",
        choices=("strict", "clamp"),
    )

    @classmethod
    def fitting_groups(cls, channels: int) -> list[int]:
        """Returns the group counts that `channels` can be split into, ascending."""
        most = channels // cls._multiple
        return [groups for groups in range(1, most + 1) if channels % (groups * cls._multiple) == 0]

    def groups_on(self, channels: int) -> int:
        """Returns the number of groups on `channels` channels: `groups`, or fewer where the policy is `clamp`.

        Raises:
            OptionError: if `groups` does not fit; the message lists the numbers that do.
        """
        fitting = self.fitting_groups(channels)
        most = max((groups for groups in fitting if groups <= self.groups), default=0)
        if most and (most == self.groups or self.groups_policy == "clamp"):
            return most
        listed = f"valid for {channels} channels: {', '.join(map(str, fitting)) or 'none'}"
        raise OptionError("groups", self.groups, f"{self._misfit.format(channels=channels)} ({listed})")

    def check_channels(self, channels: int) -> None:
        """Checks the split of the channels."""
        self.groups_on(channels)


def default_groups(knobs: type[GroupedKnobs], channels: Iterable[int]) -> int:
    """Scales the paper's G = 64 for ResNet-50 to insertion points with these numbers of channels.

    Returns the largest number up to 64 that fits every insertion point and leaves at least four channels per group in
    the narrowest: 64 for ResNet-50 and ResNet-101, 16 for ResNet-18 and ResNet-34, 4 for the CIFAR ResNets. If none
    fits, 1.
    """
    widths = list(channels)
    most = min(PAPER_GROUPS, min(widths) // _PAPER_GROUP_CHANNELS)
    common = set.intersection(*(set(knobs.fitting_groups(width)) for width in widths))
    return max((groups for groups in common if groups <= most), default=1)


def groups_of(knobs: type[GroupedKnobs], groups: int | str, channels: int) -> int:
    """Returns the number of groups of a single layer: `groups`, or `default_groups` if that is `auto`.

    Raises:
        OptionError: if `groups` is another string.
    """
    if groups == AUTO:
        return default_groups(knobs, [channels])
    if isinstance(groups, str):
        raise OptionError("groups", groups, f"must be an integer or {AUTO!r}")
    return groups


def automatic_groups(knobs: type[GroupedKnobs], usual: Iterable[int], channels: Iterable[int]) -> dict[str, int | str]:
    """Returns the knobs that `groups=auto` resolves to in a backbone.

    Args:
        knobs: class of the attention module's knobs.
        usual: channels of the backbone's default insertion points. They determine the number, so that variants with
            attention elsewhere have the same number of groups.
        channels: channels of the insertion points in use; if the number does not fit one, the policy is `clamp`.
    """
    groups = default_groups(knobs, usual)
    if all(groups in knobs.fitting_groups(width) for width in channels):
        return {"groups": groups}
    return {"groups": groups, "groups_policy": "clamp"}


@dataclass(frozen=True)
class ReducedKnobs(Knobs):
    """Knobs of modules whose channel gate has a hidden layer."""

    _hidden_multiple: ClassVar[int] = 1  # the number of hidden units is rounded to a multiple of it

    reduction: int = knob(PAPER_REDUCTION, "Channels per hidden unit.", minimum=1)

    def hidden_units_on(self, channels: int) -> int:
        """Returns the number of hidden units on `channels` channels, rounded as timm rounds it."""
        multiple = self._hidden_multiple
        return max(multiple, int(channels * (1 / self.reduction) + multiple / 2) // multiple * multiple)


def default_reduction(channels: Iterable[int]) -> int:
    """Scales the papers' reduction of 16 for ResNet-50 to insertion points with these numbers of channels.

    The narrowest insertion point has at least 16 hidden units, as in ResNet-50, or as many as it has channels if these
    are fewer: a reduction of 16 for ResNet-50 and ResNet-101, 4 for ResNet-18 and ResNet-34, 3 for ShuffleNetV2 x1.0,
    and 1 for ShuffleNetV2 x0.5 and the CIFAR ResNets.
    """
    return max(1, min(channels) // _PAPER_HIDDEN_UNITS)


BRANCHES = ("both", "channel", "spatial", "none")
TRANSFORMS = ("affine", "affine_channel", "conv1x1", "none")
_NAMED_NORMS = ("instance", "layer", "batch", "none")
NORMS = ("instance", "group:<k>", "layer", "batch", "none")
POOLINGS = ("avg", "max", "avg_max")
GATES = ("sigmoid", "hard_sigmoid", "tanh1", "none")
PERMUTATIONS = ("interleave", "random")


def _number_of_groups(norm: str) -> int:
    """Returns the k of `group:<k>`; raises OptionError for other strings."""
    kind, _, number = norm.partition(":")
    if kind != "group" or not number.isdecimal() or int(number) < 1:
        raise OptionError("norm", norm, "is not a valid choice", NORMS)
    if int(number) == 1:
        raise OptionError("norm", norm, "is equivalent to layer; use layer", NORMS)
    return int(number)


def norm_groups(norm: str, channels: int) -> int | None:
    """Returns the number of groups of the GroupNorm over a branch of `channels` channels, None for other norms.

    Raises:
        OptionError: if `norm` is unknown, or is `group:<k>` and k does not divide `channels`.
    """
    if norm in _NAMED_NORMS:
        return {"instance": channels, "layer": 1}.get(norm)
    groups = _number_of_groups(norm)
    if channels % groups:
        fitting = [f"group:{k}" for k in range(2, channels + 1) if channels % k == 0]
        raise OptionError("norm", norm, f"does not divide the {channels} channels of a branch", fitting)
    return groups


@dataclass(frozen=True)
class ShuffleAttentionKnobs(GroupedKnobs):
    """Options of `ShuffleAttention`; the defaults give the official layer."""

    _multiple = 2
    _misfit = "does not split {channels} channels into groups of two equal halves: 2G must divide the channels"

    groups: int = knob(PAPER_GROUPS, "Groups of channels, G; 2G must divide the channels.", minimum=1)
    branches: str = knob(
        "both",
        "Branches of the module: both, only the channel branch, only the spatial branch, or none.",
        choices=BRANCHES,
    )
    removed: str = knob(
        "identity",
        "Channels of a removed branch: passed through unchanged (identity), or processed by the remaining branch "
        "(reassign).",
        choices=("identity", "reassign"),
    )
    transform: str = knob(
        "affine",
        "Transform F_c before the gate: weight and bias per channel (affine), in the channel branch only "
        "(affine_channel), a 1x1 convolution within each group (conv1x1), or none.",
        choices=TRANSFORMS,
    )
    norm: str = knob("instance", "Norm of the spatial branch; the official code has instance.", known=_NAMED_NORMS)
    norm_affine: bool = knob(True, "Learnable weight and bias of the spatial branch's norm.")
    pooling: str = knob("avg", "Global pooling of the channel branch; avg_max averages avg and max.", choices=POOLINGS)
    gate: str = knob("sigmoid", "Gate function; tanh1 is 1 + tanh(x), none multiplies by F_c directly.", choices=GATES)
    gate_bias: float = knob(
        1.0, "Initial bias of F_c, which sets the initial gate value: sigmoid(1) = 0.731.", minimum=-20, maximum=20
    )
    shuffle: bool = knob(True, "Channel shuffle at the end of the module.")
    shuffle_groups: int = knob(2, "Number of groups of the channel shuffle.", minimum=2)
    permutation: str = knob(
        "interleave", "Channel shuffle: the official interleaving, or a fixed random permutation.",
        choices=PERMUTATIONS,
    )  # fmt: skip

    @property
    def has_channel_branch(self) -> bool:
        """Whether the module has the gate computed from pooled channels."""
        return self.branches in ("both", "channel")

    @property
    def has_spatial_branch(self) -> bool:
        """Whether the module has the gate computed from the normalised feature map."""
        return self.branches in ("both", "spatial")

    @property
    def channel_transform(self) -> str:
        """F_c of the channel branch: `affine`, `conv1x1`, or `none`, also if there is no channel branch."""
        if not self.has_channel_branch:
            return "none"
        return "affine" if self.transform == "affine_channel" else self.transform

    @property
    def spatial_transform(self) -> str:
        """F_c of the spatial branch: `affine`, `conv1x1`, or `none`, also if there is no spatial branch."""
        return self.transform if self.has_spatial_branch and self.transform != "affine_channel" else "none"

    def branch_channels(self, channels: int) -> int:
        """Returns the channels of one branch of one group: C/2G, or C/G with `removed=reassign`."""
        half = channels // (2 * self.groups_on(channels))
        return 2 * half if self.removed == "reassign" else half

    def check_values(self) -> None:
        """Checks the type and range of each knob, and the name of the norm."""
        super().check_values()
        if self.norm not in _NAMED_NORMS:
            _number_of_groups(self.norm)

    def check_channels(self, channels: int) -> None:
        """Checks that groups, norm and shuffle fit the number of channels."""
        norm_groups(self.norm, self.branch_channels(channels))
        if self.shuffle and channels % self.shuffle_groups:
            raise OptionError("shuffle_groups", self.shuffle_groups, f"does not divide {channels} channels")

    def idle(self) -> dict[str, str]:
        """Returns the knobs that have no effect with the values of the other knobs, with the reasons."""
        idle: dict[str, str] = {}
        if self.transform == "affine_channel" and self.branches in ("channel", "spatial"):
            same = "affine" if self.branches == "channel" else "none"
            idle["transform"] = f"with branches={self.branches} it is equivalent to {same}"
        if not self.has_channel_branch:
            idle["pooling"] = f"branches={self.branches} has no channel branch"
        if not self.has_spatial_branch:
            reason = f"branches={self.branches} has no spatial branch"
            idle |= {"norm": reason, "norm_affine": reason}
        elif self.norm == "none":
            idle["norm_affine"] = "norm=none has no parameters"
        if self.channel_transform == self.spatial_transform == "none":
            idle["gate_bias"] = f"branches={self.branches} with transform={self.transform} has no bias"
        if self.branches == "none":
            reason = "branches=none has no gate"
            idle |= {"transform": reason, "gate": reason, "gate_bias": reason}
        if self.branches in ("both", "none"):
            idle["removed"] = f"branches={self.branches} leaves no half to reassign"
        if not self.shuffle:
            reason = "shuffle=false does not permute channels"
            idle |= {"shuffle_groups": reason, "permutation": reason}
        elif self.permutation == "random":
            idle["shuffle_groups"] = "permutation=random does not interleave groups"
        return idle

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns the findings that follow from removed branches."""
        if self.branches == "none":
            return {Finding(INPUT_INDEPENDENT): "branches=none is the control without gates"}
        if self.branches != "both" and self.removed == "identity":
            return {Finding(CONSTANT_GATE): f"branches={self.branches} passes the other half of the channels through"}
        return {}


@dataclass(frozen=True)
class FrozenKnobs(ShuffleAttentionKnobs):
    """Shuffle attention with random gates that are not trained: the same knobs."""


@dataclass(frozen=True)
class MatchedKnobs(GroupedKnobs):
    """Squeeze-and-excitation within groups, with as many parameters as shuffle attention with the same groups."""

    _multiple = ShuffleAttentionKnobs._multiple
    _misfit = ShuffleAttentionKnobs._misfit

    groups: int = knob(PAPER_GROUPS, "Groups of channels, G, as in shuffle attention.", minimum=1)

    @classmethod
    def shared_with(cls, other: type[Knobs]) -> set[str]:
        """Returns the knobs of the groups if `other` is shuffle attention, whose parameter count depends on them."""
        is_matched = issubclass(other, ShuffleAttentionKnobs)
        return {"groups", "groups_policy"} if is_matched else super().shared_with(other)

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns the single hidden unit, which is intended: with one group there is one per image."""
        reason = "it has one hidden unit per group, to match the parameter count of shuffle attention"
        return {Finding(SINGLE_HIDDEN_UNIT, "squeeze"): reason}


@dataclass(frozen=True)
class SpatialGroupEnhanceKnobs(GroupedKnobs):
    """SGE (Li et al. 2019)."""


@dataclass(frozen=True)
class SqueezeExcitationKnobs(ReducedKnobs):
    """SE (Hu et al. 2018), timm's layer."""

    _hidden_multiple = 8

    reduction: int = knob(
        PAPER_REDUCTION, "Channels per hidden unit; timm rounds the hidden units to a multiple of 8.", minimum=1
    )


@dataclass(frozen=True)
class EfficientChannelKnobs(Knobs):
    """ECA (Wang et al. 2020), timm's layer."""

    kernel_size: int = knob(
        0, "Kernel size of the convolution over channels, odd; 0 follows the paper's rule.", minimum=0, odd=True
    )

    def kernel_size_on(self, channels: int) -> int:
        """Returns the kernel size on `channels` channels; 0 selects the paper's rule with timm's rounding."""
        if self.kernel_size:
            return self.kernel_size
        rule = int(abs(math.log2(channels) + 1) / 2)
        return max(rule if rule % 2 else rule + 1, 3)


@dataclass(frozen=True)
class CbamKnobs(ReducedKnobs):
    """CBAM (Woo et al. 2018), timm's layer."""

    kernel_size: int = knob(7, "Kernel size of the spatial gate's convolution, odd.", minimum=1, odd=True)
    mlp_bias: bool = knob(
        True, "Biases in the channel gate's layers, as in the official code (timm's layers have none)."
    )


@dataclass(frozen=True)
class GlobalContextKnobs(ReducedKnobs):
    """GC (Cao et al. 2019), timm's layer."""

    fusion: str = knob(
        "add",
        "Fusion of the context with the feature map: add, as in the paper, or scale, a gate.",
        choices=("add", "scale"),
    )

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns a parameter without gradient, which the official layer has, too."""
        reason = "the softmax over positions does not change when a constant is added to its input"
        return {Finding(NO_GRADIENT, "conv_attn.bias"): reason}


@dataclass(frozen=True)
class BlindKnobs(Knobs):
    """Controls that treat every image alike: the identity, and a permutation of the channels."""

    def meant_degenerate(self) -> dict[Finding, str]:
        """Returns the independence of the input, the purpose of these controls."""
        return {Finding(INPUT_INDEPENDENT): "it is a control that treats every image alike"}


@dataclass(frozen=True)
class ConstantKnobs(BlindKnobs):
    """Multiplication by a constant, as every gate of shuffle attention does at initialisation."""

    value: float = knob(
        0.7310585786300049, "Constant factor; sigmoid(1) is the initial gate value of the official code."
    )


ATTENTIONS: Mapping[str, type[Knobs]] = MappingProxyType(
    {
        "none": BlindKnobs,
        "sa": ShuffleAttentionKnobs,
        # rivals
        "se": SqueezeExcitationKnobs,
        "eca": EfficientChannelKnobs,
        "cbam": CbamKnobs,
        "gc": GlobalContextKnobs,
        "sge": SpatialGroupEnhanceKnobs,
        # controls
        "identity": BlindKnobs,
        "constant": ConstantKnobs,
        "frozen": FrozenKnobs,
        "permute": BlindKnobs,
        "se_matched": MatchedKnobs,
    }
)
