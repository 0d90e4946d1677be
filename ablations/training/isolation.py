"""What a cell has for itself in a process, so that several can be trained in turns without influence on each other.

These are the states of torch's default random number generators, which networks with dropout draw from, and on a GPU a
stream: kernels of several small networks then run at the same time, and CUDA graphs can be captured, which the default
stream does not allow. See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Event = TypeVar("Event")


def isolated(events: Generator[Event, None, None], device: torch.device) -> Iterator[Event]:
    """Yields what a generator does, each time with the random states and the stream that it alone has.

    What was computed for an event is complete for whoever uses it: the caller's stream waits for it.
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
    """The random states and the stream of a cell; the random states start as copies of the current ones.

    Args:
        device: that the cell is trained on.
    """

    def __init__(self, device: torch.device) -> None:
        self._cpu = torch.get_rng_state()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which has copied the images
            self._default = torch.cuda.default_generators[self._stream.device_index]
            self._random = self._default.clone_state()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Computes in the stream, with these random states in the place of torch's."""
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
        # Exchanged as objects, not as values: a graph writes the state of the object that it was captured with.
        outside = self._default.graphsafe_get_state()
        self._default.graphsafe_set_state(self._random)
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._default.graphsafe_set_state(outside)
            outer.wait_stream(stream)
