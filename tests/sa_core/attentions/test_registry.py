from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sa_core import ATTENTION, ShuffleAttention, SpatialGroupEnhance
from sa_core.attentions.knobs import ATTENTIONS
from tests.sa_core import reference
from tests.sa_core.helpers import SMALL, arrays, count, noise, on_meta, randomised, small
from tests.wording import refusal

PARAMETERLESS = {"none", "identity", "constant", "permute"}

inputs = st.tuples(
    st.integers(1, 3), st.sampled_from((8, 16, 24)), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16)
)


def make(name: str, case: tuple[int, int, int, int, int], **knobs: Any) -> tuple[nn.Module, torch.Tensor]:
    *shape, seed = case
    module = randomised(ATTENTION[name](shape[1], **knobs, dtype=torch.float64), seed).eval()
    return module, noise(*shape, seed=seed + 1, dtype=torch.float64)


def assert_computes(module: nn.Module, x: torch.Tensor, expected: reference.Array) -> None:
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(inputs, st.sampled_from((1, 4, 16)))
def test_squeeze_and_excitation_computes_the_formula_of_its_paper(
    case: tuple[int, int, int, int, int], reduction: int
) -> None:
    module, x = make("se", case, reduction=reduction)
    assert_computes(module, x, reference.squeeze_excitation(x.numpy(), arrays(module)))


@settings(max_examples=40)
@given(inputs, st.sampled_from((0, 1, 3, 5, 9)))
def test_efficient_channel_attention_computes_the_formula_of_its_paper(
    case: tuple[int, int, int, int, int], kernel_size: int
) -> None:
    module, x = make("eca", case, kernel_size=kernel_size)
    assert_computes(module, x, reference.efficient_channel(x.numpy(), arrays(module)["conv.weight"].ravel()))


@settings(max_examples=40)
@given(inputs, st.sampled_from((2, 16)), st.sampled_from((1, 3, 7)), st.booleans())
def test_cbam_computes_the_formula_of_its_paper(
    case: tuple[int, int, int, int, int], reduction: int, kernel_size: int, mlp_bias: bool
) -> None:
    module, x = make("cbam", case, reduction=reduction, kernel_size=kernel_size, mlp_bias=mlp_bias)
    assert module.get_parameter("spatial.conv.conv.weight").shape == (1, 2, kernel_size, kernel_size)
    assert ("channel.fc1.bias" in module.state_dict()) == ("channel.fc2.bias" in module.state_dict()) == mlp_bias
    assert_computes(module, x, reference.cbam(x.numpy(), arrays(module)))


@settings(max_examples=40)
@given(inputs, st.sampled_from((2, 8)), st.sampled_from(("add", "scale")))
def test_global_context_computes_the_formula_of_its_paper(
    case: tuple[int, int, int, int, int], reduction: int, fusion: str
) -> None:
    module, x = make("gc", case, reduction=reduction, fusion=fusion)
    layer = module.get_submodule(f"mlp_{fusion}.norm")
    assert_computes(module, x, reference.global_context(x.numpy(), arrays(module), fusion, float(layer.eps)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "hidden"), [(16, 8), (64, 8), (128, 8), (256, 16), (512, 32), (2048, 128)])
def test_squeeze_and_excitation_has_two_layers_with_biases(channels: int, hidden: int) -> None:
    shapes = {name: tuple(value.shape) for name, value in ATTENTION["se"](channels).state_dict().items()}
    assert shapes == {
        "fc1.weight": (hidden, channels, 1, 1),
        "fc1.bias": (hidden,),
        "fc2.weight": (channels, hidden, 1, 1),
        "fc2.bias": (channels,),
    }


def test_reduction_is_the_number_of_channels_per_hidden_unit() -> None:
    assert ATTENTION["se"](256, reduction=4).get_parameter("fc1.weight").shape[0] == 64
    assert ATTENTION["cbam"](256, reduction=4).get_parameter("channel.fc1.weight").shape[0] == 64
    assert ATTENTION["gc"](256, reduction=4).get_parameter("mlp_add.fc1.weight").shape[0] == 64
    assert ATTENTION["cbam"](256).get_parameter("channel.fc1.weight").shape[0] == 16
    assert ATTENTION["gc"](256).get_parameter("mlp_add.fc1.weight").shape[0] == 16


