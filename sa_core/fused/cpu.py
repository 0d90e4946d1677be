"""The operator on CPUs: loads and calls the library that the installation has built from `kernels/`.

There is one library per supported instruction set. Without a compiler at installation there is none, and shuffle
attention is computed by torch's operations.
"""

from __future__ import annotations

import ctypes
import struct
import sysconfig
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from sa_core.fused.form import Form, Parameters, layout_of, new_gradients, new_results

_BUILDS = {"AVX512": ("avx512", "avx2", "generic"), "AVX2": ("avx2", "generic")}  # by torch's CPU capability
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_SPATIAL_GATES = {"none": 0, "instance": 1, "plain": 2}
_NORMS = {"none": 0, "running": 1, "batch": 2}
_PROBLEM = struct.Struct("=12q9q2d10q")  # `Problem` of kernels/problem.h; addresses are integers
_NO_GRADIENTS = (None,) * 4
_INVALID_PERMUTATION = 2  # return code of the library


@cache
def load() -> ctypes.CDLL | None:
    """Returns the library for this CPU, None if there is none."""
    for build in _BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("generic",)):
        path = Path(__file__).with_name(f"_{build}{sysconfig.get_config_var('EXT_SUFFIX')}")
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # not built, or for another system
            continue
        library.shuffle_attention.argtypes = (ctypes.c_char_p,)
        return library
    return None


@cache
def supports(dtype: torch.dtype) -> bool:
    """Whether there is a kernel for feature maps of this type."""
    library = load()
    return library is not None and dtype in _DTYPES and (dtype != torch.float16 or bool(library.has_half()))


def reason_against() -> str | None:
    """Returns why no map can be worked on here, as a clause; None where maps can."""
    return None if load() is not None else "no C++ compiler was found at installation"


def forward(
    form: Form,
    parameters: Parameters,
    x: Tensor,
    shortcut: Tensor | None,
    running: tuple[Tensor, Tensor] | None,
    permutation: Tensor | None,
    *,
    kept: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Computes the operator (arguments: `sa_core.fused.operator`); returns the tensors of `new_results`."""
    out, rows, moments = results = new_results(x, form, kept=kept)
    if running is not None:
        torch.stack((*running, torch.zeros_like(running[0])), out=moments)
    _call(form, (permutation, *parameters), (x, shortcut, out, None), (rows, moments), ())
    return results


def backward(
    form: Form,
    parameters: Parameters,
    grad_out: Tensor,
    x: Tensor,
    out: Tensor | None,
    rows: Tensor,
    moments: Tensor | None,
    permutation: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Computes the gradients; `out` is the result if it ends in a ReLU. Returns the tensors of `new_gradients`."""
    gradients = new_gradients(x, form, joined=out is not None)
    _call(form, (permutation, *parameters), (x, None, out, grad_out), (rows, moments), gradients)
    return gradients


def _call(
    form: Form,
    parameters: tuple[Tensor | None, ...],
    maps: tuple[Tensor | None, ...],
    kept: tuple[Tensor | None, ...],
    gradients: tuple[Tensor | None, ...],
) -> None:
    """Calls the library; `maps` are x, shortcut, out and the gradient of out."""
    x, library = maps[0], load()
    assert x is not None
    assert library is not None, "callers check supports() first"
    images, channels, height, width = x.shape
    layout = layout_of(x)
    # References that keep contiguous copies alive until the call returns.
    maps = tuple([tensor if tensor is None else tensor.contiguous(memory_format=layout) for tensor in maps])
    parameters = tuple([tensor if tensor is None else tensor.contiguous() for tensor in parameters])
    problem = _PROBLEM.pack(
        images,
        channels,
        height * width,
        channels // form.groups,
        form.split,
        form.shuffle_groups,
        form.channel_gate,
        _SPATIAL_GATES[form.spatial_gate],
        _NORMS[form.norm],
        _DTYPES[x.dtype],
        layout is torch.channels_last,
        torch.get_num_threads(),
        *[0 if tensor is None else tensor.data_ptr() for tensor in parameters],
        form.gn_epsilon,
        form.bn_epsilon,
        *[0 if tensor is None else tensor.data_ptr() for tensor in (*kept, *maps, *(gradients or _NO_GRADIENTS))],
    )
    code = library.shuffle_attention(problem)
    if code == _INVALID_PERMUTATION:
        raise IndexError("the permutation of shuffle attention must contain every channel once")
    assert code == 0, "callers check supports() first"
