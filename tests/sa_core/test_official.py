from __future__ import annotations

import pytest
import torch

from sa_core import ShuffleAttention
from tests.sa_core.helpers import noise, randomised
from tests.sa_core.official import OfficialShuffleAttention


@pytest.mark.parametrize(("channels", "groups"), [(128, 64), (16, 4), (8, 1)])
def test_values_and_gradients_equal_those_of_the_official_formulation(channels: int, groups: int) -> None:
    official = randomised(OfficialShuffleAttention(channels, groups)).double()
    ours = ShuffleAttention(channels, groups).double()
    ours.load_state_dict(official.state_dict(), strict=True)
    results = []
    for module in (official, ours):
        x = noise(2, channels, 5, 7, dtype=torch.float64).requires_grad_()
        out = module(x)
        out.backward(noise(2, channels, 5, 7, seed=2, dtype=torch.float64))
        results.append([out, x.grad, *(parameter.grad for _, parameter in sorted(module.named_parameters()))])
    for official_value, our_value in zip(*results, strict=True):
        torch.testing.assert_close(official_value, our_value)
