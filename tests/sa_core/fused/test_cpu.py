"""The CPU kernels against torch's operations in float64, and against the paper's formula."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sa_core import ShuffleAttention
from sa_core.errors import OptionError
from sa_core.fused import Form, Parameters, cpu, shuffle_attention
from tests.sa_core import reference
from tests.sa_core.fused.cases import (
    COMPUTED,
    LAYOUTS,
    NAMES,
    ROUNDING,
    SIZES,
    TYPES,
    assert_exact,
    cases,
    check_fixed,
    exact,
    last,
    make,
    make_case,
    needs_kernels,
    results_of,
)
from tests.sa_core.helpers import arrays, noise
from tests.wording import refusal, worded

pytestmark = needs_kernels
both_layouts = pytest.mark.parametrize("layout", ["nchw", "nhwc"])
every_type = pytest.mark.parametrize("dtype", TYPES)


@pytest.fixture(autouse=True)
def _types(request: pytest.FixtureRequest) -> None:
    dtype = getattr(request.node, "callspec", None) and request.node.callspec.params.get("dtype")
    if dtype is not None and not cpu.supports(dtype):
        pytest.skip(f"this build has no {dtype}")


@settings(max_examples=120)
@given(cases())
def test_the_result_matches_the_formula_of_the_paper(case: dict[str, Any]) -> None:
    module, x = make_case(case), LAYOUTS[case["layout"]](case["shape"], case["seed"])
    state = arrays(module)
    expected = reference.shuffle_attention(x.double().numpy(), state, vars(module.knobs), state.get("permutation"))
    limit = COMPUTED * np.abs(expected).max()
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=0, atol=limit)


@settings(max_examples=200)
@given(cases(), st.sampled_from(TYPES))
def test_all_gradients_match_those_in_float64(case: dict[str, Any], dtype: torch.dtype) -> None:
    if not cpu.supports(dtype):
        return
    # `Tensor.to` would make some layouts dense.
    x, grad = LAYOUTS[case["layout"]](case["shape"], case["seed"]), LAYOUTS[case["grad_layout"]](case["shape"], 3)
    if dtype != torch.float32:
        x, grad = x.to(dtype), grad.to(dtype)
    # In a constant row the gradient through the deviation is multiplied by 1 / sqrt(epsilon) = 316, and cancels.
    assert_exact(make_case(case), x, grad, 4 * COMPUTED)


@both_layouts
@every_type
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 15), (3, 5), (1, 16), (1, 17), (31, 1), (8, 8), (65, 1)])
@pytest.mark.parametrize("images", [1, 2])
def test_rows_of_any_length_are_computed_completely(
    shape: tuple[int, int], images: int, layout: str, dtype: torch.dtype
) -> None:
    assert_exact(make(16), LAYOUTS[layout]((images, 16, *shape), 5).to(dtype))


@both_layouts
@every_type
@pytest.mark.parametrize(("channels", "groups"), SIZES)
@pytest.mark.parametrize("knobs", [{}, {"shuffle": False}])
def test_any_number_of_channels_is_shuffled_correctly(
    channels: int, groups: int, knobs: dict[str, Any], layout: str, dtype: torch.dtype
) -> None:
    assert_exact(make(channels, groups, **knobs), LAYOUTS[layout]((2, channels, 3, 3), 5).to(dtype))


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_do_not_accumulate_in_long_rows(layout: str, dtype: torch.dtype) -> None:
    assert_exact(make(4, 1), LAYOUTS[layout]((1, 4, 200, 250), 5).to(dtype))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 48, 299, 301), torch.float32),
        ((1, 96, 299, 301), torch.float16),
        ((6000, 48, 3, 5), torch.float32),
        ((45000, 48, 1, 2), torch.float32),  # rows shorter than a step
        ((180000, 48, 1, 1), torch.bfloat16),
        ((9, 64, 90, 91), torch.float32),
        ((17, 64, 90, 91), torch.bfloat16),
        ((17, 64, 64, 64), torch.float32),  # rows of whole cache lines
        ((33, 64, 64, 64), torch.bfloat16),
    ],
)
@both_layouts
def test_maps_too_large_for_a_cache_are_computed_completely(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    x = LAYOUTS[layout](shape, 0).to(dtype)
    assert x.numel() * x.element_size() > 16 << 20
    assert_exact(make(shape[1], 4), x)


@both_layouts
@every_type
def test_the_gradient_of_a_shuffle_is_the_inverse_shuffle(layout: str, dtype: torch.dtype) -> None:
    for blocks in (2, 4, 8):
        assert_exact(make(64, 4, shuffle_groups=blocks), LAYOUTS[layout]((2, 64, 3, 3), 5).to(dtype))
    for blocks in (3, 5, 6):
        assert_exact(make(60, 2, shuffle_groups=blocks), LAYOUTS[layout]((2, 60, 3, 3), 5).to(dtype))
    assert_exact(make(64, 4, permutation="random"), LAYOUTS[layout]((2, 64, 3, 3), 5).to(dtype))


@both_layouts
@every_type
def test_a_constant_channel_has_no_variance(layout: str, dtype: torch.dtype) -> None:
    x = noise(2, 32, 5, 5).to(dtype)
    x[:, ::3] = 1.5
    x[0, 1::3] = 0
    assert_exact(make(32), x if layout == "nchw" else last(x))


@both_layouts
def test_a_mean_far_above_the_deviation_loses_no_precision(layout: str) -> None:
    for size in (3, 16, 40):
        module = make(32)
        with torch.no_grad():
            module.cweight.mul_(1e-4)  # otherwise gates would saturate at 0 or 1
        x = LAYOUTS[layout]((2, 32, size, size), 5) + 1e4
        assert_exact(module, x)
        gates = module(x) / exact(module)(x.double())
        assert (gates - 1).abs().max() < 1e-5


@both_layouts
@pytest.mark.parametrize("first", [300, 1e4, 1e6])
@pytest.mark.parametrize("size", [3, 16, 100])
def test_an_outlier_as_first_value_loses_no_precision(first: float, size: int, layout: str) -> None:
    module, x = make(8, 2), LAYOUTS[layout]((2, 8, size, size), 5)
    with torch.no_grad():
        module.cweight.mul_(size**2 / first)  # the mean is about first / size ** 2
        x[..., 0, 0] = first
    grad = noise(*x.shape, seed=3)
    found, expected = results_of(module, x, grad), results_of(exact(module), x.double(), grad.double())
    module.fuse("off")
    eager = results_of(module, x, grad)
    for name in ("out", "x"):  # without the first position, whose magnitude would hide errors of the others
        found_error, eager_error = (
            (values[name].double() - expected[name]).flatten(2)[:, :, 1:].abs().max() for values in (found, eager)
        )
        scale = expected[name].flatten(2)[:, :, 1:].abs().max()
        assert found_error <= COMPUTED * scale + 2 * eager_error, name
    for name in NAMES:  # eager torch has cancellation as well
        found_error, eager_error = ((values[name] - expected[name]).abs().max() for values in (found, eager))
        assert found_error <= 3 * COMPUTED * expected[name].abs().max() + 2 * eager_error, name


@both_layouts
@every_type
def test_initial_gates_are_constant(layout: str, dtype: torch.dtype) -> None:
    module, x = ShuffleAttention(32, 4, fused="on"), LAYOUTS[layout]((2, 32, 5, 5), 5).to(dtype)
    assert_exact(module, x)
    expected = x.double() * torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    unshuffled = ShuffleAttention(32, 4, fused="on", shuffle=False)(x).double()
    assert ((unshuffled - expected).abs() <= (ROUNDING[dtype] + 2e-7) * expected.abs() + 2**-25).all()


@both_layouts
@every_type
def test_channels_without_gate_are_unchanged_bit_for_bit(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout]((2, 32, 5, 5), 5).to(dtype)
    for branches, passed in (("channel", [4, 5, 6, 7]), ("spatial", [0, 1, 2, 3]), ("none", list(range(8)))):
        out = make(32, branches=branches, shuffle=False)(x).detach()
        channels = [8 * group + channel for group in range(4) for channel in passed]
        assert torch.equal(out[:, channels], x[:, channels])


@both_layouts
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 7])
@pytest.mark.parametrize("branches", ["channel", "spatial", "none"])
def test_channels_without_gate_need_no_statistics(branches: str, place: int, value: float, layout: str) -> None:
    x = LAYOUTS[layout]((2, 32, 5, 5), 5)
    passed = 5 if branches == "channel" else 0
    x[0, passed, place // 5, place % 5] = value
    module = make(32, branches=branches)
    unfused = make(32, branches=branches, fused="off")
    torch.testing.assert_close(module(x), unfused(x), equal_nan=True)


@both_layouts
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("channel", [0, 7])  # in the channel branch and in the spatial branch
@pytest.mark.parametrize("channels", [12, 32])
def test_nan_stays_in_its_row(channels: int, channel: int, value: float, layout: str) -> None:
    module = make(channels, 4 if channels == 32 else 1, shuffle=False)
    x = LAYOUTS[layout]((2, channels, 5, 5), 5)
    spoilt = x.clone(memory_format=torch.preserve_format)
    spoilt[1, channel, 2, 3] = value
    grad = noise(*x.shape, seed=3)
    found, clean = results_of(module, spoilt, grad), results_of(module, x, grad)
    for name in ("out", "x"):
        differs = (found[name] != clean[name]).flatten(2).any(2)
        assert differs[1, channel]
        assert differs.sum() == 1, name
    assert found["out"][1, channel, 2, 3].isnan() or value == float("inf")


@both_layouts
def test_saturated_gates_are_0_or_1(layout: str) -> None:
    module = make(32, norm="none")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(300)
    x = LAYOUTS[layout]((2, 32, 5, 5), 5)
    assert_exact(module, x)
    assert all(value.isfinite().all() for value in results_of(module, x, torch.ones_like(x)).values())


@both_layouts
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_maps_of_any_scale_are_supported(scale: float, layout: str) -> None:
    module = make(32)
    with torch.no_grad():
        module.cweight.div_(scale)
    x = LAYOUTS[layout]((2, 32, 5, 5), 5) * scale
    # Relative to the scale of the map, as the largest gradient, of cweight or x, would hide the others.
    grad = noise(*x.shape, seed=3)
    found, expected = results_of(module, x, grad), results_of(exact(module), x.double(), grad.double())
    for name, value in found.items():
        assert (value - expected[name]).abs().max() <= 2e-5 * expected[name].abs().max(), name


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@both_layouts
@every_type
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_results_do_not_depend_on_the_number_of_threads(
    threads: Callable[[int], None], norm: str, layout: str, dtype: torch.dtype
) -> None:
    for shape in ((3, 64, 7, 9), (1, 12, 3, 3), (2, 2, 1, 1)):
        channels = shape[1]
        c = channels // 2
        x, shortcut = (LAYOUTS[layout](shape, seed).to(dtype).requires_grad_() for seed in (5, 6))
        gates = [noise(c, seed=seed) for seed in range(6)]
        bn = [noise(channels, seed=seed) if norm == "batch" else None for seed in (7, 8)]
        parameters = Parameters(*[value if value is None else value.requires_grad_() for value in (*gates, *bn)])
        leaves = [x, shortcut, *(value for value in parameters if value is not None)]
        results = []
        for number in (1, 2, 3, 1):
            threads(number)
            form = Form(1, c, True, "instance", 2, norm)
            out, moments = shuffle_attention(form, parameters, x, shortcut)
            gradients = torch.autograd.grad(out, leaves, noise(*shape, seed=9).to(dtype))
            results.append([out, *gradients, *([] if moments is None else [moments])])
        for values in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], values, strict=True))


@both_layouts
def test_the_result_has_the_memory_format_of_the_map(layout: str) -> None:
    x = LAYOUTS[layout]((2, 32, 5, 7), 5)
    found = results_of(make(32), x, noise(2, 32, 5, 7))
    assert found["out"].stride() == found["x"].stride() == x.stride()


def test_inputs_stay_unchanged() -> None:
    module, x, grad = make(32), LAYOUTS["a window"]((2, 32, 5, 7), 5), noise(2, 32, 5, 7)
    before = [value.clone() for value in (x, grad, *module.parameters())]
    results_of(module, x, grad)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, grad, *module.parameters()), strict=True))


def test_without_gradients_the_result_is_equal_and_nothing_is_saved() -> None:
    module, x = make(32), noise(2, 32, 5, 7)
    with_gradients = module(x)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = module(x)
        assert torch.equal(out, with_gradients)
        assert out.grad_fn is None
        assert not out.requires_grad


@pytest.mark.parametrize(("capability", "build"), [("default", "generic"), ("avx2", "avx2"), ("avx512", "avx512")])
def test_every_build_computes_the_same_function(capability: str, build: str) -> None:
    here = torch.backends.cpu.get_cpu_capability().lower()
    order = ["default", "avx2", "avx512"]
    if here not in order or order.index(capability) > order.index(here):
        pytest.skip(f"this CPU has no {capability}")
    if capability == here:
        found = check_fixed()
    else:
        done = subprocess.run(
            [sys.executable, "-m", "tests.sa_core.fused.cases"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    if f"_{build}." not in found["library"]:
        pytest.skip(f"{build} was not built: {found['library']}")
    assert not found["wrong"], "\n".join(found["wrong"])
    assert found["count"] > 100
    assert "torch.float32" in found["types"]


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu, "load", lambda: None)
    cpu.supports.cache_clear()
    yield
    monkeypatch.undo()
    cpu.supports.cache_clear()


@pytest.mark.usefixtures("no_library")
def test_without_a_library_torch_computes_the_module_and_repr_has_the_reason() -> None:
    module, x = make(32, fused="auto"), noise(2, 32, 3, 3)
    off = make(32, fused="off")
    assert torch.equal(module(x), off(x))
    reason = worded("fused.no_kernels", device="cpu") + "no C++ compiler was found at installation"
    assert worded("fused.by_torch", reason=reason) in repr(module)
    assert module.reason_against(torch.float32) == reason
    module.fuse("on")
    with pytest.raises(OptionError, match=refusal("fused=on", "fused.unavailable", then=reason, valid="auto, off")):
        module(x)


def test_a_library_that_does_not_load_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = cpu.load()
    assert found is not None
    suffix = Path(found._name).name.split(".", 1)[1]
    monkeypatch.setattr(cpu, "__file__", str(tmp_path / "cpu.py"))
    cpu.load.cache_clear()
    cpu.supports.cache_clear()
    try:
        for build in ("avx512", "avx2", "generic"):
            (tmp_path / f"_{build}.{suffix}").write_bytes(b"no library")
        assert cpu.load() is None
        assert not cpu.supports(torch.float32)
        (tmp_path / f"_generic.{suffix}").write_bytes(Path(found._name).read_bytes())
        cpu.load.cache_clear()
        loaded = cpu.load()
        assert loaded is not None
        assert loaded._name == str(tmp_path / f"_generic.{suffix}")
    finally:
        monkeypatch.undo()
        cpu.load.cache_clear()
        cpu.supports.cache_clear()


def test_there_are_three_types() -> None:
    supported = {dtype for dtype in (*TYPES, torch.float64, torch.int64, torch.complex64) if cpu.supports(dtype)}
    assert supported <= set(TYPES)
    assert supported >= {torch.float32, torch.bfloat16}
