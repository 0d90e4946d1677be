"""The fused end of residual blocks against torch's operations in float64: results, gradients and running statistics."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from sa_core import ShuffleAttention, create_model
from sa_core.backbones.attention_block import AttentionBlock
from sa_core.backbones.cifar_resnet import CifarBlock
from sa_core.backbones.torchvision_models import AttentionBasicBlock, AttentionBottleneck
from sa_core.errors import OptionError
from sa_core.fused import block as fused_block
from sa_core.fused import cpu
from sa_core.fused.block import end_of_block
from tests.sa_core.fused.cases import (
    COMPUTED,
    LAYOUTS,
    SIZES,
    TYPES,
    assert_near,
    exact,
    knobs_of,
    last,
    make,
    needs_kernels,
)
from tests.sa_core.helpers import noise, randomised
from tests.wording import refusal, worded

pytestmark = needs_kernels
both_layouts = pytest.mark.parametrize("layout", ["nchw", "nhwc"])
both_modes = pytest.mark.parametrize("training", [True, False])

VARIANTS: dict[str, dict[str, Any] | None] = {
    "official": {},
    "no attention": None,
    "channel gate": {"branches": "channel"},
    "spatial gate on all": {"branches": "spatial", "removed": "reassign"},
    "no gate": {"branches": "none"},
    "no norm": {"norm": "none"},
    "no affine": {"norm_affine": False, "transform": "none"},
    "no shuffle": {"shuffle": False},
    "random order": {"permutation": "random"},
    "four blocks": {"shuffle_groups": 4},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def attention_of(variant: str, channels: int) -> nn.Module:
    knobs = VARIANTS[variant]
    return nn.Identity() if knobs is None else make(channels, 2, **knobs)


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers() if not name.endswith("permutation")}


def assert_same_buffers(found: nn.Module, expected: nn.Module) -> None:
    expected_buffers = buffers_of(expected)
    assert buffers_of(found).keys() == expected_buffers.keys()
    for name, value in buffers_of(found).items():
        if not value.is_floating_point():
            assert torch.equal(value, expected_buffers[name]), name
            continue
        expected_value = expected_buffers[name].double()
        assert (value.double() - expected_value).abs().max() <= 1e-6 * (1 + expected_value.abs().max()), name


def named_parameters(norm: nn.Module, attention: nn.Module) -> dict[str, nn.Parameter]:
    return {
        **{f"norm.{name}": value for name, value in norm.named_parameters()},
        **{f"sa.{name}": value for name, value in attention.named_parameters()},
    }


def assert_end_is_exact(
    x: Tensor, norm: nn.BatchNorm2d, attention: nn.Module, shortcut: Tensor, computed: float = COMPUTED
) -> None:
    """Compares the fused end of a block with float64, where the ReLU has the same active units."""
    exact_norm, exact_attention = copy.deepcopy(norm).double(), exact(attention)
    grad = noise(*x.shape, seed=77).to(x.dtype)
    leaves = {"x": x.detach().requires_grad_(), "shortcut": shortcut.detach().requires_grad_()}
    out = end_of_block(leaves["x"], norm, attention, leaves["shortcut"])
    assert out is not None
    leaves |= named_parameters(norm, attention)
    gradients = torch.autograd.grad(out, list(leaves.values()), grad)
    found = {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}

    leaves = {"x": x.detach().double().requires_grad_(), "shortcut": shortcut.detach().double().requires_grad_()}
    total = exact_attention(exact_norm(leaves["x"])) + leaves["shortcut"]
    leaves |= named_parameters(exact_norm, exact_attention)
    gradients = torch.autograd.grad(total, list(leaves.values()), grad.double() * (out > 0))
    expected = {"out": torch.relu(total).detach(), **dict(zip(leaves, gradients, strict=True))}
    # Batch norm removes the gradient's components along mean and variance: with few values, little remains.
    variance = (
        x.detach().double().var((0, 2, 3), correction=0)
        if norm.training or exact_norm.running_var is None
        else (exact_norm.running_var)
    )
    slope = (1 if norm.weight is None else norm.weight.detach().abs().double()) / (variance + norm.eps).sqrt()
    assert_near(found, expected, x.dtype, computed, cancelled=float(slope.max()))
    assert_same_buffers(norm, exact_norm)


def norm_on(channels: int, *, training: bool = True, **options: Any) -> nn.BatchNorm2d:
    return randomised(nn.BatchNorm2d(channels, **options)).train(training)


@st.composite
def ends(draw: st.DrawFn) -> dict[str, Any]:
    """An end of a block, and its input maps."""
    channels, groups = draw(st.sampled_from(SIZES))
    shape = (draw(st.integers(1, 3)), channels, draw(st.integers(1, 6)), draw(st.integers(1, 7)))
    if shape[0] * shape[2] * shape[3] == 1:
        shape = (2, *shape[1:])
    return {
        "shape": shape,
        "knobs": draw(st.none() | knobs_of(channels, groups)),
        "layout": draw(st.sampled_from(("nchw", "nhwc", *LAYOUTS))),
        "shortcut_layout": draw(st.sampled_from(("nchw", "nhwc", *LAYOUTS))),
        "dtype": draw(st.sampled_from(TYPES)),
        "training": draw(st.booleans()),
        "norm": {
            "momentum": draw(st.sampled_from((0.1, 0.3, 0.0, 1.0, None))),
            "affine": draw(st.booleans()),
            "track_running_stats": draw(st.booleans()),
            "eps": draw(st.sampled_from((1e-5, 1e-3))),
        },
        "seed": draw(st.integers(0, 2**16)),
    }


@settings(max_examples=200)
@given(ends())
def test_the_fused_end_of_a_block_equals_its_separate_parts(case: dict[str, Any]) -> None:
    if not cpu.supports(case["dtype"]):
        return
    shape, seed = case["shape"], case["seed"]
    maps = LAYOUTS[case["layout"]](shape, seed), LAYOUTS[case["shortcut_layout"]](shape, seed + 1)
    x, shortcut = (value if value.dtype == case["dtype"] else value.to(case["dtype"]) for value in maps)
    knobs = case["knobs"]
    attention = nn.Identity() if knobs is None else make(shape[1], seed=seed, **knobs)
    norm = norm_on(shape[1], training=case["training"], **case["norm"])
    assert_end_is_exact(x, norm, attention, shortcut)


@both_layouts
@both_modes
@every_variant
def test_the_fused_end_of_a_block_is_exact_for_every_variant(variant: str, training: bool, layout: str) -> None:
    x, shortcut = (LAYOUTS[layout]((3, 32, 5, 7), seed) for seed in (5, 6))
    assert_end_is_exact(x, norm_on(32, training=training), attention_of(variant, 32), shortcut)


@both_layouts
@pytest.mark.parametrize("variant", ["official", "no attention"])
@pytest.mark.parametrize("side", [64, 65])  # rows of whole cache lines, and others
def test_blocks_too_large_for_a_cache_are_computed_completely(variant: str, side: int, layout: str) -> None:
    x, shortcut = (LAYOUTS[layout]((17, 64, side, side), seed) for seed in (5, 6))
    assert x.numel() * x.element_size() > 16 << 20
    assert_end_is_exact(x, norm_on(64), attention_of(variant, 64), shortcut)


@both_layouts
@pytest.mark.parametrize("momentum", [0.3, None, 0.0])
def test_running_statistics_are_updated_as_in_torch(momentum: float | None, layout: str) -> None:
    norm, attention = norm_on(16, momentum=momentum), make(16, 2)
    expected = copy.deepcopy(norm).double()
    for step in range(4):
        x, shortcut = (LAYOUTS[layout]((2, 16, 3, 4), seed) for seed in (step, step + 10))
        assert end_of_block(x, norm, attention, shortcut) is not None
        expected(x.double())
        assert_same_buffers(norm, expected)
        assert norm.num_batches_tracked == step + 1
    norm.eval()
    before = buffers_of(norm)
    assert end_of_block(x, norm, attention, shortcut) is not None
    assert all(torch.equal(before[name], value) for name, value in buffers_of(norm).items())


@both_modes
def test_without_running_statistics_those_of_the_batch_are_used(training: bool) -> None:
    norm = norm_on(16, training=training, track_running_stats=False)
    assert_end_is_exact(noise(2, 16, 3, 4), norm, make(16, 2), noise(2, 16, 3, 4, seed=3))
    assert not buffers_of(norm)


@both_modes
def test_a_norm_that_stops_tracking_keeps_its_statistics(training: bool) -> None:
    norm = norm_on(16, training=training)
    norm.track_running_stats = False
    before = buffers_of(norm)
    assert_end_is_exact(noise(2, 16, 3, 4), norm, make(16, 2), noise(2, 16, 3, 4, seed=3))
    assert all(torch.equal(before[name], value) for name, value in buffers_of(norm).items())


@both_layouts
@both_modes
@pytest.mark.parametrize("variant", ["official", "no attention", "no norm"])
def test_a_mean_far_above_the_deviation_before_the_norm_loses_no_precision(
    variant: str, training: bool, layout: str
) -> None:
    for size in (3, 16):
        x, shortcut = LAYOUTS[layout]((4, 32, size, size), 5) + 1e4, LAYOUTS[layout]((4, 32, size, size), 6)
        norm = norm_on(32, training=training)
        assert norm.running_mean is not None
        norm.running_mean.add_(1e4)
        assert_end_is_exact(x, norm, attention_of(variant, 32), shortcut, 2 * COMPUTED)


@both_layouts
@pytest.mark.parametrize("first", [300, 1e4])
def test_an_outlier_as_first_value_does_not_affect_the_statistics(first: float, layout: str) -> None:
    x, shortcut = (LAYOUTS[layout]((2, 32, 16, 16), seed) for seed in (5, 6))
    x[..., 0, 0] = first
    assert_end_is_exact(x, norm_on(32), make(32), shortcut)


@both_layouts
def test_a_constant_channel_is_normalized_to_zero(layout: str) -> None:
    x, shortcut = (LAYOUTS[layout]((3, 32, 5, 7), seed) for seed in (5, 6))
    x[:, ::3] = 1.5
    assert_end_is_exact(x, norm_on(32), make(32), shortcut)


@both_modes
def test_nan_passes_the_relu(training: bool) -> None:
    for layout in ("nchw", "nhwc"):
        x, shortcut = (LAYOUTS[layout]((3, 32, 5, 7), seed) for seed in (5, 6))
        shortcut[1, 3, 2, 2] = float("nan")
        out = end_of_block(x, norm_on(32, training=training), make(32), shortcut)
        assert out is not None
        assert out[1, 3, 2, 2].isnan()
        assert out.isnan().sum() == 1


BLOCKS = {
    "cifar": lambda: CifarBlock(16, 16, 1, "residual"),
    "cifar, shrinking": lambda: CifarBlock(8, 16, 2, "residual"),
    "basic": lambda: AttentionBasicBlock(16, 16),
    "basic, shrinking": lambda: AttentionBasicBlock(
        8, 16, 2, nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    ),
    "bottleneck": lambda: AttentionBottleneck(32, 8),
}
every_block = pytest.mark.parametrize("name", BLOCKS)


def block_of(name: str, variant: str = "official") -> AttentionBlock:
    torch.manual_seed(0)
    block: AttentionBlock = BLOCKS[name]()
    convolutions = [copy.deepcopy(part.weight) for part in block.modules() if isinstance(part, nn.Conv2d)]
    block.sa = attention_of(variant, 32 if name == "bottleneck" else 16)
    randomised(block)
    for part in block.modules():  # small, so that rounding does not change the active units of ReLUs
        if isinstance(part, nn.Conv2d):
            part.weight.data.copy_(convolutions.pop(0))
    block.fused = True
    return block


def input_of(block: nn.Module) -> Tensor:
    first = next(part for part in block.modules() if isinstance(part, nn.Conv2d))
    return noise(3, first.in_channels, 6, 6)


def run(block: nn.Module, x: Tensor) -> dict[str, Tensor]:
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = block(leaf)
    leaves = {"x": leaf, **dict(block.named_parameters())}
    gradients = torch.autograd.grad(out, list(leaves.values()), noise(*out.shape, seed=7).to(out.dtype))
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Records for each end of a block whether it was fused."""
    were_fused: list[bool] = []

    def recorded(*arguments: Any) -> Tensor | None:
        out = end_of_block(*arguments)
        were_fused.append(out is not None)
        return out

    monkeypatch.setattr("sa_core.backbones.attention_block.end_of_block", recorded)
    return were_fused


