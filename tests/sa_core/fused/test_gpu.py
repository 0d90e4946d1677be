"""Tests the Triton kernels against the formula in float64: in the interpreter, compiled without a GPU, and on a GPU.

Triton chooses between compiler and interpreter when it is imported, so the interpreter runs this file in a subprocess.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from sa_core import ShuffleAttention
from sa_core.fused import gpu
from sa_core.fused.form import Form, Parameters
from tests.sa_core.fused.compiled import compiling
from tests.wording import worded

# In float32, eager torch has the same error in sums with cancellation, such as the gradient of sweight.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
LARGE = 1e4
Tiles = Mapping[str, int]
WHOLE: Tiles = {}
# Rows of several tiles; rows cut into parts of several tiles; rows cut into parts of one tile.
SMALL: Tiles = {"_TILE": 1024, "_LOOPED": 1024, "_WHOLE": 1, "_SHORT": 4096}
LOOPED: Tiles = {**SMALL, "_PROGRAMS": 1}
PARTS: Tiles = {**SMALL, "_PROGRAMS": 3}
ALL_PARTS: Tiles = {**SMALL, "_PROGRAMS": 1000}


class Case(NamedTuple):
    """A test case; `learnt` is whether there are parameters, `constant` whether some channels are constant."""

    shape: tuple[int, int, int, int] = (2, 16, 5, 7)
    groups: int = 2
    knobs: Mapping[str, Any] = {}
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    norm: str = "none"
    joined: bool = False
    tiles: Tiles = WHOLE
    mean: float = 0
    constant: bool = False
    learnt: bool = True


def cases() -> Iterator[tuple[str, Case]]:
    """Yields test cases with their topic."""
    layouts, norms = (False, True), ("none", "running", "batch")
    for last in layouts:
        for norm in norms:
            for joined in (False, True):
                for dtype in LIMITS:
                    case = Case(dtype=dtype, channels_last=last, norm=norm, joined=joined)
                    yield "types, layouts and norms", case
            shuffles: tuple[Mapping[str, Any], ...]
            shuffles = ({"shuffle": False}, {"shuffle_groups": 4}, {"permutation": "random"}, {})
            for i, knobs in enumerate(shuffles):
                yield "shuffles", Case(knobs=knobs, channels_last=last, norm=norm, joined=i % 2 == 0)
                yield "shuffles", Case((1, 12, 4, 4), 3, {**knobs}, torch.bfloat16, last, "none", i % 2 == 1)
            yield "shuffles", Case((2, 58, 3, 3), 29, channels_last=last, norm=norm, joined=True)
            yield "shuffles", Case((1, 64, 3, 3), 8, channels_last=last)
            for knobs in (
                {"branches": "channel"},
                {"branches": "spatial"},
                {"branches": "none"},
                {"branches": "channel", "removed": "reassign"},
                {"branches": "spatial", "removed": "reassign"},
                {"norm": "none"},
                {"branches": "spatial", "norm": "none", "removed": "reassign"},
                {"norm_affine": False},
                {"transform": "none"},
            ):
                yield "gates", Case(knobs=knobs, channels_last=last, norm=norm, joined=norm == "running")
            yield "gates", Case(channels_last=last, norm=norm, learnt=False)
            for tiles in (LOOPED, PARTS, ALL_PARTS):
                shape = (2, 8, 20, 17) if last else (2, 4, 51, 50)
                yield "sizes", Case(shape, 2, {}, torch.float32, last, norm, norm != "none", tiles)
            yield "sizes", Case((2, 12, 30, 31), 3, {}, torch.float16, last, norm)
            yield "sizes", Case((3, 16, 1, 1), channels_last=last, norm=norm, joined=True)
            # With a large mean, the variance loses accuracy unless sums are centred.
            yield "means", Case((2, 8, 9, 9), mean=LARGE, channels_last=last, norm=norm)
            yield "means", Case((2, 4, 37, 37), mean=LARGE, channels_last=last, norm=norm, tiles=PARTS)
            yield "means", Case(constant=True, channels_last=last, norm=norm, joined=True)
        yield "sizes", Case((2, 128, 2, 2), 64, channels_last=last, norm="running")
        yield "sizes", Case((1, 2, 65, 65), 1, {}, torch.float16, last, "none", True)
        yield "sizes", Case((1, 2, 65, 65), 1, {}, torch.bfloat16, last, "running", True, PARTS)
        yield (
            "sizes",
            Case((5, 4, 2, 2), channels_last=last, norm="batch", tiles={"_IMAGES": 2}),
        )  # more images than in one tile


TOPICS = tuple(dict.fromkeys(topic for topic, _ in cases()))
SHARES = 4  # parts of a topic on a GPU, run in parallel processes, as compiling takes minutes


def errors_of(case: Case, device: str) -> dict[str, float]:
    """Returns the errors of results and gradients, relative to the largest magnitude of each."""
    torch.manual_seed(0)
    channels, norm = case.shape[1], case.norm
    module = ShuffleAttention(channels, case.groups, **case.knobs)
    bn = nn.BatchNorm2d(channels).train(norm == "batch")
    for parameter in (*module.parameters(), *bn.parameters()):
        parameter.data.normal_()
    if not case.learnt:
        for name, parameter in (*module.named_parameters(), *bn.named_parameters()):
            parameter.data.fill_(float(name.endswith("weight")))
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.normal_().add_(case.mean)
    bn.running_var.uniform_(0.5, 2)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    x = torch.randn(case.shape) + case.mean
    if case.constant:
        x[:, ::3] = 1.5
    x = x.to(case.dtype).contiguous(memory_format=layout)
    shortcut, grad = torch.randn(case.shape).to(case.dtype), torch.randn(case.shape).to(case.dtype)

    form, names = _form_of(module, norm), ("cweight", "cbias", "sweight", "sbias", "gn.weight", "gn.bias")
    learnt: dict[str, Tensor] = dict(module.named_parameters()) if case.learnt else {}
    bn_learnt = tuple(bn.parameters()) if case.learnt and norm != "none" else (None, None)
    given = Parameters(*[_on(device, value) for value in (*map(learnt.get, names), *bn_learnt)])
    running = (bn.running_mean.to(device), bn.running_var.to(device)) if norm == "running" else None
    permutation = _on(device, dict(module.named_buffers()).get("permutation"))
    beside = shortcut.to(device) if case.joined else None
    out, rows, moments = gpu.forward(form, given, x.to(device), beside, running, permutation)
    kept = out if case.joined else None
    gradients = gpu.backward(form, given, grad.to(device), x.to(device), kept, rows, moments, permutation)
    assert out.shape == x.shape
    assert out.dtype == gradients[0].dtype == case.dtype
    assert out.stride() == gradients[0].stride() == x.stride()
    out, rows = out.cpu(), rows.cpu().double()

    module, bn = module.double(), bn.double()
    exact = x.double().requires_grad_()
    y = module(bn(exact) if norm != "none" else exact)
    expected = torch.relu(y + shortcut.double()) if case.joined else y
    passed = grad.double() * (out > 0 if case.joined else 1)
    leaves = {"x": exact, **dict(module.named_parameters())}
    if norm != "none":
        leaves |= {"bn.weight": bn.weight, "bn.bias": bn.bias}
    wanted = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), passed), strict=True))
    found = {"x": gradients[0]} | {name: gradients[2][i] for i, name in enumerate(names)}
    if gradients[3] is not None:
        found |= {"bn.weight": gradients[3][0], "bn.bias": gradients[3][1]}
    compared = {name: (found[name][: wanted[name].numel()].view(wanted[name].shape), wanted[name]) for name in wanted}
    compared["out"] = (out, expected.detach())
    if case.joined:
        assert gradients[1] is not None
        compared["shortcut"] = (gradients[1], passed)
    flat, first = x.double().flatten(2), x[:, :, 0, 0].double()
    compared["row means"], compared["row variances"] = (rows[0], flat.mean(2) - first), (rows[1], flat.var(2, False))
    if norm == "batch":
        assert moments is not None
        variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
        compared["means"] = (moments[0].cpu().double() + moments[2].cpu().double() - case.mean, mean - case.mean)
        compared["variances"] = (moments[1], variance)
    return {name: _distance(*pair) for name, pair in compared.items()}


def _form_of(module: ShuffleAttention, norm: str) -> Form:
    knobs, width = module.knobs, module.channels // module.groups
    split = width // 2
    if knobs.removed == "reassign":
        split = width if knobs.has_channel_branch else 0
    spatial = {"instance": "instance", "none": "plain"}[knobs.norm] if knobs.has_spatial_branch else "none"
    return Form(
        module.groups, split, knobs.has_channel_branch, spatial, knobs.shuffle_groups if knobs.shuffle else 1, norm
    )


def _on(device: str, value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone().to(device)


def _distance(found: Tensor, expected: Tensor) -> float:
    difference = (found.cpu().double() - expected).abs().max()
    return float(difference / (1 + expected.abs().max()))


def worst_of(topic: str, device: str, share: slice = slice(None)) -> tuple[dict[str, float], list[str]]:
    """Returns the largest error of each type, and the failures, for a share of a topic's cases."""
    worst: dict[str, float] = {}
    wrong = []
    for case in [case for name, case in cases() if name == topic][share]:
        with pytest.MonkeyPatch.context() as patch:
            gpu.plan_tiles.cache_clear()
            for size, value in case.tiles.items():
                patch.setattr(gpu, size, value)
            errors = errors_of(case, device)
        gpu.plan_tiles.cache_clear()
        kind = str(case.dtype).removeprefix("torch.")
        worst[kind] = max(worst.get(kind, 0), *errors.values())
        limit = LIMITS[case.dtype]
        # also true for NaN
        wrong += [f"{key} {error:.1e}: {case}" for key, error in errors.items() if not error <= limit]
    return worst, wrong


