"""Captured and transformed modules: `auto` and `off` give correct values, `on` gives these or one clear error.

Allocated memory is filled with NaN, so that no test passes by chance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from sa_core import ShuffleAttention
from sa_core.errors import OptionError
from sa_core.fused.block import end_of_block
from tests.sa_core.fused.captures import CAPTURES, MAPS, MODES, TRANSFORMS, Wrapped, images, parametrised
from tests.sa_core.fused.cases import exact, make, needs_kernels
from tests.sa_core.helpers import noise

pytestmark = [needs_kernels, pytest.mark.filterwarnings("ignore")]
C, G = 16, 2
in_every_way = pytest.mark.parametrize("fused", ["on", "auto", "off"])
with_and_without_gradients = pytest.mark.parametrize("grad", [False, True])

# Cases in which `on` raises an error; all others give correct values.
UNSUPPORTED = {
    "jit.trace", "jit.trace, frozen", "jit.trace of a network", "make_fx, functionalized", "functionalize",
    "compile of vmap", "onnx, traced", "onnx, exported", "jit.script", "jit.script of a network", "fx.symbolic_trace",
}  # fmt: skip
UNSUPPORTED_KINDS = {
    "a subclass with dispatch", "sparse", "mkldnn", "on the meta device", "float64", "int64", "bool",
    "complex",
}  # fmt: skip
GRADIENT = noise(*images().shape, seed=9)


@pytest.fixture(autouse=True)
def _unwritten_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # torch then fills allocated memory with NaN
    torch._dynamo.reset()
    yield
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


def assert_correct(
    found: Tensor | Sequence[Tensor | None], expected: Tensor | Sequence[Tensor | None], limit: float = 1e-5
) -> None:
    """Compares float32 results with float64 ones; None is a gradient that was not requested."""
    found, expected = ([result] if isinstance(result, Tensor) else list(result) for result in (found, expected))
    assert len(found) == len(expected)
    for value, expected_value in zip(found, expected, strict=True):
        if value is not None and expected_value is not None:
            assert value.shape == expected_value.shape
            assert (value.double() - expected_value).abs().max() <= limit * (1 + expected_value.abs().max())


def results(call: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor, *, grad: bool) -> list[Tensor | None]:
    """Returns the result, and if requested the gradients of map and parameters; None for a missing gradient."""
    leaf = x.detach().requires_grad_(grad)
    out = call(leaf)
    found: list[Tensor | None] = [out.detach()]
    if grad and out.requires_grad:
        found += torch.autograd.grad(out, [leaf, *module.parameters()], GRADIENT.to(x.dtype), allow_unused=True)
        assert found[1] is not None
    return found


def assert_is_clear_error(error: BaseException) -> None:
    """Checks that an error is an UnsupportedError, or that torch's error names it in its message."""
    message = f"{error}"
    assert isinstance(error, OptionError) or "fused=on" in message, repr(error)
    assert re.search("fused=(on|auto|off) ", message), message


@in_every_way
@with_and_without_gradients
@pytest.mark.parametrize("name", CAPTURES)
def test_a_captured_module_gives_correct_values_or_the_error(name: str, fused: str, grad: bool) -> None:
    if (name, fused) == ("compile, dynamic", "off"):
        pytest.skip("takes half a minute, and is torch's alone")
    module, x = make(C, G, fused=fused), images()
    reference, second_map = exact(module), images(seed=2)
    try:
        with torch.set_grad_enabled(grad):
            found = results(CAPTURES[name](module, x.requires_grad_(grad)), module, second_map, grad=grad)
    except Exception as error:
        if not (fused == "on" and name in UNSUPPORTED):
            raise
        assert_is_clear_error(error)
        return
    assert not (fused == "on" and name in UNSUPPORTED), "it raises no error any more"
    expected = results(reference, reference, second_map.double(), grad=grad)
    assert_correct(found, expected[: len(found)])


@in_every_way
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_module_gives_correct_values_or_the_error(name: str, fused: str) -> None:
    module, x = make(C, G, fused=fused), images()
    if fused == "on":
        with pytest.raises(OptionError, match="fused=on") as caught:
            TRANSFORMS[name](module, x)
        assert_is_clear_error(caught.value)
        return
    assert_correct(TRANSFORMS[name](module, x), TRANSFORMS[name](exact(module), x.double()), limit=1e-3)