@both_layouts
@both_modes
@every_block
@pytest.mark.parametrize("variant", ["official", "no attention", "random order", "no norm"])
def test_a_fused_block_equals_the_block(
    name: str, variant: str, training: bool, layout: str, calls: list[bool]
) -> None:
    block = block_of(name, variant).train(training)
    twin = exact(block)
    x = input_of(block)
    x = x if layout == "nchw" else last(x)
    found, expected = run(block, x), run(twin, x.double())
    assert calls == [True]
    assert_near(found, expected, x.dtype, 2 * COMPUTED)
    assert_same_buffers(block, twin)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_running_statistics_keep_their_type(dtype: torch.dtype) -> None:
    norm, plain = norm_on(16), norm_on(16)
    for module in (norm, plain):
        module.running_mean, module.running_var = module.running_mean.to(dtype), module.running_var.to(dtype)
    expected = copy.deepcopy(plain).double()
    x, shortcut = noise(2, 16, 3, 4), noise(2, 16, 3, 4, seed=3)
    for training in (True, False):
        out = end_of_block(x, norm.train(training), nn.Identity(), shortcut)
        total = expected.train(training)(x.double()) + shortcut
        assert out is not None
        torch.testing.assert_close(
            out.double(), torch.relu(total), rtol=1e-5, atol=1e-2 if dtype.itemsize == 2 else 1e-5
        )
    for name, value in buffers_of(norm).items():
        assert value.dtype == (torch.int64 if name.startswith("num") else dtype)
        limit = 2**-7 if dtype.itemsize == 2 else 1e-6
        torch.testing.assert_close(value.double(), buffers_of(expected)[name].double(), rtol=limit, atol=limit)


