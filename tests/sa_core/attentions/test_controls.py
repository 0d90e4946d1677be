from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_core import ShuffleAttention
from sa_core.attentions.controls import (
    ConstantGate,
    FrozenShuffleAttention,
    MatchedSqueezeExcitation,
    RandomPermutation,
)
from tests.sa_core.helpers import arrays, count, noise, randomised, variants
from tests.sa_core.reference import matched_squeeze_excitation, shuffle_attention
from tests.wording import refusal


def test_the_constant_gate_multiplies_by_its_value() -> None:
    x = torch.randn(2, 5, 3, 3)
    assert torch.equal(ConstantGate(5, value=0.25)(x), x * 0.25)
    assert list(ConstantGate(5).state_dict()) == []


def test_the_constant_gate_equals_shuffle_attention_at_initialisation() -> None:
    x = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    attention = ShuffleAttention(16, groups=2, shuffle=False, dtype=torch.float64)
    torch.testing.assert_close(ConstantGate(16)(x), attention(x))


def test_the_constant_gate_shows_its_value() -> None:
    assert repr(ConstantGate(5)) == "ConstantGate(0.7311)"


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 2**16))
def test_the_random_permutation_is_a_permutation(channels: int, seed: int) -> None:
    torch.manual_seed(seed)
    module = RandomPermutation(channels)
    x = torch.arange(channels).float().reshape(1, channels, 1, 1)
    assert sorted(module(x).flatten().tolist()) == list(range(channels))
    wide = noise(2, channels, 3, 3)
    for channel, source in enumerate(module.permutation.tolist()):
        assert torch.equal(module(wide)[:, channel], wide[:, source])


def test_a_state_dict_contains_the_random_permutation() -> None:
    torch.manual_seed(0)
    first, second = RandomPermutation(64), RandomPermutation(64)
    x = torch.randn(2, 64, 3, 3)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(x), second(x))
    assert list(first.parameters()) == []


def test_frozen_shuffle_attention_has_no_gradients_but_propagates_them() -> None:
    module = FrozenShuffleAttention(16, groups=2)
    assert len(list(module.parameters())) == 6
    assert not any(parameter.requires_grad for parameter in module.parameters())
    x = torch.randn(2, 16, 4, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()


def test_frozen_gates_depend_on_the_image() -> None:
    torch.manual_seed(0)
    module = FrozenShuffleAttention(16, groups=2, shuffle=False)
    x = torch.randn(4, 16, 5, 5)
    gate = (module(x) / x).unflatten(1, (2, 2, 4)).flatten(4)  # (image, group, branch, channel, position)
    channel, spatial = gate[:, :, 0], gate[:, :, 1]
    assert (channel.std(3) < 1e-4).all()
    assert (channel.mean(3).std(0) > 1e-4).all()
    assert (spatial.std(3) > 1e-4).all()


def test_the_noise_of_frozen_gates_is_standard_normal_around_the_initial_values() -> None:
    torch.manual_seed(0)
    state = FrozenShuffleAttention(4096, groups=1, gate_bias=3.0).state_dict()
    for name, mean in (("cweight", 0), ("cbias", 3), ("sweight", 0), ("sbias", 3)):
        assert state[name].mean().item() == pytest.approx(mean, abs=0.1), name
        assert state[name].std().item() == pytest.approx(1, abs=0.1), name
    assert (state["gn.weight"] == 1).all()
    assert (state["gn.bias"] == 0).all()


def test_frozen_noise_is_drawn_from_torchs_generator() -> None:
    torch.manual_seed(0)
    first, second = FrozenShuffleAttention(16, groups=2), FrozenShuffleAttention(16, groups=2)
    torch.manual_seed(0)
    repeated = FrozenShuffleAttention(16, groups=2)
    assert torch.equal(first.cweight, repeated.cweight)
    assert not torch.equal(first.cweight, second.cweight)


@settings(max_examples=60)
@given(variants())
def test_frozen_shuffle_attention_supports_every_variant(case: dict[str, Any]) -> None:
    module = FrozenShuffleAttention(case["shape"][1], **case["knobs"], dtype=torch.float64)
    x = noise(*case["shape"], dtype=torch.float64)
    expected = shuffle_attention(x.numpy(), arrays(module), case["knobs"], arrays(module).get("permutation"))
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-9, atol=1e-9)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100)
def test_the_matched_gate_has_the_parameter_count_of_shuffle_attention(groups: int, c: int) -> None:
    channels = 2 * groups * c
    assert count(MatchedSqueezeExcitation(channels, groups)) == count(ShuffleAttention(channels, groups)) == 6 * c


@pytest.mark.parametrize("channels", [6, 24, 58, 116, 128, 256, 2048])
def test_the_matched_gate_has_equal_parameters_with_clamped_groups(channels: int) -> None:
    matched = MatchedSqueezeExcitation(channels, groups_policy="clamp")
    assert count(matched) == count(ShuffleAttention(channels, groups_policy="clamp"))


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))
def test_the_matched_gate_computes_squeeze_and_excitation_per_group(
    batch: int, groups: int, c: int, side: int, seed: int
) -> None:
    module = randomised(MatchedSqueezeExcitation(2 * groups * c, groups, dtype=torch.float64), seed)
    x = noise(batch, 2 * groups * c, side, side + 1, seed=seed + 1, dtype=torch.float64)
    expected = matched_squeeze_excitation(x.numpy(), arrays(module), groups)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_the_matched_gate_raises_the_errors_of_shuffle_attention() -> None:
    # 4 divides 12, but the groups cannot be split in two equal halves.
    with pytest.raises(ValueError, match=refusal("groups=4", "knobs.not_split", channels=12)):
        MatchedSqueezeExcitation(12, 4)


@pytest.mark.parametrize(
    "module",
    [
        ConstantGate(16),
        RandomPermutation(16),
        FrozenShuffleAttention(16, 2),
        MatchedSqueezeExcitation(16, 2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_copy_of_a_control_computes_the_same(module: torch.nn.Module) -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(copy.deepcopy(module)(x), module(x))
