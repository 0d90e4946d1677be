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
from tests.sa_core.reference import shuffle_attention

BRANCHES = ("both", "channel", "spatial", "none")


@st.composite
def cases(draw: st.DrawFn, largest: int = 4) -> dict[str, Any]:
    groups = draw(st.integers(1, largest))
    c = draw(st.integers(1, largest))
    divisors = [k for k in range(1, c + 1) if c % k == 0]
    norms = ["instance", "layer", "batch", "none", *(f"group:{k}" for k in divisors)]
    return {
        "shape": (draw(st.integers(1, 3)), 2 * groups * c, draw(st.integers(2, 3)), draw(st.integers(1, largest + 2))),
        "groups": groups,
        "branches": draw(st.sampled_from(BRANCHES)),
        "shuffle": draw(st.booleans()),
        "norm": draw(st.sampled_from(norms)),
        "channels_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def make_module(case: dict[str, Any]) -> ShuffleAttention:
    """A module in float64 with parameters at random: the initial ones hide half of the formula."""
    knobs = {name: case[name] for name in ("groups", "branches", "shuffle", "norm")}
    module = ShuffleAttention(case["shape"][1], **knobs, dtype=torch.float64)
    generator = torch.Generator().manual_seed(case["seed"])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


@settings(deadline=None, max_examples=150)
@given(cases())
def test_the_forward_is_the_formula_of_the_paper(case: dict[str, Any]) -> None:
    module = make_module(case)
    x = torch.randn(case["shape"], generator=torch.Generator().manual_seed(case["seed"] + 1), dtype=torch.float64)
    if case["channels_last"]:
        x = x.contiguous(memory_format=torch.channels_last)
    parameters = {name: value.detach().numpy().ravel() for name, value in module.named_parameters()}
    expected = shuffle_attention(x.numpy(), parameters, case["groups"], case["branches"], case["shuffle"], case["norm"])
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(cases(largest=2))  # gradcheck moves every input by itself
def test_gradients_are_those_of_the_function(case: dict[str, Any]) -> None:
    module = make_module(case | {"channels_last": False})
    x = torch.randn(case["shape"], generator=torch.Generator().manual_seed(case["seed"]), dtype=torch.float64)
    names = [name for name, _ in module.named_parameters()]

    def function(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        # A copy, because batch norm counts its calls, and gradcheck calls often.
        fresh = copy.deepcopy(module)
        return torch.func.functional_call(fresh, dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    inputs = [x, *(parameter.detach() for parameter in module.parameters())]
    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs])


def test_an_official_state_dict_loads_strictly() -> None:
    # Names and shapes of wofmanaf/SA-Net's layer for 512 channels and 64 groups.
    names = ("cweight", "cbias", "sweight", "sbias")
    official = {name: torch.randn(1, 4, 1, 1) for name in names}
    official |= {"gn.weight": torch.randn(4), "gn.bias": torch.randn(4)}
    module = ShuffleAttention(512, groups=64)
    module.load_state_dict(official, strict=True)
    assert torch.equal(module.sweight, official["sweight"])


def test_initial_values_are_the_official_ones() -> None:
    state = ShuffleAttention(512).state_dict()
    start = {"cweight": 0, "cbias": 1, "sweight": 0, "sbias": 1, "gn.weight": 1, "gn.bias": 0}
    assert set(state) == set(start)
    for name, value in start.items():
        assert (state[name] == value).all(), name


def test_at_the_start_every_gate_is_the_constant_sigmoid_of_one() -> None:
    x = torch.randn(2, 16, 5, 5)
    out = ShuffleAttention(16, groups=2, shuffle=False)(x)
    torch.testing.assert_close(out, x * torch.sigmoid(torch.tensor(1.0)))


def test_a_removed_branch_passes_its_half_through_untouched() -> None:
    x = torch.randn(2, 8, 3, 3)
    untouched = {"channel": [2, 3, 6, 7], "spatial": [0, 1, 4, 5], "none": list(range(8))}
    for branches, channels in untouched.items():
        out = ShuffleAttention(8, groups=2, branches=branches, shuffle=False)(x)
        assert torch.equal(out[:, channels], x[:, channels]), branches


@pytest.mark.parametrize(
    ("branches", "names"),
    [
        ("both", {"cweight", "cbias", "sweight", "sbias", "gn.weight", "gn.bias"}),
        ("channel", {"cweight", "cbias"}),
        ("spatial", {"sweight", "sbias", "gn.weight", "gn.bias"}),
        ("none", set()),
    ],
)
def test_a_variant_has_no_parameter_without_a_gradient(branches: str, names: set[str]) -> None:
    module = ShuffleAttention(16, groups=2, branches=branches)
    x = torch.randn(2, 16, 4, 4, requires_grad=True)
    module(x).square().sum().backward()
    assert {name for name, _ in module.named_parameters()} == names
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_shuffle_is_that_of_torch() -> None:
    x = torch.randn(2, 12, 3, 3)
    for groups in (1, 2, 3, 4, 6, 12):
        assert torch.equal(channel_shuffle(x, groups), nn.ChannelShuffle(groups)(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 64}, r"groups=64 does not split 64 channels .* these are: 1, 2, 4, 8, 16, 32\)"),
        ({"channels": 12, "groups": 4}, r"these are: 1, 2, 3, 6\)"),
        ({"channels": 12, "groups": 0}, r"groups=0 does not split 12 channels"),
        ({"channels": 7, "groups": 1}, r"these are: none\)"),
        ({"channels": 16, "groups": 2, "branches": "all"}, "branches=all is not known; valid: both, channel"),
        ({"channels": 16, "groups": 2, "norm": "group"}, "norm=group is not known; valid: instance, group:<k>"),
        ({"channels": 16, "groups": 2, "norm": "group:3"}, "norm=group:3 does not divide the 4 .* group:2, group:4"),
        ({"channels": 16, "groups": 2, "norm": "group:0"}, "norm=group:0 does not divide"),
    ],
)
def test_knobs_that_do_not_fit_are_refused_with_those_that_do(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShuffleAttention(**arguments)


def test_the_output_keeps_the_type_of_the_input_under_autocast() -> None:
    module = ShuffleAttention(16, groups=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(torch.randn(2, 16, 4, 4, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16


def test_two_variants_that_differ_look_different() -> None:
    shown = {
        repr(ShuffleAttention(16, groups=groups, branches=branches, shuffle=shuffle, norm=norm))
        for groups in (1, 2)
        for branches in BRANCHES
        for shuffle in (True, False)
        for norm in ("instance", "layer", "none")
    }
    assert len(shown) == 2 * 4 * 2 * 3