@every_block
def test_under_autocast_a_block_is_fused_in_bfloat16(name: str, calls: list[bool]) -> None:
    block = block_of(name)
    plain, twin = copy.deepcopy(block), exact(block)
    plain.fused = False
    plain.sa.fuse("off")
    x = input_of(block).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found, by_torch = run(block, x), run(plain, x)
    assert calls == [True]
    expected = run(twin, x.double())
    assert found["out"].dtype == torch.bfloat16
    for name, value in found.items():
        assert value.dtype == by_torch[name].dtype, name
        error, error_of_torch = ((values[name].double() - expected[name]).norm() for values in (found, by_torch))
        assert error <= 1.2 * error_of_torch + 1e-2 * expected[name].norm(), name
    for name, value in buffers_of(block).items():
        torch.testing.assert_close(value, buffers_of(plain)[name], rtol=1e-2, atol=1e-2)


def test_a_shortcut_of_another_type_is_added_as_in_torch(calls: list[bool]) -> None:
    block = block_of("cifar")
    plain = copy.deepcopy(block)
    plain.fused = False
    x = input_of(block)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = block(x), plain(x)
    assert calls == [False]
    assert out.dtype == expected.dtype == torch.float32
    assert torch.equal(out, expected)
    assert_same_buffers(block, plain)


