"""How a process that trains or measures is set up, before it imports torch."""

from __future__ import annotations

import ctypes
import os
import sys


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
