"""The operator within torch: registration, compilation, export, differentiation, copies."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, library, nn
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from sa_core.errors import UnsupportedError
from sa_core.fused import Form, Parameters, prefers_eager, shuffle_attention
from sa_core.fused.form import new_gradients, new_results
from tests.sa_core.fused.cases import COMPUTED, exact, last, make, needs_kernels, results_of
from tests.sa_core.helpers import noise
from tests.wording import worded

pytestmark = needs_kernels
OPERATOR = torch.ops.sa_core.shuffle_attention
BACKWARD = torch.ops.sa_core.shuffle_attention_backward
C = 16

# Norm, shortcut, layout, permutation, knobs of the form.
FORMS: dict[str, tuple[str, bool, bool, bool, dict[str, Any]]] = {
    "alone": ("none", False, False, False, {}),
    "alone, nhwc": ("none", False, True, False, {}),
    "joined": ("none", True, False, False, {}),
    "running norm": ("running", False, False, True, {}),
    "running norm, joined, nhwc": ("running", True, True, False, {"shuffle_groups": 4}),
    "batch norm": ("batch", False, True, True, {"spatial_gate": "plain"}),
    "batch norm, joined": ("batch", True, False, False, {}),
    "nothing but a batch norm, joined": ("batch", True, False, False, {"channel_gate": False, "spatial_gate": "none"}),
}
every_form = pytest.mark.parametrize("name", FORMS)


def arguments_of(name: str, *, grad: bool) -> tuple[Any, ...]:
    """The arguments of the registered operator."""
    norm, joined, nhwc, permuted, knobs = FORMS[name]
    form = Form(2, 4, **{"channel_gate": True, "spatial_gate": "instance", "shuffle_groups": 2, "norm": norm, **knobs})
    x, shortcut = noise(2, C, 5, 4, seed=1), noise(2, C, 5, 4, seed=2)
    if nhwc:
        x, shortcut = last(x), last(shortcut)
    gates: list[Tensor | None] = [None] * 6
    if form.channel_gate:
        gates[:2] = noise(1, 4, 1, 1, seed=3), noise(1, 4, 1, 1, seed=4)
    if form.spatial_gate != "none":
        gates[2:4] = noise(1, 4, 1, 1, seed=5), noise(1, 4, 1, 1, seed=6)
    if form.spatial_gate == "instance":
        gates[4:] = noise(4, seed=7), noise(4, seed=8)
    bn = [None, None] if norm == "none" else [noise(C, seed=9), noise(C, seed=10)]
    running = (noise(C, seed=11), noise(C, seed=12).abs() + 0.5) if norm == "running" else (None, None)
    order = torch.randperm(C, generator=torch.Generator().manual_seed(0)) if permuted else None
    learnt = [x, shortcut if joined else None, *gates, *bn]
    for value in learnt:
        if grad and value is not None:
            value.requires_grad_()
    return (*learnt, *running, order, *form)


def backward_arguments_of(name: str) -> tuple[Any, ...]:
    arguments = arguments_of(name, grad=False)
    out, rows, moments = OPERATOR(*arguments)
    x, shortcut, *rest = arguments
    return (noise(2, C, 5, 4, seed=13), x, None if shortcut is None else out, rows, moments, *rest[:8], *rest[10:])


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@every_form
def test_the_operator_passes_opcheck(name: str) -> None:
    library.opcheck(OPERATOR.default, arguments_of(name, grad=True))


@pytest.mark.filterwarnings("ignore")
@every_form
def test_the_backward_operator_passes_opcheck(name: str) -> None:
    library.opcheck(BACKWARD.default, backward_arguments_of(name))


def call_directly(arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    x, shortcut, *rest = arguments
    mean, variance, order, *form = rest[8:]
    running = None if mean is None else (mean, variance)
    return shuffle_attention(Form(*form), Parameters(*rest[:8]), x, shortcut, running, order)


@every_form
def test_registered_and_direct_calls_are_equal_bit_for_bit(name: str) -> None:
    arguments = arguments_of(name, grad=True)
    leaves = [value for value in arguments[:10] if value is not None]
    grad = noise(2, C, 5, 4, seed=13)
    out, moments = call_directly(arguments)
    registered, _, registered_moments = OPERATOR(*arguments)
    assert torch.equal(out, registered)
    if moments is None:
        assert registered_moments.numel() == 0
    else:
        assert torch.equal(moments, registered_moments)
        assert not moments.requires_grad
        assert not registered_moments.requires_grad
    for a, b in zip(torch.autograd.grad(out, leaves, grad), torch.autograd.grad(registered, leaves, grad), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


def graph_of(module: nn.Module, x: Tensor) -> tuple[Tensor, list[str], nn.Module]:
    """Compiles a module in one graph; returns its result, and the operator names in the graph of forward."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    names: list[str] = []

    def record(graph: torch.fx.GraphModule, _: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=record, bw_compiler=record)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    return compiled(x), names, compiled


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("knobs", [{}, {"permutation": "random", "fused": "auto"}, {"branches": "channel"}])
@pytest.mark.parametrize("nhwc", [False, True])
def test_a_compiled_module_is_one_operator_with_equal_results(knobs: dict[str, Any], nhwc: bool) -> None:
    module, x = make(C, **knobs), noise(2, C, 5, 4)
    x = (last(x) if nhwc else x).requires_grad_()
    out, seen, _ = graph_of(module, x)
    leaves, grad = [x, *module.parameters()], noise(2, C, 5, 4, seed=2)
    gradients = torch.autograd.grad(out, leaves, grad)
    assert [name for name in seen if "sa_core" in name] == [
        "sa_core.shuffle_attention.default",
        "sa_core.shuffle_attention_backward.default",
    ]
    expected = module(x)
    assert torch.equal(out, expected)
    assert out.stride() == expected.stride()
    for a, b in zip(gradients, torch.autograd.grad(expected, leaves, grad), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_inference_and_other_shapes_give_equal_results() -> None:
    module = make(C).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for shape in ((2, C, 5, 4), (3, C, 7, 2), (1, C, 1, 1)):
            x = noise(*shape)
            assert torch.equal(compiled(x), module(x))


def _operators_in(program: torch.export.ExportedProgram) -> set[str]:
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return {target.namespace for target in targets if isinstance(target, torch._ops.OpOverload)}


@pytest.mark.parametrize("strict", [False, True])
def test_an_export_with_auto_has_only_torchs_operations(strict: bool) -> None:
    module, x = make(C, fused="auto").eval(), noise(2, C, 5, 4)
    program = torch.export.export(module, (x,), strict=strict)
    assert _operators_in(program) == {"aten"}
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
def test_an_export_with_on_has_the_operator(strict: bool) -> None:
    module, x = make(C, fused="on").eval(), noise(2, C, 5, 4)
    program = torch.export.export(module, (x,), strict=strict, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    assert "sa_core" in _operators_in(program)
    for batch in (1, 2, 5):
        x = noise(batch, C, 5, 4)
        assert torch.equal(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore")
def test_a_jit_trace_has_only_torchs_operations() -> None:
    module, x = make(C, fused="auto").eval(), noise(2, C, 5, 4)
    traced = torch.jit.trace(module, (x,))
    assert "sa_core::" not in str(traced.inlined_graph)
    assert "aten::sigmoid" in str(traced.inlined_graph)
    torch.testing.assert_close(traced(noise(3, C, 6, 4)), module(noise(3, C, 6, 4)), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore", "error::torch.jit.TracerWarning")
@pytest.mark.parametrize("fused", ["auto", "off"])
def test_a_jit_trace_has_no_tracer_warnings(fused: str) -> None:
    torch.jit.trace(make(C, fused=fused).eval(), (noise(2, C, 5, 4),))


class _Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_records_the_operator_and_its_backward() -> None:
    module, x = make(C), noise(2, C, 5, 4).requires_grad_()
    with _Recorder() as mode:
        module(x).sum().backward()
    assert "sa_core.shuffle_attention.default" in mode.names
    assert "sa_core.shuffle_attention_backward.default" in mode.names


def test_the_flop_counter_works() -> None:
    module, x = make(C), noise(2, C, 5, 4).requires_grad_()
    network = nn.Sequential(nn.Conv2d(C, C, 1, bias=False), module)
    with FlopCounterMode(display=False) as counter:
        out = network(x)
        out.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * C * C * 20  # a convolution and its two gradients
    assert torch.equal(out, network(x))


def test_make_fx_and_fake_tensors_record_the_operator() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x = make(C), noise(2, C, 5, 4)
    graph = make_fx(module)(x)
    assert "sa_core.shuffle_attention" in graph.code
    assert torch.equal(graph(x), module(x))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(last(x))
        out = module(fake)
    assert out.shape == x.shape
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_a_parameter_is_a_valid_map() -> None:
    module, x = make(C), noise(2, C, 5, 4)
    found = nn.Parameter(x.clone())
    out = module(found)
    assert torch.equal(out, module(x))
    out.backward(noise(2, C, 5, 4, seed=2))
    assert found.grad is not None
    assert torch.equal(found.grad, results_of(module, x, noise(2, C, 5, 4, seed=2))["x"])


REFUSED = worded("fused.once_differentiated")


def test_second_derivatives_raise_an_error_with_a_remedy() -> None:
    module, x = make(C), noise(2, C, 5, 4).requires_grad_()
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.functional.hessian(lambda x: module(x).square().sum(), x)
    module.fuse("off")
    (grad,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    grad.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("registered", [False, True])
@every_form
def test_differentiable_gradients_equal_those_of_the_kernels(name: str, registered: bool) -> None:
    arguments = arguments_of(name, grad=True)
    leaves, grad = [value for value in arguments[:10] if value is not None], noise(2, C, 5, 4, seed=13)
    out = OPERATOR(*arguments)[0] if registered else call_directly(arguments)[0]
    expected = torch.autograd.grad(out, leaves, grad, retain_graph=True)
    found = torch.autograd.grad(out, leaves, grad, create_graph=True)
    for value, wanted, leaf in zip(found, expected, leaves, strict=True):
        assert value.dtype == leaf.dtype
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4 * float(1 + wanted.abs().max()))
    total = torch.stack([value.square().sum() for value in found]).sum()
    second = torch.autograd.grad(total, leaves, allow_unused=True)  # the shortcut has no second derivative
    assert all(value.isfinite().all() for value in second if value is not None)
    assert second[0] is not None


def test_differentiating_the_registered_backward_raises_an_error() -> None:
    arguments = backward_arguments_of("joined")
    arguments[1].requires_grad_()
    with pytest.raises(UnsupportedError, match=REFUSED):
        BACKWARD(*arguments)[0].sum().backward()


@pytest.mark.parametrize("registered", [False, True])
@every_form
def test_only_required_gradients_are_computed(name: str, registered: bool) -> None:
    count = 10
    all_arguments = arguments_of(name, grad=True)
    grad = noise(2, C, 5, 4, seed=13)

    def result(arguments: tuple[Any, ...]) -> Tensor:
        return OPERATOR(*arguments)[0] if registered else call_directly(arguments)[0]

    indices = [i for i in range(count) if all_arguments[i] is not None]
    expected = dict(
        zip(indices, torch.autograd.grad(result(all_arguments), [all_arguments[i] for i in indices], grad), strict=True)
    )
    for required in indices:
        arguments = arguments_of(name, grad=False)
        arguments[required].requires_grad_()
        out = result(arguments)
        out.backward(grad)
        for i in indices:
            assert (arguments[i].grad is not None) == (i == required)
        assert torch.equal(arguments[required].grad, expected[required])
    assert not result(arguments_of(name, grad=False)).requires_grad


@pytest.mark.parametrize("frozen", ["x", "parameters"])
def test_frozen_parts_of_a_module_have_no_gradient(frozen: str) -> None:
    module, x, grad = make(C), noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2)
    expected = results_of(module, x, grad)
    module.requires_grad_(frozen == "x")
    x.requires_grad_(frozen == "parameters")
    module(x).backward(grad)
    if frozen == "x":
        assert x.grad is None
        assert all(torch.equal(p.grad, expected[name]) for name, p in module.named_parameters() if p.grad is not None)
        assert all(p.grad is not None for p in module.parameters())
    else:
        assert all(p.grad is None for p in module.parameters())
        assert x.grad is not None
        assert torch.equal(x.grad, expected["x"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_map_and_two_numbers_per_channel_are_saved_for_backward(dtype: torch.dtype) -> None:
    module, x = make(C), noise(2, C, 20, 20).to(dtype).requires_grad_()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x)
    parameters = sum(4 * parameter.numel() for parameter in module.parameters())
    assert sum(saved.values()) == x.numel() * x.element_size() + 2 * 4 * 2 * C + parameters
    assert saved[x.data_ptr()] == x.numel() * x.element_size()
    out.sum().backward()


def test_an_in_place_change_before_backward_raises_an_error() -> None:
    module, x = make(C), noise(2, C, 5, 4).requires_grad_()
    copied = x * 1
    out = module(copied)
    copied.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_retain_graph_allows_a_second_backward() -> None:
    module, x = make(C), noise(2, C, 5, 4).requires_grad_()
    out = module(x)
    once = torch.autograd.grad(out.sum(), x, retain_graph=True)
    assert torch.equal(once[0], torch.autograd.grad(out.sum(), x)[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(out.sum(), x)


def test_gradients_are_equal_with_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    module, grad = make(C), noise(2, C, 5, 4, seed=2)
    x = noise(2, C, 5, 4).requires_grad_()
    checkpoint(module, x, use_reentrant=False).backward(grad)
    assert x.grad is not None
    assert torch.equal(x.grad, results_of(module, x, grad)["x"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("map_type", [torch.float32, torch.bfloat16])
def test_gradients_have_the_type_of_their_parameters(dtype: torch.dtype, map_type: torch.dtype) -> None:
    module = make(C, dtype=dtype)
    x, grad = noise(2, C, 5, 4).to(map_type), noise(2, C, 5, 4, seed=2).to(map_type)
    found, expected = results_of(module, x, grad), results_of(exact(module), x.double(), grad.double())
    assert found["out"].dtype == found["x"].dtype == map_type
    for name, parameter in module.named_parameters():
        assert found[name].dtype == dtype
        limit = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float64: 0}[dtype]
        error = (found[name].double() - expected[name]).abs()
        assert (error <= limit * expected[name].abs() + 2e-5 * (1 + expected[name].abs().max())).all(), name
        assert parameter.dtype == dtype


def test_a_single_parameter_may_have_another_type() -> None:
    module, x, grad = make(C), noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2)
    module.sbias.data = module.sbias.data.double()
    found, expected = results_of(module, x, grad), results_of(exact(module), x.double(), grad.double())
    for name, value in found.items():
        assert value.dtype == (torch.float64 if name == "sbias" else torch.float32)
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("moved", ["sweight", "all"])
def test_parameters_on_another_device_raise_an_error(moved: str, grad: bool) -> None:
    module, x = make(C), noise(2, C, 5, 4)
    if moved == "all":
        module = module.to("meta")
    else:
        module.sweight = nn.Parameter(module.sweight.to("meta"))
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(RuntimeError, match=worded("fused.elsewhere", parameters="meta", map="cpu")),
    ):
        module(x)


# In a separate process, because without an error the kernels would access memory out of bounds.
MISFITS = """
import sys
import torch
from torch import nn
from sa_core.errors import UnsupportedError
from sa_core.fused import Form, Parameters, shuffle_attention
from sa_core.fused.block import end_of_block
from tests.sa_core.fused.cases import make
from tests.sa_core.helpers import noise

def channels(number, **knobs):
    make(32, **knobs)(noise(2, number, 3, 3))

def parameter(index, length):
    gates = [noise(length if i == index else 4, seed=i) for i in range(6)]
    shuffle_attention(Form(2, 4, True, "instance", 2), Parameters(*gates), noise(2, 16, 3, 3))

def norm(number, training):
    x = noise(2, 16, 3, 3)
    out = end_of_block(x, nn.BatchNorm2d(number).train(training), nn.Identity(), x)
    if out is None:
        raise RuntimeError("left to torch, which refuses it")

def permutation(values):
    module = make(32, permutation="random")
    module.permutation.copy_(values)
    module(noise(2, 32, 3, 3))

for call in sys.argv[1:]:
    print(call, end=": ", flush=True)
    try:
        with torch.no_grad():
            eval(call)
    except (RuntimeError, ValueError, IndexError):
        print("refused", flush=True)
    else:
        print("taken", flush=True)
"""


def test_arguments_of_the_wrong_size_raise_an_error() -> None:
    calls = (
        "channels(16)",
        "channels(64)",
        "channels(30)",
        "channels(16, branches='channel')",
        "channels(64, permutation='random')",
        "parameter(0, 3)",
        "parameter(2, 5)",
        "parameter(4, 1)",
        "norm(8, True)",
        "norm(8, False)",
        "norm(32, True)",
        "permutation(torch.arange(32) + 1)",
    )
    done = subprocess.run(
        [sys.executable, "-c", MISFITS, *calls],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.splitlines() == [f"{call}: refused" for call in calls], done.stderr
    assert done.returncode == 0


@pytest.fixture(params=[torch.float64, torch.bfloat16, torch.float16], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("default_dtype")
@pytest.mark.parametrize("norm", ["none", "running", "batch"])
def test_allocated_results_do_not_depend_on_the_default_type(norm: str) -> None:
    x, form = torch.zeros(2, C, 3, 3, dtype=torch.bfloat16), Form(2, 4, True, "instance", 2, norm)
    out, rows, moments = new_results(x, form)
    grad_x, grad_shortcut, gates, bn = new_gradients(x, form, joined=True)
    assert {value.dtype for value in (out, grad_x, grad_shortcut) if value is not None} == {torch.bfloat16}
    assert {value.dtype for value in (rows, moments, gates, bn) if value is not None} == {torch.float32}


def test_results_are_equal_with_float64_as_the_default_type() -> None:
    module, x, grad = make(C), noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2)
    expected, before = results_of(module, x, grad), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # wider than the float32 that kernels write
    try:
        found = results_of(module, x, grad)
    finally:
        torch.set_default_dtype(before)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_concurrent_calls_give_equal_results() -> None:
    module = make(64)
    maps = [noise(4, 64, 7, 7, seed=seed) for seed in range(8)]
    expected = [module(x) for x in maps]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(module, maps), expected))


def test_torch_computes_the_module_under_torch_func() -> None:
    module, off = make(C, fused="auto"), make(C, fused="off")
    x = noise(3, 2, C, 5, 4)
    assert not prefers_eager()
    parameters = dict(module.named_parameters())

    def loss(module: nn.Module) -> Callable[..., Tensor]:
        return lambda parameters, x: torch.func.functional_call(module, parameters, (x,)).square().sum()  # type: ignore[no-any-return]

    found = torch.func.grad(loss(module))(parameters, x[0])
    expected = torch.func.grad(loss(off))(parameters, x[0])
    torch.testing.assert_close(found, expected)
    _, tangent = torch.func.jvp(module, (x[0],), (x[1],))
    torch.testing.assert_close(tangent, torch.func.jvp(off, (x[0],), (x[1],))[1])
    torch.testing.assert_close(
        torch.func.grad(lambda x: torch.func.grad(lambda x: module(x).square().sum())(x).sum())(x[0]),
        torch.func.grad(lambda x: torch.func.grad(lambda x: off(x).square().sum())(x).sum())(x[0]),
    )


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_torch_computes_the_module_under_vmap(fused: str) -> None:
    module, x = make(C, fused=fused), noise(3, 2, C, 5, 4)
    expected = torch.stack([module(batch) for batch in x])
    torch.testing.assert_close(torch.func.vmap(module)(x), expected)


@pytest.mark.parametrize("fused", ["auto", "off"])
def test_vmap_gives_per_sample_gradients(fused: str) -> None:
    module, x = make(C, fused=fused), noise(3, 1, C, 5, 4)
    parameters = dict(module.named_parameters())

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, parameters, (x,))
        return out.square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i in range(3):
        expected = torch.autograd.grad(loss(parameters, x[i]), list(parameters.values()))
        torch.testing.assert_close([value[i] for value in found.values()], list(expected))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_differentiation_gives_the_tangent(grad: bool) -> None:
    import torch.autograd.forward_ad as forward_mode

    module, off, x = make(C, fused="auto"), make(C, fused="off"), noise(2, C, 5, 4)
    tangents = []
    for variant in (off, module):
        with torch.set_grad_enabled(grad), forward_mode.dual_level():
            out = variant(forward_mode.make_dual(x, noise(2, C, 5, 4, seed=2)))
            tangents.append(forward_mode.unpack_dual(out).tangent)
    assert tangents[1] is not None
    torch.testing.assert_close(tangents[1], tangents[0])


def test_batched_gradients_raise_an_error_with_on_and_work_with_auto() -> None:
    module, off, x = make(C, fused="on"), make(C, fused="off"), noise(1, C, 2, 2)
    with pytest.raises(UnsupportedError, match=worded("fused.one_gradient")):
        torch.autograd.functional.jacobian(module, x, vectorize=True)
    expected = torch.autograd.functional.jacobian(off, x, vectorize=True)
    torch.testing.assert_close(torch.autograd.functional.jacobian(module, x), expected)
    module.fuse("auto")
    torch.testing.assert_close(torch.autograd.functional.jacobian(module, x, vectorize=True), expected)


def test_functional_call_uses_the_given_parameters() -> None:
    module, source, x = make(C), make(C, seed=1), noise(2, C, 5, 4)
    out = torch.func.functional_call(module, dict(source.named_parameters()), (x,))
    assert torch.equal(out, source(x))


@pytest.mark.parametrize("fused", ["auto", "on", "off"])
def test_copies_keep_fused(fused: str) -> None:
    module, x = make(C, fused=fused, permutation="random"), noise(2, C, 5, 4)
    saved = io.BytesIO()
    torch.save(module, saved)
    saved.seek(0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(saved, weights_only=False)):
        assert twin.fused == fused
        assert repr(twin) == repr(module)
        assert torch.equal(twin(x), module(x))


class _Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


@pytest.mark.parametrize("path", ["sweight", "cbias", "gn.weight"])
def test_a_parametrized_module_equals_the_unfused_one(path: str) -> None:
    results = []
    for fused in ("auto", "off"):
        module = make(C, fused=fused)
        owner, _, name = path.rpartition(".")
        parametrize.register_parametrization(module.get_submodule(owner), name, _Doubled())
        results.append(results_of(module, noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2)))
    torch.testing.assert_close(results[0], results[1], rtol=COMPUTED, atol=COMPUTED)
    plain = results_of(make(C), noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2))
    assert not torch.allclose(results[0]["out"], plain["out"])


def test_a_pruned_module_with_weight_norm_equals_the_unfused_one() -> None:
    results = []
    for fused in ("auto", "off"):
        module = make(C, fused=fused)
        torch.nn.utils.parametrizations.weight_norm(module, "sweight", dim=1)
        prune.custom_from_mask(module.gn, "weight", torch.tensor([0.0, 1.0]))
        results.append(results_of(module, noise(2, C, 5, 4), noise(2, C, 5, 4, seed=2)))
    torch.testing.assert_close(results[0], results[1], rtol=COMPUTED, atol=COMPUTED)


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_on_the_norm_are_called(kind: str) -> None:
    module, calls = make(C, fused="auto"), []
    getattr(module.gn, f"register_{kind}_hook")(lambda *_: calls.append(kind))
    x = noise(2, C, 5, 4).requires_grad_()
    module(x).sum().backward()
    assert calls == [kind]


def test_global_hooks_are_called_for_the_norm() -> None:
    module, called = make(C, fused="auto"), []
    handle = nn.modules.module.register_module_forward_hook(lambda part, *_: called.append(part))
    try:
        module(noise(2, C, 5, 4))
    finally:
        handle.remove()
    assert called == [module.gn, module]


def test_hooks_on_the_module_are_called() -> None:
    module, calls = make(C), []
    module.register_forward_hook(lambda *_: calls.append("forward"))
    module.register_full_backward_hook(lambda *_: calls.append("backward"))
    module(noise(2, C, 5, 4).requires_grad_()).sum().backward()
    assert calls == ["forward", "backward"]


def test_a_replaced_norm_is_used() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    module, off, x = make(C, fused="auto"), make(C, fused="off"), noise(2, C, 5, 4)
    for variant in (module, off):
        variant.gn = Zero()
    assert torch.equal(module(x), off(x))


def test_a_replaced_forward_of_the_norm_is_called() -> None:
    module, off, x = make(C, fused="auto"), make(C, fused="off"), noise(2, C, 5, 4)
    for variant in (module, off):
        variant.gn.forward = lambda x: torch.zeros_like(x)
    assert torch.equal(module(x), off(x))


def test_a_changed_epsilon_of_the_norm_is_used() -> None:
    module, off, x = make(C, 2, fused="auto"), make(C, 2, fused="off"), noise(2, C, 5, 4)
    for variant in (module, off):
        variant.gn.eps = 0.5
    torch.testing.assert_close(module(x), off(x))