@pytest.mark.parametrize("fused", [True, False])
def test_a_single_value_per_channel_raises_torchs_error(fused: bool) -> None:
    block = block_of("basic, shrinking")
    block.fused = fused
    norm = block.get_submodule("bn2")
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d) and part is not norm:
            part.eval()
    before = buffers_of(norm)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        block(noise(1, 8, 2, 2))
    if fused:
        assert all(torch.equal(before[name], value) for name, value in buffers_of(norm).items() if "num" not in name)
    norm.eval()
    assert block(noise(1, 8, 2, 2)).shape == (1, 16, 1, 1)


@pytest.mark.parametrize("path", ["bn2", "sa", "sa.gn"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_in_a_fused_block_are_called(path: str, kind: str) -> None:
    block, fired = block_of("cifar"), []
    block.sa.fuse("auto")
    twin = exact(block)
    getattr(block.get_submodule(path), f"register_{kind}_hook")(lambda *_: fired.append(kind))
    x = input_of(block)
    found, expected = run(block, x), run(twin, x.double())
    assert fired == [kind]
    assert_near(found, expected, x.dtype, 2 * COMPUTED)
    assert_same_buffers(block, twin)


def test_an_output_changed_by_a_hook_is_used() -> None:
    block = block_of("cifar")
    block.get_submodule("bn2").register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    x = input_of(block)
    assert torch.equal(block(x), torch.relu(x))


@pytest.mark.parametrize("path", ["bn2", "sa"])
def test_global_hooks_are_called_in_a_fused_block(path: str) -> None:
    block, called = block_of("cifar"), []
    block.sa.fuse("auto")
    handle = nn.modules.module.register_module_forward_hook(lambda part, *_: called.append(part))
    try:
        block(input_of(block))
    finally:
        handle.remove()
    assert block.get_submodule(path) in called


@pytest.mark.parametrize("path", ["bn2", "sa"])
def test_a_replaced_forward_of_a_part_is_called(path: str) -> None:
    block = block_of("cifar")
    block.get_submodule(path).forward = torch.zeros_like
    x = input_of(block)
    expected = torch.relu(x) if path == "sa" else torch.relu(block.sa(torch.zeros_like(x)) + x)
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("path", ["bn2.weight", "sa.cweight", "sa.gn.weight"])
def test_a_fused_block_with_a_parametrized_part_equals_the_block(path: str) -> None:
    class Doubled(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return 2 * value

    block = block_of("cifar")
    block.sa.fuse("auto")
    owner, _, name = path.rpartition(".")
    nn.utils.parametrize.register_parametrization(block.get_submodule(owner), name, Doubled())
    twin, x = exact(block), input_of(block)
    found, expected = run(block, x), run(twin, x.double())
    assert_near(found, expected, x.dtype, 2 * COMPUTED)
    assert_same_buffers(block, twin)


def test_a_synchronised_norm_is_computed_by_torch(calls: list[bool]) -> None:
    block = nn.SyncBatchNorm.convert_sync_batchnorm(block_of("cifar")).eval()
    assert type(block.get_submodule("bn2")) is nn.SyncBatchNorm
    plain = copy.deepcopy(block)
    plain.fused = False
    x = input_of(block)
    torch.testing.assert_close(block(x), plain(x))
    assert calls == [False]


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(4, 16), nn.Identity(), nn.InstanceNorm2d(16, affine=True)],
    ids=lambda norm: type(norm).__name__,
)
def test_another_norm_is_computed_by_torch(norm: nn.Module, calls: list[bool]) -> None:
    block = block_of("cifar")
    block.bn2 = norm
    plain = copy.deepcopy(block)
    plain.fused = False
    x = input_of(block)
    torch.testing.assert_close(block(x), plain(x))
    assert calls == [False]


@pytest.mark.parametrize("knobs", [{"gate": "tanh1"}, {"norm": "batch"}, {"fused": "off"}])
def test_attention_without_kernels_is_computed_by_torch(knobs: dict[str, Any], calls: list[bool]) -> None:
    block = block_of("cifar")
    block.sa = make(16, 2, **{"fused": "auto", **knobs})
    twin, x = exact(block), input_of(block)
    found, expected = run(block, x), run(twin, x.double())
    assert calls == [False]
    assert_near(found, expected, x.dtype, 2 * COMPUTED)
    assert_same_buffers(block, twin)


def test_a_float64_block_is_computed_by_torch(calls: list[bool]) -> None:
    block = block_of("cifar")
    block.sa.fuse("auto")
    block, x = block.double(), input_of(block).double()
    assert torch.equal(block(x), exact(block)(x))
    assert calls == [False]


def test_an_empty_batch_is_computed_by_torch(calls: list[bool]) -> None:
    block = block_of("cifar").eval()
    assert block(input_of(block)[:0]).shape == (0, 16, 6, 6)
    assert calls == [False]


NETWORKS: dict[str, dict[str, Any]] = {
    "resnet8, sa": {"name": "resnet8", "attention": "sa", "groups": 4},
    "resnet8, none": {"name": "resnet8"},
    "resnet8, identity": {"name": "resnet8", "attention": "identity"},
    "resnet8, random order": {"name": "resnet8", "attention": "sa", "groups": 4, "permutation": "random"},
    "resnet8, no norm, no shuffle": {
        "name": "resnet8", "attention": "sa", "groups": 4, "norm": "none", "shuffle": False,
    },
    "resnet8, last stage": {"name": "resnet8", "attention": "sa", "groups": 8, "stages": "last"},
    "resnet18, sa": {"name": "resnet18", "attention": "sa", "groups": 16, "stem": "cifar"},
}  # fmt: skip
every_network = pytest.mark.parametrize("network", NETWORKS)


def both_networks(network: str) -> tuple[nn.Module, nn.Module]:
    """The fused network and the unfused one."""
    fused = create_model(**NETWORKS[network], seed=0, fused_block=True)
    return fused, create_model(**NETWORKS[network], seed=0, fused="off")


def randomise_attention(*models: nn.Module) -> None:
    """Changes the initial parameters of attention, in all models alike."""
    for model in models:
        for path, part in model.named_modules():
            if isinstance(part, ShuffleAttention):
                randomised(part, len(path))


@every_network
def test_a_fused_network_has_the_same_initial_weights(network: str) -> None:
    fused, plain = both_networks(network)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in plain.named_modules()]
    for (name, value), plain_value in zip(fused.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(value, plain_value), name


@both_layouts
@every_network
def test_a_fused_network_equals_the_network(network: str, layout: str, calls: list[bool]) -> None:
    fused, plain = both_networks(network)
    randomise_attention(fused, plain)
    twin = exact(plain)
    x = noise(2, 3, 16, 16)
    if layout == "nhwc":
        fused, x = fused.to(memory_format=torch.channels_last), last(x)
    for training in (True, True, False):
        calls.clear()
        out, expected = fused.train(training)(x), twin.train(training)(x.double())
        assert calls == [True] * sum(isinstance(part, AttentionBlock) for part in fused.modules())
        assert (out.double() - expected).abs().max() <= 2e-5 * (1 + expected.abs().max())
        assert_same_buffers(fused, twin)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in fused.parameters())


