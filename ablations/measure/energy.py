"""Measures the energy per image in joules, on GPUs with an energy counter.

NVML's `nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded, on Volta and later. The
counter is updated only every 20 to 100 ms, and the sensors may sample only a part of the time (Yang et al. 2024, arXiv
2312.02741). A single call therefore cannot be measured: it is repeated for seconds without a pause, at steady load.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_BURST = 0.05  # minimum seconds of a burst of calls; bursts are queued ahead, so that the GPU does not idle
_LOOK = 0.005  # seconds between reads of the counter: shorter than its update interval, longer than a read
_STUCK = 1.0  # seconds of work without an update after which the counter counts as not supported

# Returns whether all work queued before its creation is complete, as `torch.cuda.Event.query` does.
Done = Callable[[], bool]


def joules_per_image(
    act: Callable[[], object], images: int, device: torch.device, seconds: float = 3.0
) -> float | None:
    """Measures the energy per image in joules, for the whole GPU, including its idle power.

    Nothing else may run on the GPU during the measurement. The host's energy is not included. Returns None if there is
    no `energy_counter`, or if the counter does not change.

    Args:
        act: queues the work of one batch on `device`'s current stream; it should not synchronize.
        images: number of images in the batch.
        device: the GPU.
        seconds: minimum time between the first and the last update of the counter.
    """
    joules = energy_counter(device)
    if joules is None:
        return None

    def mark() -> Done:
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
        return event.query

    each = joules_per_call(act, joules, mark, seconds)
    return None if each is None else each / images


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """Returns a function that reads the joules consumed by `device` since its driver was loaded.

    Returns None if the device is not a CUDA device, NVML cannot be loaded, or the GPU has no energy counter.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None

    def joules() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu_uuid(device))
        joules()
    except pynvml.NVMLError:  # no driver, no permission, a GPU from before Volta
        return None
    return joules


def gpu_uuid(device: torch.device) -> str:
    """Returns the UUID of a CUDA device for NVML.

    The index is not usable: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER change CUDA's numbering but not NVML's.
    """
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def joules_per_call(
    act: Callable[[], object],
    joules: Callable[[], float],
    mark: Callable[[], Done],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> float | None:
    """Measures the joules per call of `act`: mean power times mean time of a call, under continuous load.

    Power is measured between updates of the counter, and time between the ends of bursts of calls, so that neither the
    update interval nor the duration of a call limits the precision. The next burst is queued before the previous one
    ends, so that the device does not idle; the counter is read in the meantime.

    Args:
        act: queues the work of a call.
        joules: a counter, as returned by `energy_counter`.
        mark: returns a `Done` for all work queued before it.
        seconds: as in `joules_per_image`.
        clock: returns the time in seconds.
        sleep: sleeps for a number of seconds.

    Returns:
        The joules per call; None if the counter does not change during a second of work.
    """
    size = 1

    def wait(done: Done) -> None:
        while not done():
            sleep(_LOOK)

    def burst() -> float:
        began = clock()
        for _ in range(size):
            act()
        wait(mark())
        return clock() - began

    while min(burst() for _ in range(3)) < _BURST:  # the first calls may compile
        size *= 2
    steps = _Steps(joules, clock)

    def queue() -> Done:
        for _ in range(size):
            act()
            steps.look()  # queueing may take long if the queue is full or the host is slower than the device
        return mark()

    ends: list[float] = []
    queued = queue()
    while (steps.span < seconds or len(ends) < 2) and steps.still < _STUCK:
        following = queue()
        while not queued():
            sleep(_LOOK)
            steps.look()
        ends.append(clock())
        queued = following
    wait(queued)
    return steps.watts * (ends[-1] - ends[0]) / (size * (len(ends) - 1)) if steps.span >= seconds else None


class _Steps:
    """The updates of a counter, each with its time; the initial reading is not an update."""

    def __init__(self, joules: Callable[[], float], clock: Callable[[], float]) -> None:
        self._joules, self._clock = joules, clock
        self._seen = [self._read()]
        self._looked = self._seen[0][0]

    def _read(self) -> tuple[float, float]:
        joules = self._joules()
        return self._clock(), joules

    @property
    def span(self) -> float:
        """Seconds from the first update to the last."""
        return self._seen[-1][0] - self._seen[1][0] if len(self._seen) > 1 else 0.0

    @property
    def watts(self) -> float:
        """Mean power from the first update to the last."""
        return (self._seen[-1][1] - self._seen[1][1]) / self.span

    @property
    def still(self) -> float:
        """Seconds since the last update."""
        return self._clock() - self._seen[-1][0]

    def look(self) -> None:
        """Reads the counter, unless the last read was less than `_LOOK` seconds ago."""
        if self._clock() - self._looked >= _LOOK:
            now = self._read()
            self._looked = now[0]
            if now[1] != self._seen[-1][1]:
                self._seen.append(now)
