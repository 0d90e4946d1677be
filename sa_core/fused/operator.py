"""The operator `sa_core::shuffle_attention`: shuffle attention between a batch norm and an addition with ReLU.

    u   = batch_norm(x)                          or x
    y   = u * gate(u), with the gate of the channel's branch
    out = relu(shuffle(y) + shortcut)            or shuffle(y)

It is registered with torch, so that autograd, torch.compile and torch.export support it; the kernels are those of
`sa_core.fused.cpu` and `sa_core.fused.gpu`. Forward saves its input, its result if that ends in a ReLU, and two numbers
per channel of each image; eager torch saves about ten maps.

Where no tracer or transform is active, an `autograd.Function` is called directly, in a third of the time that the
registered operator takes, which matters on small maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, library
from torch.nn import Parameter

from sa_core.errors import UnsupportedError
from sa_core.fused import cpu, gpu
from sa_core.fused.composite import gradients_of
from sa_core.fused.dense import is_dense, is_unobserved
from sa_core.fused.form import Form, Parameters, new_gradients, new_results

_PARAMETERS = ", ".join(f"Tensor? {name}" for name in Parameters._fields)
_FORM = "int groups, int split, bool channel_gate, str spatial_gate, int shuffle_groups, str norm, "
_FORM += "float gn_epsilon, float bn_epsilon"
_LIBRARY = library.Library("sa_core", "DEF")
_LIBRARY.define(
    f"shuffle_attention(Tensor x, Tensor? shortcut, {_PARAMETERS}, Tensor? running_mean, Tensor? running_variance, "
    f"Tensor? permutation, {_FORM}) -> (Tensor out, Tensor rows, Tensor moments)"
)
_LIBRARY.define(
    f"shuffle_attention_backward(Tensor grad_out, Tensor x, Tensor? out, Tensor rows, Tensor moments, {_PARAMETERS}, "
    f"Tensor? permutation, {_FORM}) -> (Tensor grad_x, Tensor grad_shortcut, Tensor grad_gates, Tensor grad_bn)"
)
_COUNT = len(Parameters._fields)
_ONCE = "does not support double backward; use fused='off' for second derivatives"
_ONE_GRADIENT = "does not support batched gradients; use fused='off'"
KERNELS = {"cpu": cpu, "cuda": gpu}


def shuffle_attention(
    form: Form,
    parameters: Parameters,
    x: Tensor,
    shortcut: Tensor | None = None,
    running: tuple[Tensor, Tensor] | None = None,
    permutation: Tensor | None = None,
    *,
    strict: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Computes the operator on feature maps (B, C, H, W).

    The kernels compute first derivatives, for one gradient at a time; torch's operations compute second derivatives and
    batches of gradients.

    Args:
        form: the function to compute.
        parameters: trained parameters, of any floating type.
        x: float32, bfloat16 or float16; always computed in float32.
        shortcut: added before a ReLU, with type and shape of x; None for neither addition nor ReLU.
        running: mean and variance of the batch norm if `form.norm` is `running`.
        permutation: (C,), input channel of each output channel; None interleaves `form.shuffle_groups` blocks.
        strict: whether derivatives without a kernel raise an error instead.

    Returns:
        The result, with type, shape and layout of x, and the moments of the batch norm, if there is one, of shape
        (3, C); their first two rows are mean and variance.

    Raises:
        RuntimeError: if parameters or permutation do not fit the map, or are on another device.
        UnsupportedError: with `strict`, in backward, for derivatives without a kernel.
        IndexError: if `permutation` is not a permutation.
    """
    device, widths = x.device, form.widths(x.shape[1])
    traced = torch.compiler.is_compiling() or not is_unobserved(x) or (shortcut is not None and not is_dense(shortcut))
    for value, width in zip(parameters, widths, strict=True):
        if value is None:
            continue
        if value.device != device:
            raise RuntimeError(
                f"the parameters of shuffle attention are on {value.device}, but its input is on {device}"
            )
        if value.numel() != width:
            raise RuntimeError(f"a parameter of shuffle attention has {value.numel()} elements, expected {width}")
        if type(value) is not Parameter and not traced:
            traced = not is_dense(value)
        if value.dtype is not torch.float32:
            parameters = Parameters(*[value if value is None else value.float() for value in parameters])
    if permutation is not None and (permutation.shape != x.shape[1:2] or permutation.dtype is not torch.int64):
        raise RuntimeError(
            f"the permutation of shuffle attention must have one integer for each of {x.shape[1]} channels"
        )
    if traced:
        mean, variance = (None, None) if running is None else (value.float() for value in running)
        out, _, moments = torch.ops.sa_core.shuffle_attention(
            x, shortcut, *parameters, mean, variance, permutation, *form
        )
        return out, moments if form.norm != "none" else None
    if not torch.is_grad_enabled():
        out, _, moments = _kernels_of(x).forward(form, parameters, x, shortcut, running, permutation, kept=False)
        return out, moments
    out, _, moments = _Function.apply(x, shortcut, *parameters, running, permutation, form, strict)
    return out, moments


def _kernels_of(x: Tensor) -> ModuleType:
    return cpu if x.is_cpu else KERNELS[x.device.type]  # `device` takes six times as long as `is_cpu`


