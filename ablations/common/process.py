"""How a process is set up that trains or measures, before it imports torch, or reads many objects at once."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks instead of returning them to the kernel.

    A training step frees and allocates the same tensors over and over; on the CPU, having the kernel map and clear
    their pages anew each time costs a fifth of a small network's step.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library
    m_trim_threshold, m_mmap_max = -1, -4
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def quiet_profiler() -> None:
    """Keeps Kineto, behind torch's profiler, from writing notices to standard error; to be called before torch is."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@contextmanager
def without_collecting_garbage() -> Iterator[None]:
    """Turns garbage collection off, if it was on: while many objects are made that stay, it finds nothing, for long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
