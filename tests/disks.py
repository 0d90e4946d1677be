"""Disks that are full, for one file, and writers that are killed."""

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

# Writes half of a file and is killed.
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
    """Has the disk be full for one file, which is written whole or not at all, and no other."""
    write_bytes = Path.write_bytes

    def write(partial: Path, content: bytes) -> int:
        if partial.parent == path.parent and partial.name.startswith(f".{path.name}."):
            partial.symlink_to("/dev/full")
        return write_bytes(partial, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Has the kernel refuse what goes beyond so many bytes of any file of this process, after it wrote those."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leave_partial(path: Path) -> None:
    """Has a process be killed while it writes a file whole or not at all."""
    done = subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
