"""Isolates cells that are trained alternately in one process, so that they do not influence each other.

Each cell has its own states of torch's default random number generators, which layers such as dropout use, and on a GPU
its own stream. Separate streams let kernels of several small networks run concurrently and allow the capture of CUDA
graphs, which the default stream does not. See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Event = TypeVar("Event")


def isolated(events: Generator[Event, None, None], device: torch.device) -> Iterator[Event]:
    """Yields the events of a generator, which runs with its own random states and stream.

    The caller's stream waits for the generator's, so the tensors of an event are complete when the caller uses them.
    """
    own = Isolation(device)
    try:
        while True:
            with own.entered():
                try:
                    event = next(events)
                except StopIteration:
                    return
            yield event
    finally:
        with own.entered():
            events.close()


class Isolation:
    """The random states and the stream of a cell; the random states are initialized as copies of the current ones.

    Args:
        device: the device on which the cell is trained.
    """

    def __init__(self, device: torch.device) -> None:
        self._cpu = torch.get_rng_state()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # images may still be copied on it
            self._default = torch.cuda.default_generators[self._stream.device_index]
            self._random = self._default.clone_state()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Activates the stream, and replaces torch's random states with those of the cell."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._cpu)
        try:
            if self._stream is None:
                yield
            else:
                with self._entered_on_gpu(self._stream):
                    yield
        finally:
            self._cpu = torch.get_rng_state()
            torch.set_rng_state(outside)

    @contextmanager
    def _entered_on_gpu(self, stream: torch.cuda.Stream) -> Iterator[None]:
        outer = torch.cuda.current_stream(stream.device)
        # Swaps state objects instead of copying values: a graph updates the state object that it was captured with.
        outside = self._default.graphsafe_get_state()
        self._default.graphsafe_set_state(self._random)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._default.graphsafe_set_state(outside)
            outer.wait_stream(stream)
