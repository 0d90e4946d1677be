"""Claims about the module itself, checked by counting, comparing or building networks, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ablations.ledger.declared import Claim, Outcome
from ablations.measure.complexity import count_operations
from sa_core import ShuffleAttention, create_model
from sa_core.attentions.knobs import PAPER_GROUPS, ShuffleAttentionKnobs, default_groups
from sa_core.backbones.registry import BACKBONES
from sa_core.errors import OptionError

_SIDE, _CLASSES = 224, 1000
_ROUNDING = 1e-9  # float64 rounding error of equal functions of values near 1
_NARROW = "resnet18"  # its first stage has 64 channels

_Checked = tuple[Outcome, str]


def _resnet50(attention: str) -> nn.Module:
    knobs: dict[str, Any] = {"groups": PAPER_GROUPS} if attention == "sa" else {}
    with torch.device("meta"):  # nothing is allocated or drawn
        return create_model("resnet50", attention=attention, num_classes=_CLASSES, seed=0, **knobs)


def params(claim: Claim) -> _Checked:
    """Counts the parameters of ResNet-50 with and without shuffle attention."""
    counts = [sum(weight.numel() for weight in _resnet50(name).parameters()) for name in ("sa", "none")]
    added = counts[0] - counts[1]
    outcome = Outcome.REPRODUCED if added == claim.number else Outcome.CONTRADICTED
    return outcome, f"counted: {added:,} more with G = {PAPER_GROUPS} ({counts[0]:,} against {counts[1]:,})"


def flops(claim: Claim) -> _Checked:
    """Counts the multiply-adds of ResNet-50 with and without shuffle attention, as papers count them."""
    assert claim.number is not None
    image = torch.empty(1, 3, _SIDE, _SIDE, device="meta")
    sa, plain = (count_operations(_resnet50(name), image) for name in ("sa", "none"))
    added, uncounted = round(sa.multiply_adds - plain.multiply_adds), round(sa.uncounted - plain.uncounted)
    # Equal in the digits that the claim gives.
    outcome = Outcome.REPRODUCED if f"{added / 1e9:.3g}" == f"{claim.number:.3g}" else Outcome.CONTRADICTED
    return outcome, (
        f"counted as in the papers: {added:,} more multiply-adds at {_SIDE}x{_SIDE}, without {uncounted:,} "
        "elementwise operations (norm, gates, multiplications, copies)"
    )


def norm(claim: Claim) -> _Checked:
    """Compares the module's norm with torch's instance norm on random feature maps."""
    del claim
    channels = ShuffleAttentionKnobs().branch_channels(2048)  # of a group in the widest stage of ResNet-50
    module = ShuffleAttention(2048).double()
    difference = distance_from_instance_norm(module.gn, channels)
    outcome = Outcome.REPRODUCED if difference <= _ROUNDING else Outcome.CONTRADICTED
    return outcome, (
        "computed: the maximum difference from torch's instance norm with the same weight and bias is "
        f"{difference:.1e} on random maps of {channels} channels in float64"
    )


def distance_from_instance_norm(module: nn.Module, channels: int, seed: int = 0) -> float:
    """Returns the maximum difference between a norm and instance norm with the same weight and bias.

    `module` has `weight`, `bias` and `eps`, in float64. The feature maps, of shape (2, channels, 5, 7), and the weight
    and bias are random.
    """
    draws = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(channels, generator=draws, dtype=torch.float64) for _ in range(2))
    # Means and spreads differ between channels, which separates norms over one channel from norms over several.
    maps = torch.randn(2, channels, 5, 7, generator=draws, dtype=torch.float64) * weight.abs().view(-1, 1, 1)
    maps = maps + 3 * torch.randn(2, channels, 1, 1, generator=draws, dtype=torch.float64)
    eps = module.eps
    assert isinstance(eps, float)
    with torch.no_grad():
        normed = torch.func.functional_call(module, {"weight": weight, "bias": bias}, maps)
        expected = F.instance_norm(maps, weight=weight, bias=bias, eps=eps)
    return float((normed - expected).abs().max())


def small(claim: Claim) -> _Checked:
    """Builds shuffle attention where the claim says that it does not fit, where it fits, and with the alternatives."""
    assert claim.number is not None
    groups = int(claim.number)
    places = BACKBONES[_NARROW].insertion_points()
    place = next(place for place in places if place.channels < claim.below)
    where = f"{place.path} of {_NARROW}, which has {place.channels} channels"
    refused = _refusal(groups=groups)
    if refused is None or refused.option != "groups" or place.path not in refused.reason:
        return Outcome.CONTRADICTED, f"built: G = {groups} is accepted at {where}"
    with torch.device("meta"):
        ShuffleAttention(claim.below, groups=groups)  # raises if it needs more channels than claimed
    auto = default_groups(ShuffleAttentionKnobs, (place.channels for place in places))
    ways = {
        f"groups=auto ({auto} there)": _refusal(groups=auto),
        "groups_policy=clamp": _refusal(groups=groups, groups_policy="clamp"),
    }
    works = " and ".join(way for way, refusal in ways.items() if refusal is None) or "none of the alternatives tried"
    return Outcome.REPRODUCED, (
        f"built: G = {groups} is rejected at {where}, and fits {claim.below}; alternatives that can be built there: "
        f"{works}"
    )


def _refusal(**knobs: Any) -> OptionError | None:
    """Returns the error of building a narrow backbone with shuffle attention and these knobs; None if there is none."""
    try:
        with torch.device("meta"):
            create_model(_NARROW, attention="sa", num_classes=_CLASSES, seed=0, **knobs)
    except OptionError as error:
        return error
    return None


CHECKS: Mapping[str, Callable[[Claim], _Checked]] = MappingProxyType(
    {"params": params, "flops": flops, "norm": norm, "small": small}
)
