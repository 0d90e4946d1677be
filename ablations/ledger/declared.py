"""The published claims about shuffle attention: source, scale, rule, margin, and the command that settles each.

A claim about trained networks declares pairs of networks that differ only in the claimed property. Studies are searched
for such pairs by their settings, and every pair found is eligible. Margins are declared here, before any result is
known; `ablations.ledger.rules` describes their use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from ablations.config import ATTENTION
from ablations.design.variants import NO_ATTENTION
from sa_core.attentions.knobs import PAPER_GROUPS


class Outcome(Enum):
    """The outcome of a claim."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    DEPENDS = "depends on the scale"
    NOT_RUN = "not run"

    @property
    def is_settled(self) -> bool:
        """Whether no further runs are needed."""
        return self not in (Outcome.UNDECIDED, Outcome.NOT_RUN)


class Expectation(Enum):
    """The statement of a claim about trained networks, which determines its rule."""

    HELPS = "the first of the pair is better"
    EQUIVALENT = "the pair is equivalent"
    TOP1 = "the network's top-1 equals the published one"


@dataclass(frozen=True)
class Pair:
    """Two networks by their attention settings; all other settings that both have are equal."""

    treatment: Mapping[str, Any]
    control: Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """The scale at which a claim was made; studies at another scale are not eligible.

    `images` is the number of training images, of which one in a thousand may be missing because it is corrupt.
    """

    models: tuple[str, ...]
    groups: int
    classes: int
    pixels: int
    images: int

    @property
    def text(self) -> str:
        """The scale in words."""
        return (
            f"{' and '.join(self.models)} with {self.groups} groups, {self.classes:,} classes, "
            f"{self.images:,} training images, {self.pixels}x{self.pixels} pixels"
        )


@dataclass(frozen=True)
class Claim:
    """A row of the ledger.

    Args:
        id, statement, source: its name, the claim, and the reference.
        number: the claimed number in the statement's unit; None if there is none.
        margin: the equivalence margin in points; 0 for other rules.
        margin_reason: the reason for this margin, as a clause.
        expects: the claim about trained networks; None if the claim is about the module itself.
        pairs: the pairs of networks; the claim must hold for each.
        top1: by model, the published top-1 of official shuffle attention in percent.
        scale: the scale of the claim; None if it is about any network and data.
        decay: weight decay of the source, as named by `train.decay`; empty if unknown or without training. Studies
            with another value are eligible, and the value is shown.
        below: restricts the claim to backbones with an insertion point of fewer channels; 0 for any backbone.
        command: shell command that would settle it, with `<ImageNet>` for the data folder; empty if computed.
    """

    id: str
    statement: str
    source: str
    number: float | None = None
    margin: float = 0.0
    margin_reason: str = ""
    expects: Expectation | None = None
    pairs: tuple[Pair, ...] = ()
    top1: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    scale: Scale | None = None
    decay: str = ""
    below: int = 0
    command: str = ""

    @property
    def bound(self) -> float:
        """The difference in points that a gain must exceed; 0 if the claim gives no number."""
        return self.number or 0.0

    @property
    def parts(self) -> int:
        """The number of pairs or published numbers, for each of which the claim must hold."""
        return len(self.top1) or len(self.pairs)

    @property
    def decay_sentence(self) -> str:
        """The claim's weight decay in a sentence; empty if it has none."""
        if not self.decay:
            return ""
        return (
            f"Weight decay: the claim is with train.decay={self.decay}, as in the official code, which decays all "
            "parameters including the gates. Studies with train.decay=weights, the default of this suite, are also "
            "eligible."
        )

    @property
    def rule(self) -> str:
        """The rule in a few words, with its numbers."""
        if self.expects is Expectation.HELPS:
            return f"difference above {self.bound:g}"
        if self.expects is Expectation.EQUIVALENT:
            return f"difference within ±{self.margin:g}"
        return f"one run within ±{self.margin:g} of the published" if self.expects else "computed"

    @property
    def rule_in_full(self) -> str:
        """The rule in a sentence; empty if the claim is computed."""
        if self.expects is None:
            return ""
        if self.expects is Expectation.HELPS:
            return (
                f"Reproduced if the 95 % interval of the difference is above {self.bound:g} points, contradicted if "
                "it is below."
            )
        seen, where = "the difference", f"±{self.margin:g} points"
        if self.expects is Expectation.TOP1:
            seen, where = "the top-1 of one new run", f"{where} of the published number"
        return (
            f"Reproduced if the 90 % interval of {seen} is within {where} (an equivalence test), contradicted if the "
            f"95 % interval is outside. Margin: {self.margin_reason}."
        )


_GROUPS = ("groups", "groups_policy")  # these depend on the backbone's width
OFFICIAL: Mapping[str, Any] = MappingProxyType(
    {knob: value for knob, value in vars(ATTENTION["sa"]()).items() if knob not in _GROUPS}
)
_IMAGENET = Scale(("resnet50",), PAPER_GROUPS, classes=1000, pixels=224, images=1_281_167)
_ON_IMAGENET = "data=imagenet_subset data.root=<ImageNet> data.resolution=224 train=imagenet"
# W2 and b2 are redundant in the sense of the claim only after a norm with a learnt weight and bias.
_LEARNT_NORM = {"norm": "instance", "norm_affine": True}
_ON_CIFAR = "data=cifar10 model=resnet20 train=cifar replicates=auto"
_OFFICIAL_DECAY = "all"  # the official code: torch.optim.SGD(model.parameters(), ..., weight_decay=...)
_DECAY = f"train.decay={_OFFICIAL_DECAY}"


