"""Measures the memory of a module or network: its peak, and the activations saved for backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ablations.common.sizes import MIB


def peak_memory(step: Callable[[], object], persistent: Iterable[Tensor], device: torch.device) -> float:
    """Measures the peak memory of a step in MiB: persistent tensors plus the peak of the step's allocations.

    On a GPU the counters of the caching allocator are read; on the CPU the allocations recorded by the profiler are
    summed. Both cover only memory from torch's allocators, without the data set and the Python process.

    Args:
        step: runs a training step or an inference once, and frees all memory that it allocated: it drops the outputs
            and sets gradients to None.
        persistent: weights, buffers and optimizer state; may be empty.
        device: the device of the step.
    """
    held = sum(tensor.nbytes for tensor in persistent)
    return (held + (_peak_cuda(step) if device.type == "cuda" else _peak_cpu(step))) / MIB


def saved_bytes(module: nn.Module, *inputs: Tensor) -> int:
    """Counts the bytes that autograd saves for backward in a forward pass in training mode, on any device.

    Each storage is counted once and as a whole, since a saved view keeps its whole storage alive. Saved inputs are
    counted; parameters and buffers, which persist anyway, are not. Which tensors are saved depends on which inputs
    require a gradient: the input of a layer inside a network does, images do not.

    The state of the module does not change: the pass updates copies of its buffers, such as running statistics.
    """
    kept: weakref.WeakSet[_Kept] = weakref.WeakSet()

    def pack(tensor: Tensor) -> _Kept:
        # Detached, because a graph that holds its own output is never freed.
        held = _Kept(tensor.detach())
        kept.add(held)
        return held

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor)
    with mode(module, training=True), torch.inference_mode(False), torch.enable_grad(), hooks:
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        # The output keeps the tensors for its backward alive; `kept` is weak and drops all others.
        output = torch.func.functional_call(module, buffers, inputs)
    storages = {held.tensor.untyped_storage()._cdata: held.tensor.untyped_storage().nbytes() for held in kept}
    for tensor in (*module.parameters(), *buffers.values()):
        storages.pop(tensor.untyped_storage()._cdata, None)
    del output
    return sum(storages.values())


def parameter_count(model: nn.Module) -> int:
    """Counts the trainable parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def buffer_count(model: nn.Module) -> int:
    """Counts the elements of a network's buffers, such as the running statistics of batch norms."""
    return sum(buffer.numel() for buffer in model.buffers())


@contextmanager
def mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Sets a module to training or evaluation mode, and restores the mode of each submodule on exit."""
    before = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, was in before:
            part.training = was


class _Kept:
    """A tensor saved by autograd; it lives as long as the node of the graph that needs it."""

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
