"""Calls replayed as CUDA graphs: the time that the GPU takes, without that in which Python starts its kernels.

An eager call is timed as a user meets it. Where its kernels are shorter than their launches from Python, that measures
the host. A captured call is started by the driver in one go (CUDA Programming Guide, "CUDA Graphs").
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_WARM_UPS = 3  # calls before one is captured: the first ones compile, choose algorithms and allocate


class Replay:
    """A call that was captured. It computes with the tensors of then, which it keeps alive with the call."""

    def __init__(self, act: Callable[[], object], graph: torch.cuda.CUDAGraph) -> None:
        self._act, self._graph = act, graph

    def __call__(self) -> None:
        """Queues what the call did when it was captured, on the current stream."""
        self._graph.replay()


def captured(act: Callable[[], object], warm_ups: int = _WARM_UPS) -> Replay:
    """Calls a function `warm_ups` times, and captures the next call as a CUDA graph without running it.

    Args:
        act: queues work on the current CUDA device, always the same, and waits for nothing.
        warm_ups: calls on a stream of their own, at least one.

    Raises:
        RuntimeError: if there is no CUDA device, or the work cannot be captured, as where it waits for a result.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("a call can be captured on a CUDA device only")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(max(1, warm_ups)):
            act()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        act()
    return Replay(act, graph)
