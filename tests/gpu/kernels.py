"""Measures the kernels: accuracy against float64, determinism, speed relative to a copy and to torch.compile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ablations.measure.speed import Act, Make
from sa_core import ShuffleAttention
from sa_core.fused import cpu, gpu
from sa_core.fused.form import Form, Parameters
from tests.benchmarks import kernel_table
from tests.benchmarks.kernel_table import Case
from tests.gpu.measuring import Options, Task, compared, on_gpu, ratio
from tests.gpu.results import Value

ERROR, REPEATED = "largest error / limit", "equal bits when repeated (1 = yes)"
LIMITS = {torch.float32: 2e-5, torch.bfloat16: 8e-3}  # of the largest error, relative to 1 + the largest value
TORCH, COMPILED = "torch's operations", "torch.compile"
RATIO = "time of the kernels, forward and backward"
LAUNCHED = {"captured": "captured as a CUDA graph", "eager": "called from Python"}
IMAGES_CHECKED = 4
# Minimum number of feature maps to read and write: forward, and backward.
LEAST = {False: (2, 3), True: (3, 5)}


def tasks(options: Options) -> Sequence[Task]:
    """Returns the tasks for kernels, the fastest first."""
    cases = [Case(16, 4, True), Case(16, 4, False, joined=True)] if options.tiny else kernel_table.CASES
    return [*_correctness(cases, options), *_bandwidth(cases, options), *_alternatives(cases, options)]


def _correctness(cases: Sequence[Case], options: Options) -> Iterator[Task]:
    for case in cases:
        for dtype in (torch.bfloat16, torch.float32):
            if case.joined or (dtype is torch.float32 and case.channels_last and not options.tiny):
                continue  # covered by the tests that need a GPU
            name = str(dtype).removeprefix("torch.")
            protocol = f"{IMAGES_CHECKED} images, normal values; limits 8e-3 (bfloat16), 2e-5 (float32)"
            act = partial(_errors, case, dtype, options)
            yield Task(f"{case}, {name}", "formula in float64", (ERROR, REPEATED), protocol, act)


def _errors(case: Case, dtype: torch.dtype, options: Options) -> Mapping[str, Value]:
    x, gradient = (_map(case, IMAGES_CHECKED, dtype, options, seed) for seed in (0, 1))
    x.requires_grad_()
    own, exact = _module(case, "on", options), _module(case, "off", options).double()
    first, second = _differentiated(own, x, gradient), _differentiated(own, x, gradient)
    wide = x.detach().double().requires_grad_()
    wanted = _differentiated(exact, wide, gradient.double())
    errors = [_distance(found, expected) for found, expected in zip(first, wanted, strict=True)]
    equal = all(map(torch.equal, first, second))
    return {ERROR: Value(max(errors) / LIMITS[dtype], IMAGES_CHECKED), REPEATED: Value(float(equal), 2)}


def _differentiated(module: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Returns the result and all gradients."""
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out, [x, *module.parameters()], gradient)]


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / (1 + expected.abs().max()))


def _bandwidth(cases: Sequence[Case], options: Options) -> Iterator[Task]:
    for case in cases:
        quantities = tuple(
            f"{mode}, {how}, % of copy bandwidth" for how in LAUNCHED for mode in ("forward", "backward")
        )
        maps = LEAST[case.joined]
        protocol = (
            f"{_images(options)} images, bfloat16; bytes of {maps[0]} (forward) and {maps[1]} (backward) maps per "
            "time, relative to those of a copy; captured: replayed as a CUDA graph; eager: called from Python"
        )
        yield Task(str(case), "copy", quantities, protocol, partial(_shares, case, options))


def _shares(case: Case, options: Options) -> Mapping[str, Value]:
    """Times the passes relative to a copy of the map; a share is the copy's time per map over that of the pass."""
    kernels = gpu if options.device == "cuda" else cpu
    x, gradient = (_map(case, _images(options), torch.bfloat16, options, seed) for seed in (0, 1))
    form, parameters = _form_and_parameters(case, options)
    shortcut = gradient if case.joined else None
    copy = torch.empty_like(x)
    out, rows, moments = kernels.forward(form, parameters, x, shortcut, None, None)
    kept = out if case.joined else None
    acts: dict[str, Act] = {
        "copy": lambda: copy.copy_(x),
        "forward": lambda: kernels.forward(form, parameters, x, shortcut, None, None),
        "backward": lambda: kernels.backward(form, parameters, gradient, x, kept, rows, moments, None),
    }
    found = {}
    for how in LAUNCHED if options.device == "cuda" else ("eager",):
        makes: dict[str, Make] = {name: partial(_same, act) for name, act in acts.items()}
        if how == "captured":
            makes = {name: on_gpu(make) for name, make in makes.items()}
        samples = compared(makes, "copy", options, seconds=1.0)
        for mode, maps in zip(("forward", "backward"), LEAST[case.joined], strict=True):
            found[f"{mode}, {how}, % of copy bandwidth"] = ratio(samples, mode, 100 * maps / 2, inverse=True)
    return found


def _same(act: Act) -> Act:
    return act


def _alternatives(cases: Sequence[Case], options: Options) -> Iterator[Task]:
    for case in cases:
        if case.joined or case.side not in (4, 56, 14):
            continue
        # Compiling takes half a minute, so only one layout is measured.
        others = (TORCH, COMPILED) if case.channels_last and not options.tiny else (TORCH,)
        for other in others:
            protocol = f"{_images(options)} images, bfloat16, forward and backward; on a GPU captured as CUDA graphs"
            yield Task(str(case), other, (RATIO,), protocol, partial(_beside, case, other, options))


def _beside(case: Case, other: str, options: Options) -> Mapping[str, Value]:
    x, gradient = (_map(case, _images(options), torch.bfloat16, options, seed) for seed in (0, 1))
    x.requires_grad_()
    own, eager = _module(case, "on", options), _module(case, "off", options)
    called: Any = torch.compile(eager, dynamic=False) if other == COMPILED else eager

    def act(run: Any, module: nn.Module) -> Act:
        return lambda: torch.autograd.grad(run(x), [x, *module.parameters()], gradient)

    makes: dict[str, Make] = {"kernels": lambda: act(own, own), other: lambda: act(called, eager)}
    if options.device == "cuda":
        makes = {name: on_gpu(make) for name, make in makes.items()}
    return {RATIO: ratio(compared(makes, other, options, seconds=1.0), "kernels")}


def _images(options: Options) -> int:
    return 2 if options.tiny else 256


def _groups(case: Case) -> int:
    return min(kernel_table.GROUPS, case.channels // 4)


def _module(case: Case, fused: str, options: Options) -> ShuffleAttention:
    module = ShuffleAttention(case.channels, _groups(case), fused=fused)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.to(options.torch_device)


def _map(case: Case, images: int, dtype: torch.dtype, options: Options, seed: int) -> Tensor:
    generator = torch.Generator(options.torch_device).manual_seed(seed)
    shape = (images, case.channels, case.side, case.side)
    drawn = torch.randn(shape, generator=generator, device=options.torch_device, dtype=dtype)
    return drawn.contiguous(memory_format=torch.channels_last if case.channels_last else torch.contiguous_format)


def _form_and_parameters(case: Case, options: Options) -> tuple[Form, Parameters]:
    groups = _groups(case)
    form = Form(groups, case.channels // (2 * groups), True, "instance", 2, "batch" if case.joined else "none")
    widths = form.widths(case.channels)
    drawn = [torch.randn(width, device=options.torch_device) for width in (widths if case.joined else widths[:6])]
    return form, Parameters(*drawn)