@in_every_way
@with_and_without_gradients
@pytest.mark.parametrize("name", MODES)
def test_a_module_gives_correct_values_in_any_mode(name: str, fused: str, grad: bool) -> None:
    module, x = make(C, G, fused=fused), images()
    with MODES[name](), torch.set_grad_enabled(grad and name not in ("no_grad", "inference_mode")):
        found = results(module, module, x, grad=grad)
    reference = exact(module)
    assert_correct(found, results(reference, reference, x.double(), grad=grad)[: len(found)])


@in_every_way
@with_and_without_gradients
@pytest.mark.parametrize("name", MAPS)
def test_any_kind_of_map_gives_torchs_result_or_the_error(name: str, fused: str, grad: bool) -> None:
    module = make(C, G, fused=fused)

    def computed() -> Tensor:
        with torch.set_grad_enabled(grad):
            out: Tensor = module(MAPS[name](images()))
        return out

    try:
        found = computed()
    except Exception as error:
        if fused == "on" and name in UNSUPPORTED_KINDS:
            assert_is_clear_error(error)
            return
        module.fuse("off")
        with pytest.raises(type(error), match=re.escape(str(error))):
            computed()
        return
    assert not (fused == "on" and name in UNSUPPORTED_KINDS), "it raises no error any more"
    module.fuse("off")
    expected = computed()
    assert type(found) is type(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if name in ("on the meta device", "fake"):
        return
    value, expected_value = (
        result.inner if isinstance(result, Wrapped) else result.detach() for result in (found, expected)
    )
    limit = {torch.bfloat16: 0.1, torch.float16: 0.01}.get(expected_value.dtype, 1e-5)
    assert value.numel() == 0 or (value - expected_value).abs().max() <= limit


@in_every_way
def test_a_captured_parametrized_module_gives_correct_values(fused: str) -> None:
    module = parametrised(make(C, G, fused=fused))
    reference = exact(module)
    x = images()
    assert_correct(results(module, module, x, grad=True), results(reference, reference, x.double(), grad=True))


def test_fake_parameters_are_never_read_as_memory() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        module = ShuffleAttention(C, G, fused="on")
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                out = module(mode.from_tensor(images()))
            assert type(out).__name__ == "FakeTensor"
    assert type(module(images())).__name__ == "FakeTensor"


@pytest.mark.parametrize("kind", ["attention", "nothing"])
def test_a_captured_block_is_computed_by_torch(kind: str) -> None:
    attention = make(C, G, fused="auto") if kind == "attention" else nn.Identity()
    norm, x = nn.BatchNorm2d(C).eval().requires_grad_(False), images()
    attention.requires_grad_(False)
    seen = []

    def block(x: Tensor) -> Tensor:
        out = end_of_block(x, norm, attention, x)
        seen.append(out)
        return torch.relu(attention(norm(x)) + x) if out is None else out

    traced = torch.jit.trace(block, (x,), check_trace=False)
    assert seen == [None]
    assert_correct(
        traced(images(2)), torch.relu(exact(attention)(exact(norm)(images(2).double())) + images(2).double())
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_a_block_has_second_derivatives(training: bool, joined: bool) -> None:
    attention, norm = make(C, G, fused="auto"), nn.BatchNorm2d(C).train(training)
    nn.init.normal_(norm.weight)
    x = images()

    def second(attention: nn.Module, norm: nn.Module, x: Tensor, *, fused: bool) -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        shortcut = leaf if joined else torch.zeros_like(leaf)
        out = end_of_block(leaf, norm, attention, shortcut) if fused else None
        assert (out is not None) == fused
        value = torch.relu(attention(norm(leaf)) + shortcut) if out is None else out
        leaves = [leaf, *attention.parameters(), *norm.parameters()]
        gradients = torch.autograd.grad(value.square().sum(), leaves, create_graph=True)
        total = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        return list(torch.autograd.grad(total, leaves))

    found = second(attention, norm, x, fused=True)
    assert_correct(found, second(exact(attention), exact(norm), x.double(), fused=False))
