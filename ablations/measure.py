"""What a network costs: here, the memory of a training step. Knows nothing of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

MIB = 2**20


def peak_memory(step: Callable[[], None], persistent: Iterable[Tensor], device: torch.device) -> float:
    """Measures the peak memory of a training step in MiB: what persists plus the most that the step allocates.

    On a GPU the caching allocator's counters are read, on the CPU every allocation that the profiler sees is summed:
    both count what torch's allocators hand out, and neither the data set nor the Python process.

    Args:
        step: runs one step, and frees all that it allocated: gradients are set to None.
        persistent: weights, buffers and optimizer state.
        device: where the step runs.
    """
    held = sum(tensor.nbytes for tensor in persistent)
    return (held + (_peak_cuda(step) if device.type == "cuda" else _peak_cpu(step))) / MIB


def parameter_count(model: nn.Module) -> int:
    """Counts the numbers that a network learns."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _peak_cuda(step: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_cpu(step: Callable[[], None]) -> int:
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
