"""Joules of an image, where the GPU counts the energy that it takes.

NVML's `nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded, on Volta and later. The
counter moves only every 20 to 100 ms, and sensors may see a part of the time only (Yang et al. 2024, arXiv
2312.02741), so one call cannot be measured: it is repeated for seconds without a pause, and the load is then steady.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_BURST = 0.05  # seconds of calls that are queued at once, so that waiting for them costs the GPU nothing
_LOOK = 0.005  # seconds between two looks at the counter: short beside its steps, long beside what a look takes
_STUCK = 1.0  # seconds without a step, at work, after which a counter is none

# What says of all that was queued until now whether it is done, once asked: as `torch.cuda.Event.query`.
Done = Callable[[], bool]


def joules_per_image(
    act: Callable[[], object], images: int, device: torch.device, seconds: float = 3.0
) -> float | None:
    """Measures the energy of an image in joules, of the whole GPU: what it would take idle is not subtracted.

    Nothing else may run on the GPU meanwhile; its host is not counted. None is returned where there is no
    `energy_counter`, or it stands still.

    Args:
        act: queues the work of one batch of `images` on `device`'s current stream; it should not wait for it.
        seconds: between the first and the last step of the counter, at least.
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
    """Returns what reads the joules that `device` took since its driver was loaded.

    None where it is no CUDA device, NVML cannot be loaded, or the GPU does not count its energy.
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
    """Returns the UUID by which NVML knows a CUDA device.

    CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER number GPUs otherwise than NVML does.
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
    """Measures the joules of a call of `act`: mean power times mean time of a call, while calls are all that runs.

    Power is taken from step to step of the counter, time from end to end of a burst of calls, so that neither the
    counter's steps nor a call's length limit the precision. The next burst is queued before the last is waited for:
    the device does not idle, and the counter is looked at meanwhile.

    Args:
        act: queues a piece of work.
        joules: a counter, as `energy_counter` returns.
        mark: returns what says whether all that was queued before it is done.
        seconds, clock, sleep: as in `joules_per_image`; what tells the time, and lets it pass, in seconds.

    Returns:
        None if the counter stands still for a second of work.
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
            steps.look()  # here too: time passes here where the queue is full, or the host slower than the device
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
    """The steps of a counter, each with its time; where it stood at first is no step."""

    def __init__(self, joules: Callable[[], float], clock: Callable[[], float]) -> None:
        self._joules, self._clock = joules, clock
        self._seen = [self._read()]
        self._looked = self._seen[0][0]

    def _read(self) -> tuple[float, float]:
        joules = self._joules()
        return self._clock(), joules

    @property
    def span(self) -> float:
        """Seconds from the first step to the last."""
        return self._seen[-1][0] - self._seen[1][0] if len(self._seen) > 1 else 0.0

    @property
    def watts(self) -> float:
        """Mean power from the first step to the last."""
        return (self._seen[-1][1] - self._seen[1][1]) / self.span

    @property
    def still(self) -> float:
        """Seconds since the last step."""
        return self._clock() - self._seen[-1][0]

    def look(self) -> None:
        """Reads the counter, if it was not read just now."""
        if self._clock() - self._looked >= _LOOK:
            now = self._read()
            self._looked = now[0]
            if now[1] != self._seen[-1][1]:
                self._seen.append(now)
