"""Simulated full disks and killed writers."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDS_FULL_DISK = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")

# A process that is killed after writing half of a file.
_KILLED = """
import os, signal, sys
from pathlib import Path
from ablations.common.files import write_whole
def write_half(path, content):
    with path.open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
Path.write_bytes = write_half
write_whole(Path(sys.argv[1]), b"half of this")
"""


def fill_disk_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a full disk for atomic writes of a single file."""
    write_bytes = Path.write_bytes

    def write(partial: Path, content: bytes) -> int:
        if partial.parent == path.parent and partial.name.startswith(f".{path.name}."):
            partial.symlink_to("/dev/full")
        return write_bytes(partial, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limits the size in bytes of every file that this process writes; the kernel refuses the excess."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leave_partial(path: Path) -> None:
    """Kills a process during an atomic write of a file."""
    done = subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
