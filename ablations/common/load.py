"""The load of other processes on this machine's cores during a measurement."""

from __future__ import annotations

import math
import time

import psutil

from ablations.common.machine import allowed_cores

_SHORTEST = 0.1  # seconds; processor time is counted in hundredths of a second


class LoadMeter:
    """Measures, from its creation on, the processor time of all processes but this one and its children."""

    def __init__(self) -> None:
        self._begun, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def cores_of_others(self) -> float:
        """Returns how many of this process's allowed cores other processes have used; nan after too short a time.

        Time that a hypervisor gave to other machines (steal) counts as used.
        """
        elapsed = time.monotonic() - self._begun
        if elapsed < _SHORTEST:
            return math.nan
        own = sum(seconds - self._own.get(key, 0.0) for key, seconds in _own_seconds().items())
        return max(0.0, (_busy_seconds() - self._busy - own) / elapsed)


def _busy_seconds() -> float:
    allowed, total = set(allowed_cores()), 0.0
    for core, times in enumerate(psutil.cpu_times(percpu=True)):
        if core in allowed:
            names = ("user", "nice", "system", "irq", "softirq", "steal")  # user and nice include those of guests
            total += sum(getattr(times, name, 0.0) for name in names)
    return total


def _own_seconds() -> dict[tuple[int, float], float]:
    """Returns the processor time of this process and its children, by process id and time of creation."""
    by_process = {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
            by_process[process.pid, process.create_time()] = times.user + times.system
        except psutil.Error:
            continue
    return by_process
