"""Helpers for the tests of the fused operator: supported variants, maps in any layout, and exact results."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from sa_core import ShuffleAttention
from sa_core.attentions.declaration import default_of
from sa_core.attentions.knobs import ShuffleAttentionKnobs
from sa_core.backbones.attention_block import AttentionBlock
from sa_core.fused import cpu
from tests.sa_core.helpers import divisors, noise, randomised

Module = TypeVar("Module", bound=nn.Module)

TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Half of the relative rounding error allowed for results of a type.
ROUNDING = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}
COMPUTED = 1e-5  # allowed error of a float32 computation, relative to the largest value
NAMES = ("cweight", "cbias", "sweight", "sbias", "gn.weight", "gn.bias")
needs_kernels = pytest.mark.skipif(cpu.load() is None, reason="no kernels for this CPU: there was no C++ compiler")

# Channels and groups. In channels_last both determine the code path of the kernels: by the number of vectors, and by
# whether branches alternate within a vector.
SIZES = (
    (2, 1), (6, 3), (8, 2), (12, 2), (16, 4), (16, 8), (30, 5), (32, 4), (58, 29), (64, 1), (64, 8), (96, 6), (128, 64),
)  # fmt: skip

LAYOUTS: Mapping[str, Callable[[tuple[int, ...], int], Tensor]] = {
    "nchw": lambda shape, seed: noise(*shape, seed=seed),
    "nhwc": lambda shape, seed: noise(*shape, seed=seed).contiguous(memory_format=torch.channels_last),
    "every other channel": lambda shape, seed: noise(shape[0], 2 * shape[1], *shape[2:], seed=seed)[:, ::2],
    "later channels of nhwc": lambda shape, seed: noise(
        shape[0], shape[1] + 3, *shape[2:], seed=seed
    ).contiguous(memory_format=torch.channels_last)[:, 3:],
    "a window": lambda shape, seed: noise(*shape[:2], shape[2] + 2, shape[3] + 3, seed=seed)[:, :, 1:-1, 2:-1],
    "transposed": lambda shape, seed: noise(*shape[:2], shape[3], shape[2], seed=seed).transpose(2, 3),
    "images last": lambda shape, seed: noise(*shape[1:], shape[0], seed=seed).permute(3, 0, 1, 2),
    "one image, expanded": lambda shape, seed: noise(1, *shape[1:], seed=seed).expand(shape),
    "one value, expanded": lambda shape, seed: noise(1, seed=seed).view(1, 1, 1, 1).expand(shape),
}  # fmt: skip


@st.composite
def knobs_of(draw: st.DrawFn, channels: int, groups: int) -> dict[str, Any]:
    """Any combination of knobs with kernels."""
    knobs: dict[str, Any] = {
        "groups": groups,
        "branches": draw(st.sampled_from(("both", "both", "channel", "spatial", "none"))),
        "removed": draw(st.sampled_from(("identity", "reassign"))),
        "transform": draw(st.sampled_from(("affine", "affine_channel", "none"))),
        "norm": draw(st.sampled_from(("instance", "instance", "none"))),
        "norm_affine": draw(st.booleans()),
        "shuffle": draw(st.booleans()),
        "shuffle_groups": draw(st.sampled_from([k for k in divisors(channels) if 2 <= k <= 8])),
        "permutation": draw(st.sampled_from(("interleave", "interleave", "random"))),
    }
    while idle := ShuffleAttentionKnobs(**knobs).without_effect():
        knobs |= {name: default_of(ShuffleAttentionKnobs, name) for name in idle}
    return knobs


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """A variant of shuffle attention and its input map."""
    channels, groups = draw(st.sampled_from(SIZES))
    return {
        "shape": (draw(st.integers(1, 3)), channels, draw(st.integers(1, 7)), draw(st.integers(1, 9))),
        "knobs": draw(knobs_of(channels, groups)),
        "layout": draw(st.sampled_from(("nchw", "nhwc", *LAYOUTS))),
        "grad_layout": draw(st.sampled_from(("nchw", "nhwc", *LAYOUTS))),
        "seed": draw(st.integers(0, 2**16)),
    }


def make(channels: int, groups: int = 4, *, seed: int = 0, **knobs: Any) -> ShuffleAttention:
    """Shuffle attention with kernels and random parameters."""
    torch.manual_seed(seed)  # seeds the random permutation
    return randomised(ShuffleAttention(channels, groups, **{"fused": "on", **knobs}), seed)


def make_case(case: dict[str, Any]) -> ShuffleAttention:
    return make(case["shape"][1], seed=case["seed"], **case["knobs"])


def last(x: Tensor) -> Tensor:
    """The map in channels_last."""
    return x.contiguous(memory_format=torch.channels_last)


def exact(module: Module) -> Module:
    """A copy in float64, computed by torch's operations."""
    twin = copy.deepcopy(module).double()
    for part in twin.modules():
        if isinstance(part, ShuffleAttention):
            part.fuse("off")
        elif isinstance(part, AttentionBlock):
            part.fused = False
    return twin