class _Function(torch.autograd.Function):
    """The operator without registration."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shortcut: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Computes the operator and saves the tensors for backward."""
        *parameters, running, permutation, form, strict = rest
        kernels = _kernels_of(x)
        results: tuple[Tensor, Tensor, Tensor | None]
        results = kernels.forward(form, Parameters(*parameters), x, shortcut, running, permutation)
        out, rows, moments = results
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(rows, *(() if moments is None else (moments,)))
        ctx.form, ctx.strict = form, strict
        ctx.save_for_backward(x, None if shortcut is None else out, rows, moments, permutation, *parameters)
        return results

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, *_: None) -> tuple[Any, ...]:
        """Computes the gradients of maps and parameters."""
        if grad_out is None:
            return (None,) * (_COUNT + 6)
        x, out, rows, moments, permutation, *parameters = ctx.saved_tensors
        is_second = torch.is_grad_enabled()
        if not is_dense(grad_out):
            grad_out = grad_out.resolve_neg()
        if is_second or not is_dense(grad_out):  # second derivatives, or a batch of gradients
            if ctx.strict:
                raise _unsupported(_ONCE if is_second else _ONE_GRADIENT)
            composed = gradients_of(ctx.form, parameters, grad_out, x, out, moments, permutation)
            return *composed, None, None, None, None
        gradients = _kernels_of(x).backward(
            ctx.form, Parameters(*parameters), grad_out, x, out, rows, moments, permutation
        )
        return *_by_input(gradients, parameters), None, None, None, None


def _by_input(
    gradients: tuple[Tensor, Tensor | None, Tensor, Tensor | None], parameters: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Returns the gradients of x, the shortcut and each parameter from the tensors of `new_gradients`."""
    grad_x, grad_shortcut, gates, bn = gradients
    rows = [*gates.unbind(), *((None, None) if bn is None else bn.unbind())]  # iteration takes four times as long
    return [grad_x, grad_shortcut] + [
        None
        if parameter is None
        else (grad if len(grad) == parameter.numel() else grad[: parameter.numel()]).view_as(parameter)
        for parameter, grad in zip(parameters, rows, strict=True)
    ]


def _registered_forward(kernels: ModuleType) -> Any:
    def forward(x: Tensor, shortcut: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        parameters, (mean, variance, permutation, *form) = Parameters(*rest[:_COUNT]), rest[_COUNT:]
        running = None if mean is None else (mean, variance)
        out, rows, moments = kernels.forward(Form(*form), parameters, x, shortcut, running, permutation)
        return out, rows, _or_empty(moments, x)

    return forward


def _registered_backward(kernels: ModuleType) -> Any:
    def backward(
        grad_out: Tensor, x: Tensor, out: Tensor | None, rows: Tensor, moments: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parameters, permutation, form = Parameters(*rest[:_COUNT]), rest[_COUNT], Form(*rest[_COUNT + 1 :])
        kept = (rows, None if form.norm == "none" else moments)
        grad_x, grad_shortcut, gates, bn = kernels.backward(form, parameters, grad_out, x, out, *kept, permutation)
        return grad_x, _or_empty(grad_shortcut, x), gates, _or_empty(bn, x)

    return backward


def _or_empty(tensor: Tensor | None, x: Tensor) -> Tensor:
    """Returns an empty tensor for None: a registered operator always returns tensors."""
    return torch.empty(0, dtype=torch.float32, device=x.device) if tensor is None else tensor


def _fake_forward(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    out, rows, moments = new_results(x, Form(*rest[-len(Form._fields) :]))
    return out, rows, _or_empty(moments, x)


def _fake_backward(
    grad_out: Tensor, x: Tensor, out: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del grad_out
    form = Form(*rest[-len(Form._fields) :])
    grad_x, grad_shortcut, gates, bn = new_gradients(x, form, joined=out is not None)
    return grad_x, _or_empty(grad_shortcut, x), gates, _or_empty(bn, x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, shortcut, *rest = inputs
    out, rows, moments = output
    parameters, (_, _, permutation, *form) = rest[:_COUNT], rest[_COUNT:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(rows, moments)
    ctx.form = form
    ctx.save_for_backward(x, None if shortcut is None else out, rows, moments, *parameters, permutation)


def _differentiate(ctx: Any, grad_out: Tensor | None, *_: None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    no_gradients = (None,) * (3 + len(ctx.form))  # of running mean and variance, permutation and form
    if grad_out is None:
        return (None,) * (2 + _COUNT) + no_gradients
    if torch.is_grad_enabled():  # for second derivatives
        x, out, _, moments, *parameters, permutation = saved
        return *gradients_of(Form(*ctx.form), parameters, grad_out, x, out, moments, permutation), *no_gradients
    grad_x, grad_shortcut, gates, bn = torch.ops.sa_core.shuffle_attention_backward(grad_out, *saved, *ctx.form)
    joined, normed = saved[1] is not None, Form(*ctx.form).norm != "none"
    gradients = (grad_x, grad_shortcut if joined else None, gates, bn if normed else None)
    return *_by_input(gradients, saved[4:-1]), *no_gradients


def _unsupported(reason: str) -> UnsupportedError:
    return UnsupportedError("fused", "on", reason, ("auto", "off"))


def _raise_once(*_: Any) -> None:
    raise _unsupported(_ONCE)


for _key, _kernels in (("CPU", cpu), ("CUDA", gpu)):
    _LIBRARY.impl("shuffle_attention", _registered_forward(_kernels), _key)
    _LIBRARY.impl("shuffle_attention_backward", _registered_backward(_kernels), _key)
library.register_fake("sa_core::shuffle_attention", _fake_forward, lib=_LIBRARY)
library.register_fake("sa_core::shuffle_attention_backward", _fake_backward, lib=_LIBRARY)
library.register_autograd("sa_core::shuffle_attention", _differentiate, setup_context=_save, lib=_LIBRARY)
library.register_autograd("sa_core::shuffle_attention_backward", _raise_once, lib=_LIBRARY)
