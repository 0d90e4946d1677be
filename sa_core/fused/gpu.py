"""The operator on GPUs: plans how maps are cut into tiles, and launches the kernels of `sa_core.fused.triton_kernels`.

    number of kernels     whole rows     rows in parts     batch statistics
    forward               1              2                 3
    backward              3              4                 4

A row (a channel of an image) is processed by one program if there are enough rows for all multiprocessors, and read
from memory once if it fits into a tile. Otherwise it is cut into parts. Their results are merged in a fixed order, so
that they do not depend on the order of the programs.

Triton is optional and slow to import, so it is imported at its first use.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sa_core.fused.form import Form, Parameters, layout_of, new_gradients, new_results
from sa_core.triton_build import reason_against_triton

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_PROGRAMS = 264  # two per multiprocessor of an H100: with fewer programs, rows are cut into parts
_TILE = 4096  # maximum number of values in a tile
_WHOLE = 2  # factor by which a tile may be larger if the map is then read only once
_LOOPED = 2048  # values per tile if a channels_last map needs several: more programs fit a multiprocessor
_SHORT = 2048  # a tile has several rows, up to this number of values
_BYTES = 64  # of adjacent channels: two memory sectors, one for each of the two halves that the shuffle interleaves
_CHANNELS = 8  # channels per tile of the kernels that sum over images: one memory sector of float32
_IMAGES = 128  # maximum number of images per tile of these kernels
_WARPS = 4  # warps of these kernels


@cache
def load() -> Any:
    """Returns the module of the kernels; None if Triton cannot be imported."""
    try:
        return import_module("sa_core.fused.triton_kernels")
    except ImportError:
        return None


@cache
def supports(dtype: torch.dtype) -> bool:
    """Whether the kernels support feature maps of this type on this machine."""
    return dtype in _DTYPES and reason_against() is None


@cache
def reason_against() -> str | None:
    """Returns the reason why the kernels cannot be used on this machine, as a clause; None if they can.

    If there is a GPU, the reason is also issued as a warning, once per process.
    """
    is_interpreted, has_gpu = os.environ.get("TRITON_INTERPRET") == "1", torch.cuda.is_available()
    if not (is_interpreted or has_gpu):
        return "no CUDA device is available"
    reason = reason_against_triton() or (None if load() is not None else "triton cannot be imported")
    if reason and has_gpu:
        warnings.warn(f"shuffle attention on GPUs is computed by torch's operations: {reason}", stacklevel=2)
    return reason


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
    """Computes the operator of `sa_core.fused.operator`; arguments as there, results as in `new_results`.

    `rows` is always computed, whatever `kept` is, as the kernels use it to exchange statistics.
    """
    del kept
    out, rows, moments = results = new_results(x, form)
    layout = layout_of(x)
    x, shortcut = x.contiguous(memory_format=layout), _in(layout, shortcut)
    plan = _plan(x, form, permutation)
    images, channels, positions = x.shape[0], x.shape[1], x[0, 0].numel()
    measured, known = None, "not yet"
    norm: tuple[Tensor | None, ...] = (None, None, None)
    with _on(x):
        if not plan.is_whole:
            measured, known = torch.empty((2, plan.parts, images, channels), device=x.device), "parts"
            arguments: tuple[Any, ...] = (x, measured, permutation, *plan.sizes, plan.span, plan.parts)
            launch_kernel("statistics_kernel", plan.grid, _warps(plan, 256), arguments, plan.tiles)
        if form.norm == "running":
            assert running is not None, "the operator is told what this batch norm uses"
            norm = (running[0].float().contiguous(), running[1].float().contiguous(), None)
        elif moments is not None:
            known, norm = "rows", tuple(moments)
            arguments = (x, measured, rows, moments, images, channels, positions, plan.span, plan.parts)
            constants = {
                "channels_last": plan.tiles["channels_last"],
                "tile_images": _tile_images(images),
                "tile_channels": _CHANNELS,
            }
            launch_kernel("moments_kernel", (math.ceil(channels / _CHANNELS), 1), _WARPS, arguments, constants)
        arguments = (
            x,
            shortcut,
            out,
            rows,
            measured,
            moments if form.norm == "running" else None,
            *norm,
            *_learnt(parameters),
            permutation,
            *plan.sizes,
            x.shape[1] // form.groups,
            form.split,
            plan.span,
            plan.parts,
            form.gn_epsilon,
            form.bn_epsilon,
        )
        constants = {
            **plan.tiles,
            "looped": plan.looped,
            **_gates(form),
            "known": known,
            "tile_parts": _power_of_two(plan.parts),
        }
        launch_kernel("forward_kernel", plan.grid, _warps(plan, 512), arguments, constants)
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
    """Computes the gradients, as in `new_gradients`; `out` is the forward result if it ended in a ReLU, or None."""
    grad_x, grad_shortcut, grad_gates, grad_bn = gradients = new_gradients(x, form, joined=out is not None)
    layout = layout_of(x)
    x, out, grad_out = x.contiguous(memory_format=layout), _in(layout, out), grad_out.contiguous(memory_format=layout)
    plan = _plan(x, form, permutation)
    images, channels, positions = x.shape[0], x.shape[1], x[0, 0].numel()
    group_channels = channels // form.groups
    device = x.device
    sums = torch.empty((2 if moments is None else 4, plan.parts, images, channels), device=device)
    totals = torch.empty((2, channels), dtype=torch.float64, device=device)
    linear = None if plan.is_whole else torch.empty((2, images, channels), device=device)
    batch_linear = torch.empty((2, channels), device=device) if form.norm == "batch" else None
    norm = (None, None, None) if moments is None else tuple(moments)
    learnt = _learnt(parameters)

    def work_on(grad: Tensor, out: Tensor | None, sums_up: bool, writes: bool) -> None:
        arguments = (
            grad,
            x,
            out,
            grad_x,
            None if out is None else grad_shortcut,
            rows,
            sums,
            linear,
            batch_linear,
            *norm,
            *learnt,
            permutation,
            *plan.sizes,
            group_channels,
            form.split,
            plan.span,
            plan.parts,
            form.gn_epsilon,
            form.bn_epsilon,
        )
        constants = {
            **plan.tiles,
            "looped": plan.looped,
            **_gates(form),
            "sums_up": sums_up,
            "writes": writes,
        }
        # Values per warp: with fewer, a thread loads 8 bytes of a channels_last map instead of 16; with more and a
        # batch norm, a thread needs so many registers that half as many warps fit a multiprocessor.
        values = 512 if plan.tiles["channels_last"] and form.norm == "none" else 256
        launch_kernel("backward_kernel", plan.grid, _warps(plan, values), arguments, constants)

    with _on(x):
        work_on(grad_out, out, True, plan.is_whole)
        arguments = (
            x,
            rows,
            sums,
            linear,
            batch_linear,
            totals,
            grad_bn,
            *norm,
            *learnt,
            images,
            channels,
            positions,
            group_channels,
            form.split,
            plan.parts,
            form.gn_epsilon,
            form.bn_epsilon,
        )
        constants = {
            "channels_last": plan.tiles["channels_last"],
            **_gates(form),
            "tile_images": _tile_images(images),
            "tile_channels": _CHANNELS,
        }
        launch_kernel("channels_kernel", (math.ceil(channels / _CHANNELS), 1), _WARPS, arguments, constants)
        shared = (parameters.sweight, parameters.gn_weight, parameters.gn_bias)
        arguments = (totals, grad_gates, *shared, channels, group_channels, form.split, grad_gates.shape[1])
        constants = {
            "spatial_gate": form.spatial_gate,
            "tile_groups": min(64, _power_of_two(form.groups)),
            "tile_within": _CHANNELS,
        }
        launch_kernel("gates_kernel", (math.ceil(group_channels / _CHANNELS), 1), _WARPS, arguments, constants)
        if not plan.is_whole:
            work_on(grad_out if grad_shortcut is None else grad_shortcut, None, False, True)
    return gradients


class _Tiling(NamedTuple):
    """The tiling of a feature map.

    Args:
        grid: number of programs: images times blocks of rows, and parts of a row.
        sizes: images, channels and positions; channels and positions are divided by their alignment.
        span: positions per part.
        parts: parts per row.
        looped: whether a program processes several tiles in sequence.
        is_whole: whether one program processes whole rows, from statistics to results.
        tiles: compile-time constants of the kernels.
    """

    grid: tuple[int, int]
    sizes: tuple[int, int, int]
    span: int
    parts: int
    looped: bool
    is_whole: bool
    tiles: dict[str, Any]


_NUMBERS = {int, float, type(None)}  # types of the arguments other than tensors
_prepared: dict[tuple[Any, ...], tuple[Callable[..., object], tuple[Any, ...]]] = {}


def launch_kernel(
    name: str, grid: tuple[int, int], warps: int, arguments: tuple[Any, ...], constants: dict[str, Any]
) -> None:
    """Launches a kernel on the current device and stream.

    Triton selects the compiled kernel for the arguments at every launch, which takes ten times as long as the launch
    itself. Here the selection is cached, with the properties on which Triton specializes kernels as the key.

    Args:
        name: name of the kernel.
        grid: number of programs along both axes.
        warps: number of warps of a program.
        arguments: in the order of the kernel's parameters; the first is a tensor.
        constants: compile-time constants by parameter name; they follow the other parameters.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        getattr(load(), name)[grid](*arguments, **constants)
        return
    kinds = [
        argument if type(argument) in _NUMBERS else (argument.dtype, argument.data_ptr() % 16) for argument in arguments
    ]
    key = (name, arguments[0].get_device(), grid, warps, *constants.values(), *kinds)
    prepared = _prepared.get(key)
    if prepared is None:
        kernel = getattr(load(), name)
        compiled = kernel.warmup(*arguments, grid=grid, **constants, num_warps=warps)
        values = tuple(constants[parameter] for parameter in kernel.arg_names[len(arguments) :])
        prepared = _prepared[key] = (compiled[*grid, 1], values)
    run, values = prepared
    run(*arguments, *values)


