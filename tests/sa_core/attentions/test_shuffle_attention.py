from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sa_core import ShuffleAttention, channel_shuffle
from sa_core.attentions.knobs import BRANCHES
from sa_core.attentions.shuffle_attention import in_layout_of
from tests.sa_core.helpers import arrays, divisors, noise, randomised, variants
from tests.sa_core.reference import GATES, groups_on, shuffle_attention
from tests.wording import refusal

OFFICIAL = ("cweight", "cbias", "sweight", "sbias", "gn.weight", "gn.bias")


def make_module(case: dict[str, Any]) -> ShuffleAttention:
    torch.manual_seed(case["seed"])  # seeds the random permutation
    module = ShuffleAttention(case["shape"][1], **case["knobs"], dtype=torch.float64)
    return randomised(module, case["seed"])


def make_input(case: dict[str, Any]) -> torch.Tensor:
    x = noise(*case["shape"], seed=case["seed"] + 1, dtype=torch.float64)
    return x.contiguous(memory_format=torch.channels_last) if case["channels_last"] else x


@settings(max_examples=300)
@given(variants())
def test_forward_computes_the_formula_of_the_paper(case: dict[str, Any]) -> None:
    module, x = make_module(case), make_input(case)
    expected = shuffle_attention(x.numpy(), arrays(module), case["knobs"], arrays(module).get("permutation"))
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(variants(largest=2))  # small, as gradcheck perturbs every input value
def test_gradients_match_numerical_differentiation(case: dict[str, Any]) -> None:
    module, x = make_module(case), make_input(case | {"channels_last": False})
    names = [name for name, _ in module.named_parameters()]

    def function(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        # A copy, because each call by gradcheck would change the statistics of a batch norm.
        fresh = copy.deepcopy(module)
        return torch.func.functional_call(fresh, dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    inputs = [x, *(parameter.detach() for parameter in module.parameters())]
    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs])


@settings(max_examples=150)
@given(variants())
def test_no_variant_has_a_parameter_without_a_gradient(case: dict[str, Any]) -> None:
    module, x = make_module(case), make_input(case).requires_grad_()
    (module(x) * noise(*x.shape, dtype=torch.float64)).sum().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []
    assert x.grad is not None
    assert all(parameter.grad.isfinite().all() for parameter in [x, *module.parameters()] if parameter.grad is not None)


@settings(max_examples=100)
@given(variants())
def test_initial_weights_are_zero_and_biases_as_requested(case: dict[str, Any]) -> None:
    start = {
        "cweight": 0, "cbias": case["knobs"]["gate_bias"], "sweight": 0, "sbias": case["knobs"]["gate_bias"],
        "gn.weight": 1, "gn.bias": 0,
    }  # fmt: skip
    for name, parameter in ShuffleAttention(case["shape"][1], **case["knobs"]).named_parameters():
        assert (parameter == start[name]).all(), name


