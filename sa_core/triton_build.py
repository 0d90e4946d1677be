"""Checks whether Triton can be used on this machine, without importing it.

Triton builds a C extension at the first launch of a kernel on a GPU (`triton.runtime.build`), which requires a C
compiler and Python's headers. Without them the launch raises in the middle of a computation, so they are checked first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SOURCE = '#include <Python.h>\nPyObject *nothing(void) { return PyUnicode_FromString(""); }\n'
_PATIENCE = 60.0  # timeout of the compiler, in seconds


def reason_against_triton() -> str | None:
    """Returns the reason why Triton's kernels cannot be launched on a GPU, as a clause; None if they can.

    Triton's interpreter (`TRITON_INTERPRET=1`) does not build anything.
    """
    if find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return reason_against_building()


@cache
def reason_against_building() -> str | None:
    """Returns the reason why C extensions cannot be built, as a clause; None after a successful test build (0.1 s).

    The compiler is chosen as in Triton: the program in CC, otherwise gcc or clang.
    """
    compiler = os.environ.get("CC", shutil.which("gcc") or shutil.which("clang"))
    if compiler is None:
        return "Triton needs a C compiler, but none was found (CC, gcc, clang)"
    # Debian's default scheme, posix_local, points to /usr/local, which does not contain the headers.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    headers = sysconfig.get_paths(scheme)["include"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "nothing.c")
        source.write_text(_SOURCE, encoding="utf-8")
        command = [compiler, str(source), "-shared", "-fPIC", "-o", str(source.with_suffix(".so")), f"-I{headers}"]
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Triton needs a C compiler, but {compiler or 'CC'} cannot be run ({error})"
    if done.returncode == 0:
        return None
    if not Path(headers, "Python.h").exists():
        return f"Triton needs Python's headers, but there is no Python.h in {headers}"
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"Triton needs a C compiler, but {compiler} fails ({lines[0][:200]})"
