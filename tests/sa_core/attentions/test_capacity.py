"""The capacity computed from knobs equals that of the module built with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sa_core import ATTENTION
from sa_core.attentions.capacity import Capacity, capacity_on
from sa_core.attentions.knobs import ATTENTIONS, FrozenKnobs, ShuffleAttentionKnobs
from sa_core.backbones.insertion_points import POSITIONS
from sa_core.backbones.registry import BACKBONES

HIDDEN = {"se": "fc1.weight", "cbam": "channel.fc1.weight", "gc": "mlp_add.fc1.weight"}
WIDTHS = sorted(
    {place.channels for name in BACKBONES for at in POSITIONS for place in BACKBONES[name].insertion_points(at)}
)


def build(name: str, channels: int, **knobs: Any) -> nn.Module:
    return ATTENTION[name](channels, **knobs, device=torch.device("meta"))


def built_hidden_units(name: str, channels: int, reduction: int) -> int:
    return build(name, channels, reduction=reduction).get_parameter(HIDDEN[name]).shape[0]


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("reduction", [1, 2, 3, 4, 8, 16, 64])
def test_hidden_units_match_the_module_at_every_width_of_a_backbone(name: str, reduction: int) -> None:
    for channels in WIDTHS:
        capacity = capacity_on(ATTENTIONS[name](reduction=reduction), channels)  # type: ignore[call-arg]
        assert capacity == Capacity(channels, hidden_units=built_hidden_units(name, channels, reduction))


@settings(max_examples=60)
@given(st.sampled_from(sorted(HIDDEN)), st.integers(1, 600), st.integers(1, 700))
def test_hidden_units_match_the_module_at_any_width(name: str, channels: int, reduction: int) -> None:
    knobs = ATTENTIONS[name](reduction=reduction)  # type: ignore[call-arg]
    assert capacity_on(knobs, channels).hidden_units == built_hidden_units(name, channels, reduction)


@settings(max_examples=60)
@given(st.integers(1, 4096), st.sampled_from((0, 1, 3, 9)))
def test_the_kernel_size_matches_the_module(channels: int, kernel_size: int) -> None:
    built = build("eca", channels, kernel_size=kernel_size).get_parameter("conv.weight").shape[2]
    knobs = ATTENTIONS["eca"](kernel_size=kernel_size)  # type: ignore[call-arg]
    assert capacity_on(knobs, channels) == Capacity(channels, kernel_size=built)


@pytest.mark.parametrize("name", ["sa", "frozen", "sge", "se_matched"])
@pytest.mark.parametrize("groups", [1, 4, 64])
def test_the_number_of_groups_matches_the_module_with_clamping_too(name: str, groups: int) -> None:
    for channels in (16, 24, 64, 256):
        module = build(name, channels, groups=groups, groups_policy="clamp")
        knobs = ATTENTIONS[name](groups=groups, groups_policy="clamp")  # type: ignore[call-arg]
        capacity = capacity_on(knobs, channels)
        assert (capacity.groups, capacity.group_channels) == (module.groups, channels // module.groups)  # type: ignore[operator]


def test_a_module_without_capacity_knobs_has_no_capacity() -> None:
    for name in ("none", "identity", "constant", "permute"):
        assert capacity_on(ATTENTIONS[name](), 16) == Capacity(16)
    assert capacity_on(FrozenKnobs(4), 16) == capacity_on(ShuffleAttentionKnobs(4), 16)
