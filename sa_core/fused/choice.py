"""Decides where the fused operator is supported: variant, device, type, and tracer or transform of torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.nn.modules.module import _has_any_global_hook

from sa_core.attentions.knobs import ShuffleAttentionKnobs
from sa_core.fused.form import Form
from sa_core.fused.operator import KERNELS

FUSED = ("auto", "on", "off")


def form_of(knobs: ShuffleAttentionKnobs, channels: int) -> Form | str:
    """Returns the operator's form of a variant, or as a clause why there is no kernel for it."""
    unsupported = {
        "transform": knobs.transform if knobs.transform == "conv1x1" else None,
        "norm": knobs.norm if knobs.has_spatial_branch and knobs.norm not in ("instance", "none") else None,
        "pooling": knobs.pooling if knobs.has_channel_branch and knobs.pooling != "avg" else None,
        "gate": knobs.gate if knobs.branches != "none" and knobs.gate != "sigmoid" else None,
    }
    for name, value in unsupported.items():
        if value is not None:
            return f"there is no kernel for {name}={value}"
    groups, c = knobs.groups_on(channels), knobs.branch_channels(channels)
    split = 0 if knobs.removed == "reassign" and knobs.has_spatial_branch else c
    spatial = ("instance" if knobs.norm == "instance" else "plain") if knobs.has_spatial_branch else "none"
    blocks = knobs.shuffle_groups if knobs.shuffle else 1
    return Form(groups, split, knobs.has_channel_branch, spatial, blocks)


def reason_against(device: str, dtype: torch.dtype) -> str | None:
    """Returns why kernels do not support this type on a device (`cpu`, `cuda`), None if they do."""
    kernels = KERNELS.get(device)
    if kernels is not None and kernels.supports(dtype):
        return None
    kind = str(dtype).removeprefix("torch.")
    if kernels is None or kernels.supports(torch.float32):
        return f"there is no kernel for {kind} on {device}"
    return f"no kernels are available for {device}: {kernels.reason_against()}"


# Same as torch.compiler.assume_constant_result, which would import the compiler: 150 MiB and more than a second even if
# nothing is compiled.
reason_against._dynamo_marked_constant = True  # type: ignore[attr-defined]


def prefers_eager() -> bool:
    """Whether `auto` uses torch's operations: in exports, tracers, torch.func and forward-mode differentiation."""
    return _is_exporting() or reason_against_mode() is not None


def reason_against_mode() -> str | None:
    """Returns as a clause why kernels do not support the current mode of torch (tracer, transform); None if they do."""
    if torch.compiler.is_compiling():  # also true in exports, where the operator is registered
        return "ONNX has no such operator" if _is_exporting() and _is_for_onnx() else None
    if torch._C._is_tracing():
        return "torch.jit.trace does not record kernels"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "there is no kernel for the transforms of torch.func"
    if forward_ad._current_level >= 0:
        return "there is no kernel for forward-mode derivatives"
    return None


def _is_exporting() -> bool:
    return torch.compiler.is_exporting()


def _is_for_onnx() -> bool:
    return torch.onnx.is_in_onnx_export()


# Called by the compiler, not traced: before torch 2.12 (tested: 2.11) the compiler assumes that `is_exporting` is true,
# so that compiled networks would not use kernels.
_is_exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]
_is_for_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_original(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is exactly of class `kind` and its `forward` was not replaced."""
    return type(module) is kind and "forward" not in vars(module)


def is_watched(module: nn.Module) -> bool:
    """Whether a call of the module runs hooks."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
    )


def is_symbolic(x: object) -> bool:
    """Whether x is a proxy in a symbolic trace of torch.fx."""
    return isinstance(x, torch.fx.Proxy)


def can_take(x: Tensor, channels: int) -> bool:
    """Whether x is a non-empty map of shape (B, `channels`, H, W) that kernels support."""
    shape = x.shape
    return len(shape) == 4 and shape[1] == channels and 0 not in shape and reason_against_map(x) is None


def reason_against_map(x: Tensor) -> str | None:
    """Returns as a clause why kernels do not support a map, regardless of its shape; None if they do."""
    kind = type(x)
    if kind is not Tensor and kind is not Parameter and _overrides_dispatch(kind):
        return f"there is no kernel for tensors of the class {kind.__name__}"
    if x.layout is not torch.strided:
        return f"there is no kernel for tensors in the layout {str(x.layout).removeprefix('torch.')}"
    return reason_against("cpu" if x.is_cpu else x.device.type, x.dtype)


def _overrides_dispatch(kind: type[Tensor]) -> bool:
    """Whether a subclass of Tensor redefines operators. torch's subclasses for tracing support registered operators."""
    is_overridden = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
    return is_overridden and not kind.__module__.startswith("torch._subclasses.")
