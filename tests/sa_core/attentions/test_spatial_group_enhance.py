from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_core import SpatialGroupEnhance
from tests.sa_core.helpers import arrays, noise, randomised
from tests.sa_core.reference import spatial_group_enhance
from tests.wording import refusal


@st.composite
def cases(draw: st.DrawFn, largest: int = 5) -> dict[str, Any]:
    groups, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    height, breadth = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    return {
        "groups": groups,
        "shape": (draw(st.integers(1, 3)), groups * width, height, breadth),
        "channels_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def make(case: dict[str, Any]) -> tuple[SpatialGroupEnhance, torch.Tensor]:
    module = randomised(SpatialGroupEnhance(case["shape"][1], case["groups"], dtype=torch.float64), case["seed"])
    x = noise(*case["shape"], seed=case["seed"] + 1, dtype=torch.float64)
    return module, x.contiguous(memory_format=torch.channels_last) if case["channels_last"] else x


@settings(max_examples=150)
@given(cases())
def test_forward_computes_the_formula_of_the_official_code(case: dict[str, Any]) -> None:
    module, x = make(case)
    weight, bias = (arrays(module)[name].ravel() for name in ("weight", "bias"))
    expected = spatial_group_enhance(x.numpy(), weight, bias, case["groups"])
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=20)
@given(cases(largest=2).filter(lambda case: case["shape"][2] * case["shape"][3] > 2))
def test_gradients_match_numerical_differentiation(case: dict[str, Any]) -> None:
    module, x = make(case)
    inputs = [x.contiguous(), *(parameter.detach() for parameter in module.parameters())]

    def function(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"weight": weight, "bias": bias}, (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(function, [value.requires_grad_() for value in inputs])


@settings(max_examples=60)
@given(cases())
def test_the_output_has_shape_type_and_layout_of_the_input(case: dict[str, Any]) -> None:
    module, x = make(case)
    out = module(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    layout = torch.channels_last if case["channels_last"] else torch.contiguous_format
    assert out.is_contiguous(memory_format=layout)


def test_a_map_of_one_position_gives_no_nan() -> None:
    module = randomised(SpatialGroupEnhance(8, groups=2))
    x = torch.randn(2, 8, 1, 1)
    # With one position the standardised product is 0, so the gate depends only on its bias.
    torch.testing.assert_close(module(x), x * torch.sigmoid(module.bias).repeat_interleave(4, 1))


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(torch.ones(2, 8, 1, 1), id="one position"),
        pytest.param(torch.zeros(2, 8, 4, 4), id="a group of zeros, as after ReLU"),
        pytest.param(torch.ones(2, 8, 4, 4), id="a constant"),
    ],
)
def test_gradients_are_finite_if_all_positions_are_equal(x: torch.Tensor) -> None:
    module = SpatialGroupEnhance(8, groups=2)
    x = x.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())  # type: ignore[union-attr]


def test_official_names_and_shapes_load_strictly() -> None:
    official = {"weight": torch.randn(1, 64, 1, 1), "bias": torch.randn(1, 64, 1, 1)}
    module = SpatialGroupEnhance(256)
    module.load_state_dict(official, strict=True)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in official.items())


def test_initial_values_are_the_official_ones() -> None:
    module = SpatialGroupEnhance(256)
    assert (module.weight == 0).all()
    assert (module.bias == 1).all()
    x = torch.randn(2, 256, 3, 3)
    torch.testing.assert_close(module(x), x * torch.sigmoid(torch.tensor(1.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"channels": 48},
            refusal("groups=64", "knobs.not_divided", channels=48, then="1, 2, 3, 4, 6, 8,"),
        ),
        ({"channels": 12, "groups": 5}, refusal("groups=5", "knobs.not_divided", channels=12)),
        ({"channels": 12, "groups": 0}, refusal("groups=0", "options.below", least=1)),
        (
            {"channels": 12, "groups": 2, "groups_policy": "most"},
            refusal("groups_policy=most", "options.unknown", valid="strict, cl"),
        ),
    ],
)
def test_invalid_knobs_raise_an_error_with_the_valid_values(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        SpatialGroupEnhance(**arguments)


def test_clamp_uses_the_largest_number_of_groups_that_fits() -> None:
    for channels, groups in [(48, 48), (58, 58), (116, 58), (256, 64), (7, 7), (130, 26)]:
        module = SpatialGroupEnhance(channels, groups_policy="clamp")
        assert module.groups == groups
        assert module.weight.shape == (1, groups, 1, 1)
        assert repr(module) == f"SpatialGroupEnhance({channels}, groups={groups})"


def test_the_gate_is_standardised_in_float32_for_half_precision_maps() -> None:
    module = randomised(SpatialGroupEnhance(8, groups=2))
    x = (20 * noise(2, 8, 6, 6) + 10).half()
    # The scalar products are some hundreds large; their squares overflow in half precision.
    torch.testing.assert_close(module(x).float(), module(x.float()), rtol=0.01, atol=0.1)
