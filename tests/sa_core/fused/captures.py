"""Ways in which torch uses a module besides a plain call: tracers, exporters, transforms, modes, kinds of tensors."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tests.sa_core.helpers import noise

Call = Callable[[Tensor], Tensor]


class Network(nn.Module):
    """A module within another one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x)
        return out


class _Observed(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class _Overridden(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Plain(Tensor):
    """A subclass without changes."""


class Wrapped(Tensor):
    """A subclass that wraps another tensor and supports only torch's own operators."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        wrapper: Wrapped = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)  # type: ignore[attr-defined]
        return wrapper

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace != "aten":
            raise NotImplementedError(str(func))
        inner = torch.utils._pytree.tree_map_only(Wrapped, lambda tensor: tensor.inner, (args, kwargs or {}))
        return torch.utils._pytree.tree_map_only(Tensor, Wrapped, func(*inner[0], **inner[1]))


# --- Captures: make a callable from a module and a map; it is called with another map of the same shape.


def _exported(module: nn.Module, x: Tensor, **options: Any) -> Call:
    return torch.export.export(module, (x,), **options).module()


def _decomposed(module: nn.Module, x: Tensor) -> Call:
    return torch.export.export(module, (x,)).run_decompositions().module()


def _onnx(module: nn.Module, x: Tensor, **options: Any) -> Call:
    import onnxruntime

    file = io.BytesIO()
    program = torch.onnx.export(module, (x,), file, verbose=False, **options)
    content = file.getvalue()
    if not content and program is not None:
        program.save(file)
        content = file.getvalue()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda other: torch.from_numpy(session.run(None, {name: other.detach().numpy()})[0])


def _compiled(module: nn.Module, _: Tensor, **options: Any) -> Call:
    return torch.compile(module, **options)


def _fx(module: nn.Module, x: Tensor, **options: Any) -> Call:
    return make_fx(module, **options)(x)


CAPTURES: Mapping[str, Callable[[nn.Module, Tensor], Call]] = {
    "nothing": lambda module, _: module,
    "a copy": lambda module, _: deepcopy(module),
    "jit.trace": lambda module, x: torch.jit.trace(module, (x.detach(),)),
    "jit.trace, frozen": lambda module, x: torch.jit.freeze(torch.jit.trace(module, (x.detach(),)).eval()),
    "jit.trace of a network": lambda module, x: torch.jit.trace(Network(module), (x.detach(),)),
    "jit.script": lambda module, _: torch.jit.script(module),
    "jit.script of a network": lambda module, _: torch.jit.script(Network(module)),
    "fx.symbolic_trace": lambda module, _: torch.fx.symbolic_trace(module),
    "fx.symbolic_trace of a network": lambda module, _: torch.fx.symbolic_trace(Network(module)),
    "make_fx": _fx,
    "make_fx, fake": lambda module, x: _fx(module, x, tracing_mode="fake", _allow_non_fake_inputs=True),
    "make_fx, symbolic": lambda module, x: _fx(module, x, tracing_mode="symbolic", _allow_non_fake_inputs=True),
    "make_fx, before dispatch": lambda module, x: _fx(module, x, pre_dispatch=True),
    "make_fx, functionalized": lambda module, x: _fx(torch.func.functionalize(module), x),
    "functionalize": lambda module, _: torch.func.functionalize(module),
    "functional_call": lambda module, _: lambda other: torch.func.functional_call(
        module, {name: value.clone() for name, value in module.named_parameters()}, (other,)
    ),
    "checkpoint": lambda module, _: lambda other: checkpoint(module, other, use_reentrant=False),
    "export": lambda module, x: _exported(module, x.detach(), strict=False),
    "export, strict": lambda module, x: _exported(module, x.detach(), strict=True),
    "export, decomposed": lambda module, x: _decomposed(module, x.detach()),
    "compile, eager": lambda module, x: _compiled(module, x, backend="eager"),
    "compile, aot_eager": lambda module, x: _compiled(module, x, backend="aot_eager", fullgraph=True),
    "compile, dynamic": lambda module, x: _compiled(module, x, backend="aot_eager", dynamic=True, fullgraph=True),
    "compile of vmap": lambda module, x: _compiled(
        lambda other: torch.func.vmap(module)(other[None])[0], x, backend="aot_eager"
    ),
    "onnx, traced": lambda module, x: _onnx(module, x.detach(), dynamo=False),
    "onnx, exported": lambda module, x: _onnx(module, x.detach(), dynamo=True),
}  # fmt: skip


# --- Transforms: applied to a module and a map, and in the same way to the reference.


def _loss(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: module(x).square().sum()


def _tangent(module: nn.Module, x: Tensor) -> Tensor:
    with forward_mode.dual_level():
        out = module(forward_mode.make_dual(x, torch.ones_like(x)))
        return forward_mode.unpack_dual(out).tangent


def _second(module: nn.Module, x: Tensor) -> list[Tensor]:
    leaf = x.detach().requires_grad_()
    leaves = [leaf, *module.parameters()]
    gradients = torch.autograd.grad(_loss(module)(leaf), leaves, create_graph=True)
    return list(torch.autograd.grad(sum(value.square().sum() for value in gradients), leaves))  # type: ignore[arg-type]


def _per_sample(module: nn.Module, x: Tensor) -> list[Tensor]:
    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(module, parameters, (image[None],))
        return out.square().sum()

    parameters = {name: value.detach() for name, value in module.named_parameters()}
    return list(torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x).values())


def _ensemble(module: nn.Module, x: Tensor) -> Tensor:
    parameters = {name: torch.stack([value, 2 * value]).detach() for name, value in module.named_parameters()}
    out: Tensor = torch.func.vmap(lambda own: torch.func.functional_call(module, own, (x,)))(parameters)
    return out


def _few(x: Tensor) -> Tensor:
    return x[:1, :, :2, :2]


TRANSFORMS: Mapping[str, Callable[[nn.Module, Tensor], Tensor | Sequence[Tensor]]] = {
    "vmap": lambda module, x: torch.func.vmap(module)(torch.stack([x, 2 * x])),
    "vmap over parameters": _ensemble,
    "grad": lambda module, x: torch.func.grad(_loss(module))(x),
    "grad of grad": lambda module, x: torch.func.grad(lambda x: torch.func.grad(_loss(module))(x).square().sum())(x),
    "per-sample gradients": _per_sample,
    "vjp": lambda module, x: torch.func.vjp(module, x)[1](torch.ones_like(x))[0],
    "jvp": lambda module, x: torch.func.jvp(module, (x,), (torch.ones_like(x),))[1],
    "linearize": lambda module, x: torch.func.linearize(module, x)[1](torch.ones_like(x)),
    "jacrev": lambda module, x: torch.func.jacrev(module)(_few(x)),
    "jacfwd": lambda module, x: torch.func.jacfwd(module)(_few(x)),
    "hessian": lambda module, x: torch.func.hessian(_loss(module))(_few(x)),
    "forward mode": _tangent,
    "second derivatives": _second,
    "autograd.functional.hessian": lambda module, x: torch.autograd.functional.hessian(_loss(module), _few(x)),
    "autograd.functional.hvp": lambda module, x: torch.autograd.functional.hvp(_loss(module), x, torch.ones_like(x))[1],
    "autograd.functional.jvp": lambda module, x: torch.autograd.functional.jvp(module, x, torch.ones_like(x))[1],
    "batched gradients": lambda module, x: torch.autograd.functional.jacobian(module, _few(x), vectorize=True),
}  # fmt: skip


# --- Modes in which a module is called.


@contextmanager
def _default_device() -> Iterator[None]:
    with torch.device("meta"):
        yield


MODES: Mapping[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "a dispatch mode": _Observed,
    "a function mode": _Overridden,
    "another default device": _default_device,
    "anomaly detection": torch.autograd.detect_anomaly,
    "hooks of saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x),
    "saved on the CPU": torch.autograd.graph.save_on_cpu,
}


# --- Kinds of maps; each has the values of the given map, as far as it can.


def _overlapping(x: Tensor) -> Tensor:
    return x.flatten().as_strided(x.shape, (3, 2, 1, 1))


def _in_inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


MAPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "a parameter": lambda x: nn.Parameter(x.clone()),
    "a subclass": lambda x: x.as_subclass(Plain),
    "a subclass with dispatch": Wrapped,
    "a pending negation": lambda x: torch._neg_view(-x),
    "an imaginary part": lambda x: torch.complex(x, -x).conj().imag,
    "expanded": lambda x: x[:1].expand(x.shape),
    "overlapping": _overlapping,
    "created in inference mode": _in_inference_mode,
    "sparse": lambda x: x.to_sparse(),
    "mkldnn": lambda x: x.to_mkldnn(),
    "zero": lambda x: torch._efficientzerotensor(x.shape),
    "on the meta device": lambda x: x.to("meta"),
    "fake": lambda x: FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x),
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "float16": lambda x: x.half(),
    "int64": lambda x: x.long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: torch.complex(x, x),
    "no images": lambda x: x[:0],
    "no positions": lambda x: x[:, :, :0],
    "one value per channel": lambda x: x[:1, :, :1, :1],
    "three dimensions": lambda x: x[0],
    "other channels": lambda x: x[:, :8],
}


def parametrised(module: nn.Module) -> nn.Module:
    """Parametrizes two parameters, so that they are computed instead of stored."""

    class Doubled(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return 2 * value

    for name in ("sweight", "cbias"):
        parametrize.register_parametrization(module, name, Doubled())
    return module


def images(seed: int = 1) -> Tensor:
    return noise(2, 16, 4, 3, seed=seed)