@settings(max_examples=60)
@given(variants())
def test_the_output_has_shape_type_and_layout_of_the_input(case: dict[str, Any]) -> None:
    module, x = make_module(case), make_input(case)
    out = module(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    layout = torch.channels_last if case["channels_last"] else torch.contiguous_format
    assert out.is_contiguous(memory_format=layout)


@settings(max_examples=60)
@given(variants(), st.integers(1, 3))
def test_images_are_independent_except_with_a_batch_norm(case: dict[str, Any], more: int) -> None:
    module = make_module(case).eval()
    x = noise(case["shape"][0] + more, *case["shape"][1:], dtype=torch.float64)
    torch.testing.assert_close(module(x)[:more], module(x[:more]))


@settings(max_examples=300)
@given(variants())
def test_the_output_is_the_shuffled_product_of_map_and_gates(case: dict[str, Any]) -> None:
    x = make_input(case)
    # A batch norm updates its statistics in every training call, so each module is called once.
    module, twin = make_module(case), make_module(case)
    batch, channels, height, width = x.shape
    by_channel, by_space = module.gates(x)
    has_channel, has_spatial = (case["knobs"]["branches"] in ("both", branch) for branch in ("channel", "spatial"))
    assert (by_channel is not None, by_space is not None) == (has_channel, has_spatial)
    # Indices in x of the channels of a branch: the first half, the second half, or all of each group.
    places = np.arange(channels).reshape(module.groups, -1)
    halves = [places, places] if case["knobs"]["removed"] == "reassign" else np.split(places, 2, axis=1)
    gated = x.clone()
    for gates, half, side in ((by_channel, halves[0], (1, 1)), (by_space, halves[1], (height, width))):
        if gates is not None:
            assert gates.shape == (batch, half.size, *side)
            assert gates.dtype == x.dtype
            gated[:, half.flatten()] = x[:, half.flatten()] * gates
    knobs = case["knobs"]
    if knobs["shuffle"] and knobs["permutation"] == "random":
        gated = gated[:, module.get_buffer("permutation")]
    elif knobs["shuffle"]:
        gated = channel_shuffle(gated, knobs["shuffle_groups"])
    torch.testing.assert_close(twin(x), gated, rtol=1e-9, atol=1e-9)


def test_initial_gates_follow_from_the_bias_with_and_without_kernels() -> None:
    x = torch.randn(2, 16, 5, 5)
    for fused in ("auto", "off"):
        module = ShuffleAttention(16, groups=2, fused=fused)
        by_channel, by_space = module.gates(x)
        assert by_channel is not None
        assert by_space is not None
        assert torch.equal(by_channel, torch.full((2, 8, 1, 1), torch.sigmoid(torch.ones(())).item()))
        assert torch.equal(by_space, torch.full((2, 8, 5, 5), torch.sigmoid(torch.ones(())).item()))


def test_gates_depend_on_the_map_and_computing_them_has_no_side_effects() -> None:
    module = randomised(ShuffleAttention(16, groups=2, norm="batch")).eval()
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(3, 16, 4, 4)
    together, alone = module.gates(x), module.gates(x[1:2])
    for all_images, one_image in zip(together, alone, strict=True):
        assert all_images is not None
        assert one_image is not None
        torch.testing.assert_close(all_images[1:2], one_image)
        assert (all_images.flatten(1).std(0) > 0).any()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_an_official_state_dict_loads_strictly() -> None:
    # Names and shapes of wofmanaf/SA-Net's layer for 512 channels and 64 groups.
    official = {name: torch.randn(1, 4, 1, 1) for name in OFFICIAL[:4]}
    official |= {name: torch.randn(4) for name in OFFICIAL[4:]}
    module = ShuffleAttention(512, groups=64)
    module.load_state_dict(official, strict=True)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in official.items())


def test_initial_values_are_the_official_ones() -> None:
    state = ShuffleAttention(512).state_dict()
    start = dict(zip(OFFICIAL, (0, 1, 0, 1, 1, 0), strict=True))
    assert set(state) == set(start)
    for name, value in start.items():
        assert (state[name] == value).all(), name


def test_every_gate_is_initially_the_constant_sigmoid_of_one() -> None:
    x = torch.randn(2, 16, 5, 5)
    out = ShuffleAttention(16, groups=2, shuffle=False)(x)
    torch.testing.assert_close(out, x * torch.sigmoid(torch.tensor(1.0)))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("gate_bias", [-1.5, 0.0, 2.0])
@pytest.mark.parametrize("transform", ["affine", "conv1x1"])
def test_the_initial_value_of_a_gate_follows_from_its_bias(gate: str, gate_bias: float, transform: str) -> None:
    x = torch.randn(2, 16, 5, 5)
    out = ShuffleAttention(16, groups=2, shuffle=False, gate=gate, gate_bias=gate_bias, transform=transform)(x)
    torch.testing.assert_close(out, x * float(GATES[gate](np.array(gate_bias))))


def test_a_removed_branch_passes_its_half_through_unchanged() -> None:
    x = torch.randn(2, 8, 3, 3)
    untouched = {"channel": [2, 3, 6, 7], "spatial": [0, 1, 4, 5], "none": list(range(8)), "both": []}
    for branches, channels in untouched.items():
        out = ShuffleAttention(8, groups=2, branches=branches, shuffle=False)(x)
        for channel in range(8):
            assert torch.equal(out[:, channel], x[:, channel]) == (channel in channels), (branches, channel)