@pytest.mark.parametrize(("channels", "kernel_size"), [(16, 3), (64, 3), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_the_default_kernel_size_of_eca_follows_the_papers_rule(channels: int, kernel_size: int) -> None:
    shapes = {name: tuple(value.shape) for name, value in ATTENTION["eca"](channels).state_dict().items()}
    assert shapes == {"conv.weight": (1, 1, kernel_size)}


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_a_given_kernel_size_overrides_the_rule(kernel_size: int) -> None:
    assert ATTENTION["eca"](2048, kernel_size=kernel_size).get_parameter("conv.weight").shape == (1, 1, kernel_size)


def test_cbam_has_the_biases_of_the_official_code_by_default() -> None:
    official = on_meta(name="resnet50", num_classes=1000, attention="cbam")
    assert (
        count(official) - count(on_meta(name="resnet50", num_classes=1000, attention="cbam", mlp_bias=False)) == 16048
    )


def test_the_spatial_gate_of_cbam_is_a_7x7_convolution_with_a_norm() -> None:
    state = ATTENTION["cbam"](64).state_dict()
    assert state["spatial.conv.conv.weight"].shape == (1, 2, 7, 7)
    assert "spatial.conv.conv.bias" not in state
    assert state["spatial.conv.bn.weight"].shape == (1,)


def test_global_context_adds_by_default_and_can_scale() -> None:
    names = {fusion: set(ATTENTION["gc"](64, fusion=fusion).state_dict()) for fusion in ("add", "scale")}
    assert set(ATTENTION["gc"](64).state_dict()) == names["add"]
    assert {name.split(".")[0] for name in names["add"]} == {"conv_attn", "mlp_add"}
    assert {name.split(".")[0] for name in names["scale"]} == {"conv_attn", "mlp_scale"}


@pytest.mark.parametrize("name", ["none", "identity"])
def test_identity_does_nothing(name: str) -> None:
    x = torch.randn(2, 7, 3, 3)
    assert ATTENTION[name](7)(x) is x


@pytest.mark.parametrize(
    ("name", "kind"), [("sa", ShuffleAttention), ("sge", SpatialGroupEnhance), ("none", nn.Identity)]
)
def test_a_name_builds_its_module(name: str, kind: type[nn.Module]) -> None:
    assert type(small(name)) is kind


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("se", {"reduction": 0}, refusal("reduction=0", "options.below", least=1)),
        ("eca", {"kernel_size": 2}, refusal("kernel_size=2", "knobs.no_middle")),
        ("cbam", {"kernel_size": 4}, refusal("kernel_size=4", "knobs.no_middle")),
        ("cbam", {"reduction": -1}, refusal("reduction=-1", "options.below", least=1)),
        ("gc", {"fusion": "both"}, refusal("fusion=both", "options.unknown", valid="add, scale")),
        ("sge", {"groups": 7}, refusal("groups=7", "knobs.not_divided", channels=128)),
        ("frozen", {"gate": "relu"}, refusal("gate=relu", "options.unknown")),
        ("se_matched", {"groups": 0}, refusal("groups=0", "options.below", least=1)),
    ],
)
def test_a_value_that_will_not_do_is_refused_with_the_reason(name: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        ATTENTION[name](128, **knobs)


@pytest.mark.parametrize("name", ATTENTION)
class TestEveryAttention:
    def test_raises_an_error_for_an_unknown_knob(self, name: str) -> None:
        with pytest.raises(TypeError, match="groop"):
            ATTENTION[name](128, groop=2)
        with pytest.raises(TypeError, match="groop"):
            ATTENTIONS[name](groop=2)  # type: ignore[call-arg]

    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_keeps_shape_type_and_layout(self, name: str, channels_last: bool, batch: int) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = noise(batch, 16, 5, 6).contiguous(memory_format=layout)
        out = small(name)(x)
        assert (out.shape, out.dtype) == (x.shape, x.dtype)
        assert out.is_contiguous(memory_format=layout)

    def test_computes_the_same_in_either_layout(self, name: str) -> None:
        x, module = noise(3, 16, 5, 6), small(name).eval()
        torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))

    def test_does_not_change_its_input(self, name: str) -> None:
        x = noise(3, 16, 5, 6)
        before = x.clone()
        small(name)(x)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("channels_last", [False, True])
    def test_returns_the_type_of_its_input_under_autocast(
        self, name: str, dtype: torch.dtype, channels_last: bool
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        x = noise(3, 16, 5, 6).to(dtype).contiguous(memory_format=layout).requires_grad_()
        module = small(name).eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = module(x)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=layout)
        torch.testing.assert_close(out.float(), module(x.float()), rtol=0.1, atol=0.1)
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()

    def test_is_built_with_the_requested_type_and_device(self, name: str) -> None:
        module = ATTENTION[name](16, **SMALL[name], dtype=torch.float64, device="meta")
        parameters = list(module.parameters())
        assert {parameter.dtype for parameter in parameters} <= {torch.float64}
        assert {value.device.type for value in module.state_dict().values()} <= {"meta"}
        assert bool(parameters) == (name not in PARAMETERLESS)

    def test_is_copied_with_its_state(self, name: str) -> None:
        module, x = small(name).eval(), noise(2, 16, 5, 6)
        before = module(x).detach().clone()
        twin = copy.deepcopy(module)
        assert torch.equal(twin(x), before)
        randomised(module, seed=5)
        assert torch.equal(twin(x), before)

    def test_is_restored_from_its_state_dict(self, name: str) -> None:
        torch.manual_seed(0)
        module, twin = small(name).eval(), ATTENTION[name](16, **SMALL[name]).eval()
        x = noise(2, 16, 5, 6)
        if list(module.state_dict()):
            assert not torch.equal(twin(x), module(x))
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        twin.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert torch.equal(twin(x), module(x))
