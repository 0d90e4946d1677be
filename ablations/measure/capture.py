"""Captures calls as CUDA graphs, to measure the time on the GPU without launch overhead from Python.

The time of an eager call is the one in ordinary use. If its kernels are shorter than their launches from Python, it
measures the host. The driver launches all kernels of a captured call at once (CUDA Programming Guide, "CUDA Graphs").
"""

from __future__ import annotations

from collections.abc import Callable

import torch

_WARM_UPS = 3  # calls before the capture: the first ones compile, choose algorithms and allocate memory


class Replay:
    """A captured call; it reads and writes the tensors of the capture, which it keeps alive."""

    def __init__(self, act: Callable[[], object], graph: torch.cuda.CUDAGraph) -> None:
        self._act, self._graph = act, graph

    def __call__(self) -> None:
        """Queues the captured work on the current stream."""
        self._graph.replay()


def captured(act: Callable[[], object], warm_ups: int = _WARM_UPS) -> Replay:
    """Calls a function `warm_ups` times, and captures the next call as a CUDA graph without running it.

    Args:
        act: queues the same work on the current CUDA device in each call, and does not synchronize with it.
        warm_ups: number of calls before the capture, on a separate stream; at least one is made.

    Raises:
        RuntimeError: if there is no CUDA device, or the work cannot be captured, for example because it synchronizes.
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