@pytest.mark.parametrize("branches", ["channel", "spatial"])
def test_a_reassigned_half_is_gated_by_the_other_branch(branches: str) -> None:
    x = torch.randn(2, 8, 3, 3)
    module = randomised(ShuffleAttention(8, groups=2, branches=branches, removed="reassign", shuffle=False))
    assert {parameter.numel() for parameter in module.parameters()} == {4}
    gate = module(x) / x
    varies_over_positions = gate.flatten(2).std(2) > 1e-4
    assert varies_over_positions.all() if branches == "spatial" else not varies_over_positions.any()
    assert (gate.flatten(2).mean(2).std(0) > 1e-4).all() or branches == "spatial"
    assert not torch.isclose(gate, torch.ones(())).all(0).flatten(1).all(1).any()


@pytest.mark.parametrize(
    ("knobs", "names"),
    [
        ({}, set(OFFICIAL)),
        ({"branches": "channel"}, {"cweight", "cbias"}),
        ({"branches": "spatial"}, {"sweight", "sbias", "gn.weight", "gn.bias"}),
        ({"branches": "none"}, set()),
        ({"transform": "none"}, {"gn.weight", "gn.bias"}),
        ({"transform": "affine_channel"}, {"cweight", "cbias", "gn.weight", "gn.bias"}),
        ({"transform": "conv1x1"}, set(OFFICIAL)),
        ({"norm": "none"}, set(OFFICIAL[:4])),
        ({"norm_affine": False}, set(OFFICIAL[:4])),
        ({"norm": "batch"}, set(OFFICIAL)),
        ({"norm": "batch", "norm_affine": False}, set(OFFICIAL[:4])),
        ({"transform": "none", "norm_affine": False}, set()),
    ],
)
def test_a_variant_has_the_parameters_of_its_parts(knobs: dict[str, Any], names: set[str]) -> None:
    module = ShuffleAttention(16, groups=2, **knobs)
    assert {name for name, _ in module.named_parameters()} == names
    weights = 16 if knobs.get("transform") == "conv1x1" else 4
    for name, parameter in module.named_parameters():
        assert parameter.numel() == (weights if name in ("cweight", "sweight") else 4), name


def test_the_layers_of_the_paper_have_6c_parameters() -> None:
    for channels, groups in [(256, 64), (512, 64), (1024, 64), (2048, 64), (64, 16), (16, 4), (16, 8)]:
        module = ShuffleAttention(channels, groups)
        assert sum(parameter.numel() for parameter in module.parameters()) == 6 * channels // (2 * groups)


def test_clamp_uses_the_largest_number_of_groups_that_fits_and_shows_it() -> None:
    for channels in (2, 6, 16, 24, 58, 64, 128, 116):
        module = ShuffleAttention(channels, groups_policy="clamp")
        assert module.groups == groups_on(channels, 64, "clamp")
        assert f"groups={module.groups}," in repr(module)
        x = torch.randn(2, channels, 3, 3)
        assert torch.equal(module(x), ShuffleAttention(channels, module.groups)(x))


def test_batch_norm_uses_its_running_statistics_in_evaluation() -> None:
    module = randomised(ShuffleAttention(8, groups=2, norm="batch", shuffle=False, branches="spatial"))
    x = torch.randn(3, 8, 4, 4)
    grouped = torch.stack([x[:, 2:4], x[:, 6:8]])  # the spatial halves
    norm: Any = module.gn
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    module.train()(x)
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * grouped.mean((0, 1, 3, 4)))
    torch.testing.assert_close(norm.running_var, 0.9 * var + 0.1 * grouped.var((0, 1, 3, 4)))
    out = module.eval()(x)
    shape = (1, -1, 1, 1)
    normed = (grouped - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
    normed = normed * norm.weight.view(shape) + norm.bias.view(shape)
    expected = grouped * torch.sigmoid(module.sweight * normed + module.sbias)
    torch.testing.assert_close(torch.stack([out[:, 2:4], out[:, 6:8]]), expected)


def test_a_random_permutation_is_drawn_in_the_constructor_and_stored_in_the_state() -> None:
    torch.manual_seed(0)
    first, second = (ShuffleAttention(64, 8, permutation="random", branches="none") for _ in range(2))
    x = torch.randn(2, 64, 3, 3)
    assert torch.equal(first(x), first(x))
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(x), second(x))
    assert sorted(first.get_buffer("permutation").tolist()) == list(range(64))