def _plan(x: Tensor, form: Form, permutation: Tensor | None) -> _Tiling:
    """Returns the tiling of a map; it depends only on shape, type, layout and form."""
    images, channels, height, width = x.shape
    return plan_tiles(
        images,
        channels,
        height * width,
        x.element_size(),
        layout_of(x) is torch.channels_last,
        1 if permutation is not None else form.shuffle_groups,
        permutation is not None,
        form.norm == "batch",
    )


@cache
def plan_tiles(
    images: int,
    channels: int,
    positions: int,
    size: int,
    channels_last: bool,
    shuffle_groups: int,
    permuted: bool,
    awaited: bool,
) -> _Tiling:
    """Returns the tiling of maps with `positions` positions and elements of `size` bytes."""
    whole = _power_of_two(positions)
    if channels_last:
        rows = min(_power_of_two(channels), max(_BYTES // size, min(64, _TILE // whole)))
        width = whole if whole * rows <= _WHOLE * _TILE else max(1, _LOOPED // rows)
    else:
        width = min(whole, _TILE)
        rows = min(_power_of_two(channels), max(1, _SHORT // width))
    steps = math.ceil(positions / width)
    programs = images * math.ceil(channels / rows)
    parts = max(1, min(steps, math.ceil(_PROGRAMS / max(1, programs))))
    span = math.ceil(steps / parts) * width
    parts = math.ceil(positions / span)
    channel_align, position_align = math.gcd(channels, 16), math.gcd(positions, 16)
    return _Tiling(
        grid=(programs, parts),
        sizes=(images, channels // channel_align, positions // position_align),
        span=span,
        parts=parts,
        looped=span > width,
        is_whole=parts == 1 and not awaited,
        tiles={
            "channel_align": channel_align,
            "position_align": position_align,
            "channels_last": channels_last,
            "shuffle_groups": shuffle_groups,
            "paired": channels_last and shuffle_groups == 2 and not permuted,
            "tile_rows": rows,
            "tile_width": width,
        },
    )


def _warps(plan: _Tiling, values: int) -> int:
    """Returns the number of warps for a tile with `values` values per warp."""
    size: int = plan.tiles["tile_rows"] * plan.tiles["tile_width"]
    return min(16, max(1, size // values))


def _tile_images(images: int) -> int:
    return min(_IMAGES, _power_of_two(images))


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << max(0, number - 1).bit_length()


def _gates(form: Form) -> dict[str, Any]:
    return {"channel_gate": form.channel_gate, "spatial_gate": form.spatial_gate, "normed": form.norm != "none"}


def _learnt(parameters: Parameters) -> tuple[Tensor | None, ...]:
    """Returns the parameters in the order of the kernels: those of the batch norm, then those of the gates."""
    each = [value if value is None else value.contiguous() for value in parameters]
    return *each[6:], *each[:6]


def _in(layout: torch.memory_format, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous(memory_format=layout)


def _on(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the device of x current, as Triton launches kernels on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
