"""Degenerate modules are found; modules that are constant only at initialisation are not reported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sa_core import ATTENTION, create_model
from sa_core.attentions.degenerate import find_degenerate, map_shapes
from sa_core.attentions.findings import (
    CONSTANT_GATE,
    INPUT_INDEPENDENT,
    NO_GRADIENT,
    SINGLE_HIDDEN_UNIT,
    SINGLE_VALUE_NORM,
    Finding,
)
from sa_core.attentions.knobs import ATTENTIONS, ReducedKnobs
from tests.sa_core.helpers import SMALL, small, variants

MAPS = (8, 8)
RANDOM_STATE = torch.random.get_rng_state


def unintended(name: str, channels: int, maps: tuple[int, int] = MAPS, **knobs: Any) -> set[Finding]:
    """The findings of a module that are not intended."""
    torch.manual_seed(0)
    found = find_degenerate(ATTENTION[name](channels, **knobs), (channels, *maps))
    return set(found) - ATTENTIONS[name](**knobs).meant_degenerate().keys()


def kinds(found: set[Finding] | list[Finding]) -> set[str]:
    return {finding.kind for finding in found}


def test_global_context_with_one_hidden_unit_is_input_independent() -> None:
    assert unintended("gc", 16, reduction=16) == {
        Finding(SINGLE_HIDDEN_UNIT, "mlp_add.fc1"),
        Finding(SINGLE_VALUE_NORM, "mlp_add.norm"),
        Finding(INPUT_INDEPENDENT),
        *(Finding(NO_GRADIENT, f"mlp_add.{name}") for name in ("fc1.weight", "fc1.bias", "norm.weight")),
        Finding(NO_GRADIENT, "conv_attn.weight"),
    }
    assert kinds(unintended("gc", 16, reduction=16, fusion="scale")) == kinds(unintended("gc", 16, reduction=16))
    assert unintended("gc", 16, reduction=8) == set()


def test_the_single_channel_of_a_spatial_gate_is_not_a_hidden_unit() -> None:
    assert unintended("cbam", 16, reduction=16) == {Finding(SINGLE_HIDDEN_UNIT, "channel.fc1")}
    assert unintended("cbam", 16, reduction=8) == set()


@settings(max_examples=40)
@given(st.sampled_from(("se", "cbam", "gc")), st.integers(2, 64), st.sampled_from((1, 2, 8, 16, 64)))
def test_a_hidden_layer_of_one_unit_is_found(name: str, channels: int, reduction: int) -> None:
    knobs = ATTENTIONS[name](reduction=reduction)  # type: ignore[call-arg]
    assert isinstance(knobs, ReducedKnobs)
    found = SINGLE_HIDDEN_UNIT in kinds(unintended(name, channels, reduction=reduction))
    assert found == (knobs.hidden_units_on(channels) == 1)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("maps", [(32, 32), (8, 8), (2, 1), (1, 3)])
def test_default_modules_have_only_intended_findings(name: str, maps: tuple[int, int]) -> None:
    for channels in (16, 64):
        knobs = {"reduction": 1} if name in ("se", "cbam", "gc") else SMALL[name]
        assert unintended(name, channels, maps, **knobs) == set()


@settings(max_examples=60)
@given(variants())
def test_no_variant_of_shuffle_attention_is_degenerate_on_maps_of_several_positions(case: dict[str, Any]) -> None:
    _, channels, height, width = case["shape"]
    assert unintended("sa", channels, (height, width), **case["knobs"]) == set()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sa", {Finding(CONSTANT_GATE), Finding(SINGLE_VALUE_NORM, "gn"), Finding(NO_GRADIENT, "gn.weight")}),
        ("frozen", {Finding(CONSTANT_GATE), Finding(SINGLE_VALUE_NORM, "gn")}),
        ("sge", {Finding(INPUT_INDEPENDENT), Finding(NO_GRADIENT, "weight")}),
        ("gc", {Finding(NO_GRADIENT, "conv_attn.weight")}),
        ("se", set()),
        ("eca", set()),
        ("cbam", set()),
        ("se_matched", set()),
    ],
)
def test_norms_over_positions_are_found_on_maps_of_one_position(name: str, found: set[Finding]) -> None:
    knobs = {"reduction": 2} if name in ("se", "cbam", "gc") else SMALL[name]
    assert unintended(name, 16, (1, 1), **knobs) == found


def test_a_constant_gate_reports_its_number_of_channels() -> None:
    found = find_degenerate(small("sa"), (16, 1, 1))
    assert [finding.channels for finding in found if finding.kind == CONSTANT_GATE] == [8]


@pytest.mark.parametrize(
    "knobs",
    [
        {"gate": "hard_sigmoid", "gate_bias": 3.0},
        {"gate": "hard_sigmoid", "gate_bias": -20.0},
        {"gate_bias": 20.0},
        {"gate": "tanh1", "gate_bias": 20.0},
    ],
)
def test_gates_saturated_at_initialisation_are_found(knobs: dict[str, Any]) -> None:
    assert NO_GRADIENT in kinds(unintended("sa", 16, groups=4, **knobs))


def test_intended_findings_have_a_reason() -> None:
    for name in ("none", "identity", "constant", "permute"):
        assert find_degenerate(small(name), (16, *MAPS)) == [Finding(INPUT_INDEPENDENT)]
    one_group = ATTENTION["se_matched"](16, groups=1)
    assert find_degenerate(one_group, (16, *MAPS)) == [Finding(SINGLE_HIDDEN_UNIT, "squeeze")]
    for branch in ("channel", "spatial"):
        removed = ATTENTION["sa"](16, groups=4, branches=branch)
        assert find_degenerate(removed, (16, *MAPS)) == [Finding(CONSTANT_GATE)]
        reassigned = ATTENTION["sa"](16, groups=4, branches=branch, removed="reassign")
        assert find_degenerate(reassigned, (16, *MAPS)) == []
    for knobs in ATTENTIONS.values():
        assert all(knobs().meant_degenerate().values())


class Gate(nn.Module):
    """A user-defined gate: sigmoid of a layer over the pooled channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.layer(x.mean((2, 3))))[:, :, None, None]


