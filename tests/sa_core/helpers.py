"""Helpers for the tests of the package: modules with random parameters, and a strategy for variants of SA."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from sa_core import ATTENTION
from sa_core.attentions.declaration import default_of
from sa_core.attentions.knobs import ATTENTIONS as ATTENTION_KNOBS
from sa_core.attentions.knobs import (
    BRANCHES,
    GATES,
    PERMUTATIONS,
    POOLINGS,
    TRANSFORMS,
    GroupedKnobs,
    ShuffleAttentionKnobs,
)
from sa_core.errors import OptionError
from tests.sa_core.reference import Array, groups_on

Module = TypeVar("Module", bound=nn.Module)

# The paper's 64 groups do not fit the few channels of a test.
SMALL: dict[str, dict[str, Any]] = {
    name: {"groups": 4} if issubclass(knobs, GroupedKnobs) else {} for name, knobs in ATTENTION_KNOBS.items()
}


def small(name: str, channels: int = 16, *, dtype: torch.dtype | None = None) -> nn.Module:
    """An attention module by name, with a number of groups that fits, and random parameters."""
    return randomised(ATTENTION[name](channels, **SMALL[name], dtype=dtype))


def randomised(module: Module, seed: int = 0) -> Module:
    """Draws all parameters and running statistics at random, as initial values of 0 and 1 would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module


def noise(*shape: int, seed: int = 1, dtype: torch.dtype | None = None) -> Tensor:
    """Standard normal numbers from a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype or torch.get_default_dtype()
    )


def arrays(module: nn.Module) -> dict[str, Array]:
    """The state dict of a module as float64 arrays."""
    return {name: value.numpy().astype(np.float64) for name, value in module.state_dict().items()}


def count(module: nn.Module) -> int:
    """The number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**arguments: Any) -> nn.Module:
    """A network on the meta device, which is quick to build and enough for counts and shapes."""
    from sa_core import create_model

    with torch.device("meta"):
        return create_model(**arguments, seed=0)


@st.composite
def variants(draw: st.DrawFn, largest: int = 4) -> dict[str, Any]:
    """Any valid combination of the knobs of shuffle attention, under `knobs`, and a valid input `shape`."""
    groups, c = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    channels = 2 * groups * c
    knobs: dict[str, Any] = {
        "groups": groups,
        "groups_policy": draw(st.sampled_from(("strict", "clamp"))),
        "branches": draw(st.sampled_from(BRANCHES)),
        "removed": draw(st.sampled_from(("identity", "reassign"))),
        "transform": draw(st.sampled_from(TRANSFORMS)),
        "norm_affine": draw(st.booleans()),
        "pooling": draw(st.sampled_from(POOLINGS)),
        "gate": draw(st.sampled_from(GATES)),
        "gate_bias": draw(st.sampled_from((1.0, 0.0, -2.5))),
        "shuffle": draw(st.booleans()),
        "shuffle_groups": draw(st.sampled_from(divisors(channels)[1:])),
        "permutation": draw(st.sampled_from(PERMUTATIONS)),
    }
    if knobs["groups_policy"] == "clamp":
        knobs["groups"] = draw(st.integers(1, 2 * channels))
        groups = groups_on(channels, knobs["groups"], "clamp")
    share = channels // groups // (1 if knobs["removed"] == "reassign" else 2)
    norms = ["instance", "layer", "batch", "none", *(f"group:{k}" for k in divisors(share)[1:])]
    knobs["norm"] = draw(st.sampled_from(norms))
    # Most random combinations have knobs without effect: these are reset to their defaults.
    while idle := ShuffleAttentionKnobs(**knobs).without_effect():
        knobs |= {name: default_of(ShuffleAttentionKnobs, name) for name in idle}
    try:
        ShuffleAttentionKnobs(**knobs).check(channels)
    except OptionError:
        assume(False)
    # torch's norms raise an error for a single value, so maps have at least two positions.
    shape = (draw(st.integers(1, min(largest, 3))), channels, draw(st.integers(2, 3)), draw(st.integers(1, largest)))
    return {
        "shape": shape,
        "knobs": knobs,
        "channels_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def divisors(number: int) -> list[int]:
    """The divisors of a number, ascending."""
    return [k for k in range(1, number + 1) if number % k == 0]
