"""Which variants have kernels, how the module reports it, and what happens without kernels."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from sa_core import ShuffleAttention
from sa_core.attentions.knobs import ShuffleAttentionKnobs
from sa_core.errors import OptionError, ShapeError
from sa_core.fused import FUSED, Form, can_take, cpu, form_of, reason_against
from tests.sa_core.fused.cases import ROUNDING, TYPES, last, make, needs_kernels
from tests.sa_core.helpers import noise, randomised, variants
from tests.wording import refusal, worded

# With 16 channels in 2 groups: 8 channels per group, 4 per branch.
COVERED: tuple[tuple[dict[str, Any], Form], ...] = (
    ({}, Form(2, 4, True, "instance", 2)),
    ({"branches": "channel"}, Form(2, 4, True, "none", 2)),
    ({"branches": "spatial"}, Form(2, 4, False, "instance", 2)),
    ({"branches": "none"}, Form(2, 4, False, "none", 2)),
    ({"branches": "channel", "removed": "reassign"}, Form(2, 8, True, "none", 2)),
    ({"branches": "spatial", "removed": "reassign"}, Form(2, 0, False, "instance", 2)),
    ({"branches": "spatial", "norm": "none", "removed": "reassign"}, Form(2, 0, False, "plain", 2)),
    ({"norm": "none"}, Form(2, 4, True, "plain", 2)),
    ({"norm_affine": False}, Form(2, 4, True, "instance", 2)),
    ({"transform": "affine_channel"}, Form(2, 4, True, "instance", 2)),
    ({"transform": "none"}, Form(2, 4, True, "instance", 2)),
    ({"gate_bias": -3.0}, Form(2, 4, True, "instance", 2)),
    ({"shuffle": False}, Form(2, 4, True, "instance", 1)),
    ({"shuffle_groups": 8}, Form(2, 4, True, "instance", 8)),
    ({"permutation": "random"}, Form(2, 4, True, "instance", 2)),
    ({"groups": 64, "groups_policy": "clamp"}, Form(8, 1, True, "instance", 2)),
)
LACKING: tuple[tuple[dict[str, Any], str], ...] = (
    ({"transform": "conv1x1"}, "transform=conv1x1"),
    ({"norm": "batch"}, "norm=batch"),
    ({"norm": "layer"}, "norm=layer"),
    ({"norm": "group:2"}, "norm=group:2"),
    ({"pooling": "max"}, "pooling=max"),
    ({"pooling": "avg_max"}, "pooling=avg_max"),
    ({"gate": "tanh1"}, "gate=tanh1"),
    ({"gate": "hard_sigmoid"}, "gate=hard_sigmoid"),
    ({"gate": "none"}, "gate=none"),
)


@pytest.mark.parametrize(("knobs", "form"), COVERED)
def test_a_variant_with_kernels_has_a_form(knobs: dict[str, Any], form: Form) -> None:
    assert form_of(ShuffleAttentionKnobs(**{"groups": 2, **knobs}), 16) == form


@pytest.mark.parametrize(("knobs", "lacking"), LACKING)
def test_a_variant_without_kernels_has_a_reason(knobs: dict[str, Any], lacking: str) -> None:
    reason = worded("fused.no_kernel", lacking=lacking)
    assert form_of(ShuffleAttentionKnobs(groups=2, **knobs), 16) == reason
    module = ShuffleAttention(16, 2, **knobs)
    assert repr(module).count(f"fused=auto, {worded('fused.by_torch', reason=reason)}") == 1
    assert module.reason_against(torch.float32) == reason
    assert module.fused_form(noise(1, 16, 2, 2)) is None
    with pytest.raises(
        OptionError, match=refusal("fused=on", "fused.unavailable", then=reason, valid="auto, off") + "$"
    ):
        ShuffleAttention(16, 2, fused="on", **knobs)
    with pytest.raises(OptionError, match="is not available"):
        module.fuse("on")
    assert module.fused == "auto"


@needs_kernels
@settings(max_examples=100)
@given(variants())
def test_any_variant_gives_the_same_result_with_auto_and_off(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    module = randomised(ShuffleAttention(case["shape"][1], **case["knobs"]), case["seed"])
    x = noise(*case["shape"], seed=case["seed"])
    x = last(x) if case["channels_last"] else x
    auto = module(x)
    form = module.fused_form(x)
    assert form is None or type(form) is Form
    module.fuse("off")
    expected = module(x)
    assert (auto - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-30
    assert auto.stride() == expected.stride() or 1 in x.shape


def test_an_unknown_value_raises_an_error_with_the_valid_ones() -> None:
    message = refusal("fused=yes", "options.unknown", valid="auto, on, off")
    with pytest.raises(OptionError, match=message):
        ShuffleAttention(16, 2, fused="yes")
    module = ShuffleAttention(16, 2)
    with pytest.raises(OptionError, match=message):
        module.fuse("yes")
    assert FUSED == ("auto", "on", "off")


@needs_kernels
def test_repr_shows_what_computes_the_module() -> None:
    module = ShuffleAttention(16, 2)
    for fused, computed in (
        ("auto", "by kernels"),
        ("on", "by kernels"),
        ("off", "by torch: fused=off"),
    ):
        module.fuse(fused)
        assert f", fused={fused}, computed {computed}\n" in repr(module)
    module = ShuffleAttention(16, 2, branches="none")
    assert "fused=auto, computed by kernels)" in repr(module)
    module = ShuffleAttention(16, 2, device="meta")
    assert worded("fused.by_torch", reason=worded("fused.no_kernel", lacking="float32 on meta")) in repr(module)


@needs_kernels
def test_reasons_depend_on_type_and_device() -> None:
    assert reason_against("cpu", torch.float32) is None
    assert reason_against("cpu", torch.bfloat16) is None
    assert reason_against("cpu", torch.float64) == worded("fused.no_kernel", lacking="float64 on cpu")
    assert reason_against("meta", torch.float32) == worded("fused.no_kernel", lacking="float32 on meta")
    module = ShuffleAttention(16, 2)
    assert module.reason_against(torch.float32) is None
    assert module.reason_against(torch.float64) == worded("fused.no_kernel", lacking="float64 on cpu")
    module.fuse("off")
    assert module.reason_against(torch.float32) == "fused=off"


@needs_kernels
def test_a_type_without_kernels_raises_an_error_with_on_and_works_with_auto() -> None:
    module, x = make(16, 2, dtype=torch.float64), noise(2, 16, 3, 3, dtype=torch.float64)
    with pytest.raises(
        OptionError,
        match=refusal(
            "fused=on", "fused.unavailable", then=worded("fused.no_kernel", lacking="float64 on cpu"), valid="auto, off"
        ),
    ):
        module(x)
    module.fuse("auto")
    auto = module(x)
    module.fuse("off")
    assert torch.equal(auto, module(x))


@needs_kernels
def test_a_replaced_norm_raises_an_error_with_on() -> None:
    module, x = make(16, 2), noise(2, 16, 3, 3)
    module.gn = torch.nn.GroupNorm(4, 4)
    with pytest.raises(
        OptionError, match=refusal("fused=on", "fused.unavailable", then="was replaced", valid="auto, off")
    ):
        module(x)


@needs_kernels
@pytest.mark.parametrize("dtype", TYPES)
def test_off_equals_auto_up_to_the_precision_of_the_type(dtype: torch.dtype) -> None:
    if not cpu.supports(dtype):
        pytest.skip(f"this build has no {dtype}")
    module, x = make(16, 2, fused="auto", dtype=dtype), noise(2, 16, 5, 5).to(dtype)
    auto = module(x)
    module.fuse("off")
    off = module(x)
    assert auto.dtype == off.dtype == dtype
    # Eager torch rounds about a dozen intermediate results.
    assert (auto.double() - off.double()).abs().max() <= 12 * ROUNDING[dtype] * off.abs().max()
    if dtype == torch.float32:
        assert not torch.equal(auto, off)  # shows that kernels computed `auto`


@pytest.mark.parametrize("fused", ["auto", "off", pytest.param("on", marks=needs_kernels)])
@pytest.mark.parametrize("shape", [(0, 16, 3, 3), (2, 16, 0, 3)])
def test_an_empty_map_stays_empty(shape: tuple[int, ...], fused: str) -> None:
    module, x = make(16, 2, fused="off", branches="channel"), noise(*shape).requires_grad_()
    module.fuse(fused)
    out = module(x)
    assert out.shape == shape
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape
    assert not can_take(x, 16)


def test_every_gradient_of_an_empty_batch_is_zero() -> None:
    module = make(16, 2, fused="auto")
    module(noise(0, 16, 3, 3)).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in module.parameters())


def test_shapes_are_propagated_on_the_meta_device() -> None:
    module = ShuffleAttention(16, 2, device="meta")
    out = module(torch.empty(2, 16, 3, 3, device="meta"))
    assert out.shape == (2, 16, 3, 3)
    assert out.device.type == "meta"
    module.fuse("on")
    with pytest.raises(OptionError, match=worded("fused.no_kernel", lacking="float32 on meta")):
        module(torch.empty(2, 16, 3, 3, device="meta"))


@pytest.mark.parametrize("fused", ["auto", "off", pytest.param("on", marks=needs_kernels)])
@pytest.mark.parametrize("shape", [(16, 3, 3), (3, 3), (1, 2, 16, 3, 3), (2, 8, 3, 3), (2, 3, 3, 16), (0, 8, 3, 3)])
def test_a_map_of_another_rank_or_width_raises_shape_error(shape: tuple[int, ...], fused: str) -> None:
    module = make(16, 2, fused="off")
    module.fuse(fused)
    for call in (module, module.gates):
        with pytest.raises(ShapeError, match=re.escape(worded("fused.shape", channels=16, shape=list(shape)))):
            call(noise(*shape))