class Norm(nn.Module):
    """A user-defined spatial gate: sigmoid of a norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.norm(x))


def with_an_unused_parameter() -> nn.Module:
    module = Gate(nn.Linear(8, 8))
    module.spare = nn.Linear(2, 2)
    return module


@pytest.mark.parametrize(
    ("module", "maps", "found"),
    [
        (Gate(nn.Linear(8, 8)), MAPS, set()),
        (nn.Conv2d(8, 8, 3, padding=1), MAPS, set()),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout()), MAPS, set()),
        (Gate(nn.Linear(8, 1)), MAPS, set()),  # one gate for all channels; not a hidden layer
        (Gate(nn.Sequential(nn.Linear(8, 1), nn.ReLU(), nn.Linear(1, 8))), MAPS, {SINGLE_HIDDEN_UNIT}),
        (
            Gate(nn.Sequential(nn.Linear(8, 1), nn.LayerNorm(1), nn.Linear(1, 8))),
            MAPS,
            {SINGLE_HIDDEN_UNIT, SINGLE_VALUE_NORM, INPUT_INDEPENDENT, NO_GRADIENT},
        ),
        (Gate(nn.Sequential(nn.Linear(8, 8), nn.Softmax(1), nn.LayerNorm(8))), MAPS, set()),
        (Norm(nn.GroupNorm(8, 8)), MAPS, set()),
        (Norm(nn.GroupNorm(8, 8)), (1, 1), {SINGLE_VALUE_NORM, INPUT_INDEPENDENT, NO_GRADIENT}),
        (Norm(nn.GroupNorm(4, 8)), (1, 1), set()),
        (Norm(nn.InstanceNorm2d(8, affine=True)), MAPS, set()),
        (Norm(nn.InstanceNorm2d(8, affine=True)), (1, 1), {SINGLE_VALUE_NORM}),  # torch raises an error for it
        (nn.Sequential(nn.BatchNorm2d(8)), MAPS, {INPUT_INDEPENDENT}),
        (with_an_unused_parameter(), MAPS, {NO_GRADIENT}),
    ],
)
def test_user_defined_modules_are_checked(module: nn.Module, maps: tuple[int, int], found: set[str]) -> None:
    assert kinds(find_degenerate(module, (8, *maps))) == found


def test_an_error_of_a_module_is_not_a_finding() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("planted", x.shape)

    with pytest.raises(ValueError, match="planted"):
        find_degenerate(Broken(), (8, *MAPS))


def test_the_module_and_the_random_generator_stay_unchanged() -> None:
    module = small("cbam").eval()
    before, state = {name: value.clone() for name, value in module.state_dict().items()}, RANDOM_STATE()
    find_degenerate(module, (16, *MAPS))
    assert not module.training
    assert torch.equal(RANDOM_STATE(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


def test_map_shapes_are_those_of_a_forward_pass() -> None:
    with torch.device("meta"):
        network = create_model("resnet18", attention="identity", stem="cifar", seed=0)
    shapes = map_shapes(network, ["layer1.0.sa", "layer4.1.sa"], torch.empty(1, 3, 32, 32, device="meta"))
    assert shapes == {"layer1.0.sa": (64, 32, 32), "layer4.1.sa": (512, 4, 4)}
    assert not any(part._forward_pre_hooks for part in network.modules())