def test_the_official_layer_has_no_buffers() -> None:
    assert list(ShuffleAttention(128).buffers()) == []


@given(st.integers(1, 24))
def test_the_shuffle_equals_torchs_channel_shuffle(channels: int) -> None:
    x = torch.randn(2, channels, 3, 3)
    for groups in divisors(channels):
        assert torch.equal(channel_shuffle(x, groups), nn.ChannelShuffle(groups)(x))


def test_channel_i_of_block_k_moves_to_i_times_the_number_of_blocks_plus_k() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert ShuffleAttention(6, 1, branches="none", shuffle_groups=3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_the_memory_format_is_kept_if_it_is_not_ambiguous() -> None:
    x, last = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    assert in_layout_of(last, x).is_contiguous(memory_format=torch.channels_last)
    assert in_layout_of(x, x) is x
    both = torch.randn(2, 1, 3, 3)
    assert in_layout_of(both, both) is both


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 64}, refusal("groups=64", "knobs.not_split", channels=64, then="channels: 1, 2, 4, 8, 16, 32)")),
        ({"channels": 12, "groups": 4}, r"channels: 1, 2, 3, 6\)"),
        ({"channels": 12, "groups": 0}, refusal("groups=0", "options.below", least=1)),
        ({"channels": 7, "groups": 1}, r"channels: none\)"),
        ({"channels": 7, "groups_policy": "clamp"}, r"channels: none\)"),
        (
            {"channels": 16, "groups": 2, "branches": "all"},
            refusal("branches=all", "options.unknown", valid="both, channel"),
        ),
        (
            {"channels": 16, "groups": 2, "norm": "group"},
            refusal("norm=group", "options.unknown", valid="instance, group:<k>"),
        ),
        (
            {"channels": 16, "groups": 2, "norm": "group:3"},
            refusal("norm=group:3", "knobs.branch", channels=4, then="group:2, group:4"),
        ),
        ({"channels": 16, "groups": 2, "norm": "group:0"}, refusal("norm=group:0", "options.unknown")),
        (
            {"channels": 16, "groups": 2, "shuffle_groups": 3},
            refusal("shuffle_groups=3", "knobs.not_divided", channels=16),
        ),
        (
            {"channels": 16, "groups": 2, "branches": "none", "gate": "none"},
            refusal("gate=none", "knobs.idle", then="branches=n"),
        ),
        (
            {"channels": 16, "groups": 2, "removed": "reassign"},
            refusal("removed=reassign", "knobs.idle", then="branches=both"),
        ),
    ],
)
def test_invalid_knobs_raise_an_error_with_the_valid_values(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleAttention(**arguments)


def test_knobs_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        ShuffleAttention(16, 2, "strict")  # type: ignore[call-arg]


def test_different_variants_have_a_different_repr() -> None:
    representations = {
        repr(ShuffleAttention(16, groups=groups, branches=branches, shuffle=shuffle, norm=norm))
        for groups in (1, 2)
        for branches in BRANCHES
        for shuffle in (True, False)
        for norm in (("instance", "layer", "none") if branches in ("both", "spatial") else ("instance",))
    }
    assert len(representations) == 2 * 2 * (2 * 3 + 2 * 1)


@settings(max_examples=60)
@given(variants())
def test_repr_shows_every_knob(case: dict[str, Any]) -> None:
    module = ShuffleAttention(case["shape"][1], **case["knobs"])
    for name, value in (case["knobs"] | {"groups": module.groups}).items():
        assert f"{name}={value}" in module.extra_repr().split(", ")


def test_a_map_of_one_position_can_be_normalized() -> None:
    module = randomised(ShuffleAttention(16, groups=2))
    assert module(torch.randn(2, 16, 1, 1)).isfinite().all()


def test_a_single_image_of_one_position_can_be_evaluated_with_one_group() -> None:
    assert ShuffleAttention(16, groups=1).eval()(torch.randn(1, 16, 1, 1)).isfinite().all()


def test_an_empty_batch_stays_empty() -> None:
    assert ShuffleAttention(16, groups=2)(torch.randn(0, 16, 4, 4)).shape == (0, 16, 4, 4)