def _sa(**settings: Any) -> Mapping[str, Any]:
    return {"name": "sa"} | settings


CLAIMS = (
    Claim(
        "gain",
        "SA lifts the top-1 of ResNet-50 on ImageNet-1k by more than 1.34 points",
        "SA-Net (arXiv 2102.00240), abstract",
        number=1.34,
        expects=Expectation.HELPS,
        pairs=(Pair(OFFICIAL, {"name": NO_ATTENTION}),),
        scale=_IMAGENET,
        decay=_OFFICIAL_DECAY,
        command=f"python -m ablations.run sweep=rivals model=resnet50 {_ON_IMAGENET} {_DECAY} replicates=auto",
    ),
    Claim("params", "SA adds 300 parameters to ResNet-50", "SA-Net (arXiv 2102.00240), abstract", number=300),
    Claim("flops", "SA adds 2.76e-3 GFLOPs to ResNet-50", "SA-Net (arXiv 2102.00240), abstract", number=2.76e-3),
    Claim(
        "released",
        "The released SA-ResNet-50 has a top-1 of 77.88 % on ImageNet-1k, SA-ResNet-101 of 78.95 %",
        "wofmanaf/SA-Net, README",
        margin=0.3,
        margin_reason=(
            "chosen as three standard deviations of a run if runs vary by 0.1 points; the published number is of one "
            "run, so a smaller margin cannot be tested"
        ),
        expects=Expectation.TOP1,
        top1=MappingProxyType({"resnet50": 77.88, "resnet101": 78.95}),
        scale=replace(_IMAGENET, models=("resnet50", "resnet101")),
        decay=_OFFICIAL_DECAY,
        command=(
            "python -m ablations.run sweep=backbones "
            f"'sweep.factors={{model:[resnet50,resnet101],attention:[none,sa]}}' "
            f"{_ON_IMAGENET} train.epochs=100 {_DECAY} replicates=12"
        ),
    ),
    Claim(
        "affine",
        "Learning W2 and b2 after the norm's own weight and bias is redundant: without them 0.12 points are lost",
        "wofmanaf/SA-Net, issue #8, author",
        margin=0.2,
        margin_reason="the author regards a loss of 0.12 points as negligible, so the margin must be larger",
        expects=Expectation.EQUIVALENT,
        pairs=(Pair(_sa(transform="affine_channel", **_LEARNT_NORM), _sa(transform="affine", **_LEARNT_NORM)),),
        decay=_OFFICIAL_DECAY,
        command=f"python -m ablations.run sweep=transform {_ON_CIFAR} {_DECAY}",
    ),
    Claim("norm", "The module's 'GroupNorm' is instance normalization", "wofmanaf/SA-Net, issues #8 and #26"),
    Claim(
        "conv1x1",
        "A 1x1 convolution instead of W and b gives about the same",
        "wofmanaf/SA-Net, issue #8, author",
        margin=0.2,
        margin_reason="no number is claimed; same margin as for the author's other claim in the same issue",
        expects=Expectation.EQUIVALENT,
        pairs=(Pair(_sa(transform="conv1x1"), _sa(transform="affine")),),
        decay=_OFFICIAL_DECAY,
        command=f"python -m ablations.run sweep=transform {_ON_CIFAR} {_DECAY}",
    ),
    Claim(
        "shuffle",
        "The channel shuffle helps, although the next 1x1 convolution can absorb any permutation",
        "wofmanaf/SA-Net, issues #5 and #11",
        expects=Expectation.HELPS,
        pairs=(Pair(_sa(shuffle=True), _sa(shuffle=False)),),
        command=f"python -m ablations.run sweep=shuffle {_ON_CIFAR}",
    ),
    Claim(
        "small",
        f"SA with G = {PAPER_GROUPS} does not fit below {2 * PAPER_GROUPS} channels, as in ResNet-18 and CIFAR nets",
        "wofmanaf/SA-Net, issue #1",
        number=PAPER_GROUPS,
        pairs=(Pair(OFFICIAL, {"name": NO_ATTENTION}),),
        below=2 * PAPER_GROUPS,
    ),
    Claim(
        "rivals",
        "SA, SGE and ECA make about the same difference",
        "wofmanaf/SA-Net, issue #4",
        margin=0.5,
        margin_reason="the published top-1 of the three, 77.88, 77.58 and 77.42 % on ResNet-50, span half a point",
        expects=Expectation.EQUIVALENT,
        pairs=(Pair({"name": "sge"}, OFFICIAL), Pair(vars(ATTENTION["eca"]()), OFFICIAL)),
        command=(
            f"python -m ablations.run sweep=rivals sweep.baseline=sa 'sweep.factors.attention=[sa,sge,eca]' {_ON_CIFAR}"
        ),
    ),
)