def test_state_dicts_load_between_fused_and_unfused_networks() -> None:
    fused, plain = both_networks("resnet8, sa")
    x = noise(2, 3, 16, 16)
    randomise_attention(fused)
    fused(x)
    plain.load_state_dict(fused.state_dict(), strict=True)
    torch.testing.assert_close(plain.eval()(x), fused.eval()(x), rtol=1e-5, atol=1e-5)
    fused, _ = both_networks("resnet8, sa")
    fused.load_state_dict(plain.state_dict(), strict=True)
    torch.testing.assert_close(fused.eval()(x), plain.eval()(x), rtol=1e-5, atol=1e-5)


def test_copies_of_a_network_stay_fused(calls: list[bool]) -> None:
    fused, _ = both_networks("resnet8, sa")
    copied, x = copy.deepcopy(fused).eval(), noise(2, 3, 16, 16)
    assert torch.equal(copied(x), fused.eval()(x))
    assert calls == [True] * 6


def test_a_network_is_not_fused_by_default(calls: list[bool]) -> None:
    create_model("resnet8", attention="sa", groups=4)(noise(2, 3, 16, 16))
    assert calls == []


@pytest.mark.parametrize("fused", ["auto", "on", "off"])
def test_a_network_passes_fused_to_its_attention(fused: str) -> None:
    model = create_model("resnet8", attention="sa", groups=4, fused=fused)
    assert {part.fused for part in model.modules() if isinstance(part, ShuffleAttention)} == {fused}


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "shufflenet_v2_x0_5"}, worded("fused.no_end", model="shufflenet_v2_x0_5")),
    ({"name": "timm/resnet18"}, worded("fused.no_end", model="timm/resnet18")),
    ({"name": "resnet8", "attention": "se"}, worded("fused.no_kernel", lacking="a block with attention=se")),
    (
        {"name": "resnet8", "attention": "sa", "groups": 4, "position": "pre"},
        worded("fused.not_at_end", position="pre"),
    ),
    (
        {"name": "resnet8", "attention": "sa", "groups": 4, "position": "post"},
        worded("fused.not_at_end", position="post"),
    ),
    ({"name": "resnet8", "attention": "sa", "groups": 4, "fused": "off"}, "with fused=off"),
)


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_an_unsupported_fused_block_raises_an_error_with_the_reason(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(
        OptionError, match=refusal("fused_block=True", "fused.unavailable", then=reason, valid="False") + "$"
    ):
        create_model(**arguments, fused_block=True)


def test_a_network_without_kernels_raises_an_error_with_fused_on() -> None:
    with pytest.raises(
        OptionError,
        match=refusal("fused=on", "fused.unavailable", then=worded("fused.no_kernel", lacking="gate=tanh1")),
    ):
        create_model("resnet8", attention="sa", groups=4, gate="tanh1", fused="on")
    with pytest.raises(OptionError, match=refusal("fused=yes", "options.unknown", valid="auto, on, off")):
        create_model("resnet8", attention="sa", groups=4, fused="yes")
    with pytest.raises(OptionError, match=refusal("fused=yes", "options.unknown", valid="auto, on, off")):
        create_model("resnet8", fused="yes")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
@both_modes
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}])
def test_a_block_compiled_in_one_graph_equals_the_block(options: dict[str, Any], training: bool) -> None:
    block = block_of("cifar").train(training)
    block.bn2 = norm_on(16, training=training, **options)
    twin = copy.deepcopy(block)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        x = noise(3, 16, 6, 6, seed=seed)
        expected, leaf = run(block, x), x.clone().requires_grad_()
        out = compiled(leaf)
        leaves = {"x": leaf, **dict(twin.named_parameters())}
        gradients = torch.autograd.grad(out, list(leaves.values()), noise(*out.shape, seed=7))
        torch.testing.assert_close(out, expected["out"], rtol=1e-6, atol=1e-6)
        for name, grad in zip(leaves, gradients, strict=True):
            torch.testing.assert_close(grad, expected[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(dict(twin.named_buffers()), dict(block.named_buffers()))


@pytest.mark.usefixtures("fresh_compiler")
def test_a_network_compiled_in_one_graph_equals_the_network() -> None:
    fused, _ = both_networks("resnet8, sa")
    randomise_attention(fused)
    twin, x = copy.deepcopy(fused), noise(2, 3, 16, 16)
    out = torch.compile(twin, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(out, fused(x), rtol=1e-5, atol=1e-5)
    out.sum().backward()
    torch.testing.assert_close(dict(twin.named_buffers()), dict(fused.named_buffers()))


def test_an_exported_fused_network_has_only_torchs_operations() -> None:
    fused, _ = both_networks("resnet8, sa")
    randomise_attention(fused)
    x = noise(2, 3, 16, 16)
    program = torch.export.export(fused.eval(), (x,))
    assert "sa_core." not in program.graph_module.code
    torch.testing.assert_close(program.module()(x), fused(x), rtol=1e-5, atol=1e-5)


def test_a_block_under_torch_func_is_computed_by_torch() -> None:
    block = block_of("cifar").eval()
    block.sa.fuse("auto")
    plain = copy.deepcopy(block)
    plain.fused = False
    plain.sa.fuse("off")
    x = input_of(block)
    found, expected = (
        torch.func.grad(lambda x, module=module: module(x).square().sum())(x) for module in (block, plain)
    )
    torch.testing.assert_close(found, expected)


def test_without_a_library_a_fused_network_is_computed_by_torch(
    monkeypatch: pytest.MonkeyPatch, calls: list[bool]
) -> None:
    fused, plain = both_networks("resnet8, sa")
    x = noise(2, 3, 16, 16)
    monkeypatch.setattr(cpu, "load", lambda: None)
    cpu.supports.cache_clear()
    try:
        assert torch.equal(fused(x), plain(x))
    finally:
        monkeypatch.undo()
        cpu.supports.cache_clear()
    assert not any(calls)
    assert_same_buffers(fused, plain)


def test_a_fused_block_saves_less_for_backward() -> None:
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    norm, attention = norm_on(16), make(16, 2)
    x, shortcut = (noise(2, 16, 20, 20, seed=seed).requires_grad_() for seed in (5, 6))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = end_of_block(x, norm, attention, shortcut)
    assert out is not None
    parameters = sum(parameter.numel() for part in (norm, attention) for parameter in part.parameters())
    assert sum(saved.values()) == 4 * (2 * x.numel() + 2 * 2 * 16 + 3 * 16 + parameters)


def test_a_block_of_torchvision_is_fused(calls: list[bool]) -> None:
    model = create_model("resnet50", attention="sa", seed=0, fused_block=True, stages="last").eval()
    assert isinstance(model, ResNet)
    plain = create_model("resnet50", attention="sa", seed=0, fused="off", stages="last").eval()
    randomise_attention(model, plain)
    with torch.no_grad():
        x = noise(1, 3, 64, 64)
        torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-5)
    assert calls == [True] * 16
    assert fused_block.end_of_block is end_of_block
