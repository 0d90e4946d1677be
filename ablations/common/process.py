"""Settings of a process: memory allocation and profiler before torch is imported, garbage collection while reading."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def keep_freed_memory() -> None:
    """Configures glibc to keep large freed blocks instead of returning them to the kernel.

    Each training step frees and allocates the same tensors; on the CPU, mapping and clearing their pages each time
    takes a fifth of a small network's step.
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
    """Silences the notices of Kineto, the library behind torch's profiler; must be called before importing torch."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


@contextmanager
def without_collecting_garbage() -> Iterator[None]:
    """Disables garbage collection while many permanent objects are created: it would take long and free nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