def results_of(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """The output and all gradients, by name."""
    leaf = x.detach().requires_grad_()  # with the same strides
    out = module(leaf)
    leaves = {"x": leaf, **dict(module.named_parameters())}
    gradients = torch.autograd.grad(out, list(leaves.values()), grad.to(out.dtype))
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def assert_near(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    dtype: torch.dtype,
    computed: float = COMPUTED,
    *,
    cancelled: float = 0,
) -> None:
    """Compares results and gradients with exact ones: maps by value, parameters relative to their largest value.

    `cancelled` is the magnitude of the terms that cancel in the gradient of x.
    """
    assert set(found) == set(expected)
    gradient_maxima = [expected[name].abs().max() for name in expected if name not in ("out", "x", "shortcut")]
    for name, value in found.items():
        exact_value = expected[name]
        assert value.shape == exact_value.shape, name
        if name in ("out", "x", "shortcut"):
            assert value.dtype == dtype, name
            largest = max(float(exact_value.abs().max()), cancelled if name == "x" else 0)
            allowed = ROUNDING[dtype] * exact_value.abs() + computed * largest + 2**-25  # smallest step of float16
        else:
            allowed = torch.full_like(exact_value, computed * float(1 + torch.stack(gradient_maxima).max()))
        rounded = exact_value.to(value.dtype)
        is_overflow = rounded.isinf() & (value == rounded)  # beyond the range of float16
        excess = (torch.where(is_overflow, 0, value.double() - exact_value).abs() / allowed).max()
        assert excess <= 1, f"{name} has {excess:.2f} times the allowed error"


def assert_exact(module: ShuffleAttention, x: Tensor, grad: Tensor | None = None, computed: float = COMPUTED) -> None:
    """Compares the kernels with torch's operations in float64, values and all gradients."""
    assert module.fused == "on"
    grad = noise(*x.shape, seed=99).to(x.dtype) if grad is None else grad
    expected = results_of(exact(module), x.double(), grad.double())
    assert_near(results_of(module, x, grad), expected, x.dtype, computed)


def fixed() -> Iterator[tuple[str, ShuffleAttention, Tensor]]:
    """Cases that cover every code path of the library, for builds that run in a separate process."""
    shapes = (
        (2, 64, 5, 7), (2, 12, 4, 4), (1, 32, 1, 1), (1, 58, 3, 3), (1, 4, 30, 31), (3, 32, 3, 1),
        (3, 16, 4, 5), (2, 8, 2, 3),  # a single vector
    )  # fmt: skip
    variants: tuple[dict[str, Any], ...] = (
        {}, {"shuffle": False}, {"permutation": "random"}, {"norm": "none"}, {"branches": "spatial"},
        {"shuffle_groups": 4},
    )  # fmt: skip
    for shape in shapes:
        for layout in ("nchw", "nhwc"):
            for knobs in variants:
                if shape[1] % knobs.get("shuffle_groups", 2):
                    continue
                for dtype in filter(cpu.supports, TYPES):
                    x = LAYOUTS[layout](shape, 5).to(dtype)
                    yield f"{shape} {layout} {knobs} {dtype}", make(shape[1], 1 if shape[1] == 58 else 2, **knobs), x
    for channels, groups in ((16, 8), (32, 8), (64, 4), (64, 16), (96, 6)):  # branches of 1 to 8 channels
        yield f"{channels} in {groups} groups", make(channels, groups), last(noise(3, channels, 5, 8))
    for size in (16, 17, 31, 64):
        yield f"rows of {size}", make(8, 2), noise(2, 8, 1, size)
    module = make(8, 2, norm="none")
    with torch.no_grad():
        module.cbias.mul_(100)
        module.sbias.mul_(100)
    yield "gates far out", module, noise(2, 8, 3, 7)
    # One outlier: exponents of gates within the range of the power function, and beyond it, where they are clamped.
    for weight in (4.9, 5.1, 5.3, 50, -5.1, -50):
        module, x = make(8, 2), noise(2, 8, 16, 16) * 1e-3
        x[..., 3, 5] = 1
        with torch.no_grad():
            module.sweight.fill_(weight)
            module.gn.weight.fill_(1)
        yield f"one far value, weight {weight}", module, x


def check_fixed() -> dict[str, Any]:
    """Checks the library of this process; returns its name and the failures."""
    wrong, count = [], 0
    for name, module, x in fixed():
        count += 1
        try:
            assert_exact(module, x)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    found = cpu.load()
    types = [str(dtype) for dtype in TYPES if cpu.supports(dtype)]
    return {"library": found and found._name, "types": types, "count": count, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(check_fixed()))
