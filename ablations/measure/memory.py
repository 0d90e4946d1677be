"""What a module or network takes in memory: at its peak, and for backward. Knows nothing of training."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ablations.common.sizes import MIB


def peak_memory(step: Callable[[], object], persistent: Iterable[Tensor], device: torch.device) -> float:
    """Measures the peak memory of a step in MiB: what persists plus the most that the step allocates at a time.

    On a GPU the caching allocator's counters are read, on the CPU every allocation that the profiler sees is summed:
    both count what torch's allocators hand out, and neither the data set nor the Python process.

    Args:
        step: runs once what is measured, a training step or an inference, and frees all that it allocated: the outputs
            are dropped, and gradients set to None.
        persistent: weights, buffers and optimizer state; may be empty.
        device: where the step runs.
    """
    held = sum(tensor.nbytes for tensor in persistent)
    return (held + (_peak_cuda(step) if device.type == "cuda" else _peak_cpu(step))) / MIB


def saved_bytes(module: nn.Module, *inputs: Tensor) -> int:
    """Counts the bytes that autograd keeps for backward after a forward pass in training mode, on any device.

    Counted are whole storages, each once: a view that is kept keeps all of what it is a view of. Parameters and buffers
    exist anyway and are not counted; an input that is kept is. What is kept depends on which inputs require a gradient:
    those of a layer inside a network do, images do not.

    The module is left as it was: the pass updates copies of its buffers, as the running statistics of batch norms.
    """
    kept: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Kept:
        # Detached, because a graph that held its own output would never be freed.
        held = _Kept(tensor.detach())
        kept.add(held)
        return held

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor)
    with mode(module, training=True), torch.inference_mode(False), torch.enable_grad(), hooks:
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        # As long as the output is held, so is what its backward needs; what nothing needs is gone from `kept`.
        output = torch.func.functional_call(module, buffers, inputs)
    storages = {held.tensor.untyped_storage()._cdata: held.tensor.untyped_storage().nbytes() for held in kept}
    for tensor in (*module.parameters(), *buffers.values()):
        storages.pop(tensor.untyped_storage()._cdata, None)
    del output
    return sum(storages.values())


def parameter_count(model: nn.Module) -> int:
    """Counts the numbers that a network learns."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def buffer_count(model: nn.Module) -> int:
    """Counts the numbers that a network keeps without learning them, as the running statistics of batch norms."""
    return sum(buffer.numel() for buffer in model.buffers())


@contextmanager
def mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts a module into training or evaluation mode, and in the end each of its parts back into the one it was in."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


class _Kept:
    """A tensor that autograd keeps: alive as long as the node of the graph that needs it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _peak_cuda(step: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_cpu(step: Callable[[], object]) -> int:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        step()
    assert profiler.profiler is not None
    allocated = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak
