"""Limits that a Linux control group sets for this process, as containers and batch systems do.

Both versions of the interface are read (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/). The limits of
all enclosing groups apply, so each function reads every group up to the root. On other systems than Linux, and where a
file cannot be read, there is no limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def cores(root: Path = _ROOT) -> float:
    """Returns the processor time that this process's groups may use, as a number of cores; inf without a limit."""
    limits = [math.inf]
    for version, folder in _folders("cpu", root):
        if version == 2:
            quota, period = (*_words(folder / "cpu.max"), "", "")[:2]
        else:
            quota, period = ("".join(_words(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # else `max` or -1
            limits.append(int(quota) / int(period))
    return min(limits)


def free_memory(root: Path = _ROOT) -> float:
    """Returns the bytes that this process's groups may still use; inf without a limit.

    Cached pages of files that are not in use count as free, because the kernel reclaims them.
    """
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
             2: ("memory.max", "memory.current", "inactive_file")}  # fmt: skip
    free = [math.inf]
    for version, folder in _folders("memory", root):
        limit_file, used_file, cached_key = names[version]
        limit, used = ("".join(_words(folder / name)) for name in (limit_file, used_file))
        if limit.isdecimal() and used.isdecimal():
            statistics = _words(folder / "memory.stat")
            values = dict(zip(statistics[::2], statistics[1::2], strict=False))
            free.append(max(0, int(limit) - int(used) + int(values.get(cached_key, 0))))
    return min(free)


def _folders(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Yields version and folder of each of this process's groups under a controller, from the innermost outwards."""
    mounts = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            version, base = 2, mounts
        elif controller in controllers.split(","):
            base = mounts / controllers
            version, base = 1, base if base.is_dir() else mounts / controller
        else:
            continue
        # In a container the path may be that of the host, while the container's group is mounted as the root.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield version, base / str(group).lstrip("/")


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