Worst = dict[str, tuple[dict[str, float], list[str]]]


def _run(*arguments: str, **variables: str) -> Any:
    """Runs this file in a subprocess, and returns its parsed output."""
    command = [sys.executable, "-m", "tests.sa_core.fused.test_gpu", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,  # minutes, on a slow machine
        cwd=Path(__file__).parents[3],
        env={**{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}, **variables},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> Worst:
    pytest.importorskip("triton", reason="needs triton")
    found: Worst = _run("interpret", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_interpreted_kernels_compute_the_formula(interpreted: Worst, topic: str) -> None:
    worst, wrong = interpreted[topic]
    assert not wrong, "\n".join(wrong)
    assert worst


@pytest.mark.cuda(compiles=True)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("topic", TOPICS)
def test_kernels_compute_the_formula_on_a_gpu(topic: str, share: int) -> None:
    worst, wrong = worst_of(topic, "cuda", slice(share, None, SHARES))
    assert worst
    assert not wrong, "\n".join(wrong)


@pytest.mark.cuda
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_on_a_gpu_are_deterministic(channels_last: bool) -> None:
    case = Case((64, 64, 28, 28), 8, {}, torch.bfloat16, channels_last, "batch", True)
    assert errors_of(case, "cuda") == errors_of(case, "cuda")


def test_all_kernels_compile_without_a_gpu(tmp_path: Path) -> None:
    """The interpreter accepts code that the compiler rejects, such as a type that changes in a loop."""
    pytest.importorskip("triton", reason="needs triton")
    launched = _run("compile", TRITON_CACHE_DIR=str(tmp_path))
    assert set(launched) == {
        "statistics_kernel",
        "moments_kernel",
        "forward_kernel",
        "backward_kernel",
        "channels_kernel",
        "gates_kernel",
    }


def test_a_launch_is_prepared_once_per_shape_and_equals_that_of_triton(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    found = _run("prepare", TRITON_CACHE_DIR=str(tmp_path))
    assert found["first"] == len(found["launched"]) > 0
    assert found["again"] == 0
    assert found["launched again"] == found["launched"] == found["launched by triton"]
    for other in ("other images", "other type", "unaligned"):
        assert found[other] > 0


@pytest.fixture
def cleared_checks() -> Iterator[Callable[[], None]]:
    """Clears the cached checks for kernel support: within a test when called, and after it."""

    def forget() -> None:
        for answer in (gpu.supports, gpu.reason_against, gpu.load):
            getattr(answer, "cache_clear", lambda: None)()

    forget()
    yield forget
    forget()


def test_without_triton_there_is_no_support(
    cleared_checks: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "triton", None)
        patch.delitem(sys.modules, "sa_core.fused.triton_kernels", raising=False)
        patch.setenv("TRITON_INTERPRET", "1")
        cleared_checks()
        assert not gpu.supports(torch.float32)
        assert gpu.reason_against() == worded("fused.no_triton")


def test_without_a_gpu_only_the_interpreter_is_supported(
    cleared_checks: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="needs triton")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(gpu, "load", object)
        for value, dtype, supported in (
            ("0", torch.float32, False),
            ("1", torch.float32, True),
            ("1", torch.bfloat16, True),
            ("1", torch.float16, True),
            ("1", torch.float64, False),
        ):
            patch.setenv("TRITON_INTERPRET", value)
            cleared_checks()
            assert gpu.supports(dtype) is supported


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("images", [1, 8, 256])
@pytest.mark.parametrize(("channels", "positions"), [(64, 56 * 56), (58, 28 * 28), (2048, 49), (16, 1), (3, 224 * 224)])
def test_the_parts_of_a_plan_cover_a_row_and_their_programs_all_rows(
    channels: int, positions: int, images: int, channels_last: bool
) -> None:
    plan = gpu.plan_tiles(images, channels, positions, 2, channels_last, 2, False, False)
    rows, width = plan.tiles["tile_rows"], plan.tiles["tile_width"]
    programs, parts = plan.grid
    assert (parts - 1) * plan.span < positions <= parts * plan.span
    assert plan.span % width == 0
    assert plan.looped == (plan.span > width)
    assert plan.is_whole == (parts == 1)
    assert programs == images * -(-channels // rows)


def test_rows_of_ordinary_networks_are_read_once() -> None:
    for channels, positions in ((256, 56 * 56), (512, 28 * 28), (1024, 14 * 14), (2048, 7 * 7)):
        plan = gpu.plan_tiles(64, channels, positions, 2, False, 2, False, False)
        assert plan.is_whole
        assert not plan.looped


def _compile() -> list[str]:
    """Compiles kernels in many forms without a GPU; returns the names of the compiled kernels."""
    with compiling() as launches:
        for case in (
            Case((2, 64, 7, 7), 8),
            Case((1, 58, 28, 28), 29, {}, torch.bfloat16, True, "running", True),
            Case((2, 64, 14, 14), 8, {"permutation": "random"}, torch.float16, True, "batch", True),
            Case((300, 4, 65, 65), 1, {"norm": "none"}, torch.bfloat16),
        ):
            layout = torch.channels_last if case.channels_last else torch.contiguous_format
            x = torch.zeros(case.shape, dtype=case.dtype).contiguous(memory_format=layout)
            module = ShuffleAttention(case.shape[1], case.groups, **case.knobs)
            form, c = _form_of(module, case.norm), case.shape[1]
            parameters = Parameters(*[torch.zeros(form.split)] * 4)
            running = (torch.zeros(c), torch.zeros(c)) if case.norm == "running" else None
            permutation = dict(module.named_buffers()).get("permutation")
            out, rows, moments = gpu.forward(form, parameters, x, x if case.joined else None, running, permutation)
            gpu.backward(form, parameters, x, x, out if case.joined else None, rows, moments, permutation)
    return sorted({launch.kernel for launch in launches})


def _prepare() -> dict[str, Any]:
    """Launches kernels several times on a simulated GPU; returns how often Triton selected a compiled kernel."""
    from triton.runtime.jit import JITFunction

    looked: list[str] = []
    run = JITFunction.run

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        looked.append(self.fn.__name__)
        return run(self, *arguments, **options)

    JITFunction.run = noted
    form = Form(8, 4, True, "instance", 2, "batch")
    parameters = Parameters(*map(torch.ones, form.widths(64)))

    def passes(x: Tensor) -> int:
        before = len(looked)
        out, rows, moments = gpu.forward(form, parameters, x, x, None, None)
        gpu.backward(form, parameters, x, x, out, rows, moments, None)
        return len(looked) - before

    with compiling() as launches:
        x = torch.zeros(2, 64, 14, 14)
        found: dict[str, Any] = {"first": passes(x)}
        found["launched"] = _described(launches)
        launches.clear()
        found["again"] = passes(torch.zeros_like(x))
        found["launched again"] = _described(launches)
        found["other images"] = passes(torch.zeros(3, 64, 14, 14))
        found["other type"] = passes(x.half())
        found["unaligned"] = passes(torch.zeros(x.numel() + 1)[1:].view(x.shape))

        def as_triton_does(name: str, grid: Any, warps: int, arguments: Any, constants: Any) -> None:
            getattr(gpu.load(), name)[grid](*arguments, **constants, num_warps=warps)

        gpu.launch_kernel = as_triton_does
        launches.clear()
        passes(x)
        found["launched by triton"] = _described(launches)
    return found


def _described(launches: Any) -> list[Any]:
    """Returns kernels, programs and arguments; tensors are replaced by dtype and shape."""
    return [
        [
            launch.kernel,
            launch.programs,
            launch.warps,
            {name: _plain(value) for name, value in launch.arguments.items()},
        ]
        for launch in launches
    ]


def _plain(value: Any) -> Any:
    return [str(value.dtype), *value.shape] if isinstance(value, Tensor) else value


if __name__ == "__main__":
    DONE = {"compile": _compile, "prepare": _prepare}
    print(json.dumps(DONE.get(sys.argv[1], lambda: {topic: worst_of(topic, "cpu") for topic in TOPICS})()))
