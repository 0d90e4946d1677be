from __future__ import annotations

import subprocess
import sys

import pytest

RESIDENT = """
import ctypes, sys
from pathlib import Path
from ablations.common.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])
before = pages()
block = libc.malloc(2**26)
ctypes.memset(block, 1, 2**26)
libc.free(block)
print(pages() - before > 2**26 // 4096 // 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
@pytest.mark.parametrize(("setting", "kept"), [("kept", "True"), ("default", "False")])
def test_freed_memory_is_kept_only_on_request(setting: str, kept: str) -> None:
    done = subprocess.run([sys.executable, "-c", RESIDENT, setting], capture_output=True, text=True, check=True)
    assert done.stdout == f"{kept}\n"
